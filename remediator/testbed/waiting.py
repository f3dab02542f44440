"""Real time for the test bed: the one place here that sleeps or asks the clock.

The test bed drives real processes, so virtual time does not apply. What matters instead is that
every wait has a bound and that its error names what was waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from remediator.errors import TransientError

T = TypeVar("T")


class WaitExpiredError(TransientError):
    """Something did not happen within its bound."""


def now() -> datetime:
    """Return aware UTC wall-clock time."""
    return datetime.now(UTC)


def monotonic() -> float:
    """Return seconds from an arbitrary start, for durations."""
    return time.monotonic()


def wait_until(
    probe: Callable[[], T | None],
    *,
    timeout_s: float,
    what: str,
    every_s: float = 0.05,
    detail: Callable[[], str] | None = None,
) -> T:
    """Call ``probe`` until it returns something truthy, and return that.

    Args:
        probe: looked at once at least, also with a timeout of zero; its exceptions pass through.
        timeout_s: bound of the whole wait, seconds.
        what: completes "… did not happen within N s" in the error.
        every_s: pause between two looks, seconds.
        detail: says at the end of the wait what was seen last.

    Raises:
        WaitExpiredError: the bound passed.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        answer = probe()
        if answer:
            return answer
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            seen = f": {detail()}" if detail else ""
            raise WaitExpiredError(f"{what} did not happen within {timeout_s:g} s{seen}")
        time.sleep(min(every_s, left_s))
