"""The doctor: is this installation able to see, to act and to keep its promises? It changes nothing."""
