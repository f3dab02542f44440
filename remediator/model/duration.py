"""Durations as people write them in playbooks: ``90s``, ``15m``, ``2h30m``, ``14d``."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated, Final

from msgspec import Meta

# The digits are bounded so that no duration overflows a timedelta, or an int64 in the API server.
PATTERN: Final = r"^([0-9]{1,3}d)?([0-9]{1,4}h)?([0-9]{1,5}m)?([0-9]{1,6}s)?$"

Duration = Annotated[
    str,
    Meta(
        pattern=PATTERN,
        min_length=2,
        max_length=16,
        description="A duration: 90s, 15m, 2h30m, 14d.",
        examples=["90s", "15m", "2h30m", "14d"],
    ),
]

_UNITS_S: Final = (86_400, 3_600, 60, 1)


@lru_cache(maxsize=1_024)  # a handful of texts, read again at each look at each node
def seconds(text: str) -> int:
    """Read a duration.

    Raises:
        ValueError: the text is empty or not of the form ``1d2h3m4s``.
    """
    found = re.fullmatch(PATTERN, text)
    if not text or found is None:
        raise ValueError(f"not a duration: {text!r}; write 90s, 15m, 2h30m or 14d")
    return sum(int(part[:-1]) * unit_s for part, unit_s in zip(found.groups(), _UNITS_S, strict=True) if part)


def spoken(seconds_: float) -> str:
    """Write seconds the way people read them: ``45s``, ``18m``, ``2h05m``, ``6d4h``."""
    total = int(seconds_)
    if total < 60:
        return f"{total}s"
    if total < 3_600:
        rest = total % 60
        return f"{total // 60}m{rest:02d}s" if rest and total < 600 else f"{total // 60}m"
    if total < 86_400:
        rest = total % 3_600 // 60
        return f"{total // 3_600}h{rest:02d}m" if rest else f"{total // 3_600}h"
    rest = total % 86_400 // 3_600
    return f"{total // 86_400}d{rest}h" if rest else f"{total // 86_400}d"
