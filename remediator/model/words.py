"""Spells counts and lists for people. Words only; nothing is decided by them."""

from __future__ import annotations

from collections.abc import Sequence


def how_many(count: int, thing: str) -> str:
    """``1 error``, ``2 errors``."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def shortened(words: Sequence[str], shown: int = 4, by: str = ", ") -> str:
    """``a, b, c and 5 more``."""
    text = by.join(words[:shown])
    return f"{text} and {len(words) - shown} more" if len(words) > shown else text
