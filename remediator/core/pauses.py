"""How long to wait before something is tried again."""

from __future__ import annotations

from typing import Final

_TURNS_MAX: Final = 16  # beyond it every pause of the program has reached its bound


def doubled(first_s: float, turns: int, most_s: float) -> float:
    """``first_s`` after the first try, twice as long after each one in a row, ``most_s`` at most.

    ``turns`` counts the tries before the last one, from 0.
    """
    return min(most_s, first_s * 2.0 ** min(turns, _TURNS_MAX))
