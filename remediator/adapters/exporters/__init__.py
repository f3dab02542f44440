"""GPU metrics pages: where they are, fetching them, reading them. No judgement of what they say."""
