"""remediator keeps the pools of a GPU cluster full of healthy nodes."""

__version__ = "0.1.0"
