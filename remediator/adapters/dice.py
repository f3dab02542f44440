"""Draws what nobody may foresee: the seed of a run's dice, and names that must differ between processes.

The one file allowed to. All other dice are a ``random.Random`` with a seed that stands in the log.
"""

from __future__ import annotations

import secrets

SEED_MAX = 2**63 - 1


def draw_seed() -> int:
    """A seed from 1 to ``SEED_MAX``; zero is left to mean that none was chosen."""
    return 1 + secrets.randbelow(SEED_MAX)


def draw_mark() -> str:
    """Eight hexadecimal digits, for a name that no other process may have: never out of a seed,
    which two replicas may share."""
    return secrets.token_hex(4)
