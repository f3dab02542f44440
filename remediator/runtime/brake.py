"""How much of the join rates holds now, from how the API server answers us. No request of its own.

Halved for each quarter of a minute in which it was slow or refused, doubled after a good minute: a
server that labours under the nodes that join gets fewer of them.
"""

from __future__ import annotations

from typing import Final

from remediator.ports import Clock

WINDOW_S: Final = 15.0
SLOW_S: Final = 1.0
BAD_SHARE: Final = 0.01
BAD_LEAST: Final = 2  # one slow answer among few is none
GOOD_WINDOWS: Final = 4
LEAST: Final = 1.0 / 16.0
_REFUSED: Final = frozenset((429, 503))


class Brake:
    """Told of every answer; asked before anybody is let in."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._share = 1.0
        self._began = clock.monotonic()
        self._answers = 0
        self._bad = 0
        self._good_windows = 0

    def note(self, seconds: float, status: int) -> None:
        """One answer; status 0: none came."""
        self._turn()
        self._answers += 1
        self._bad += status == 0 or status in _REFUSED or seconds > SLOW_S

    def share(self) -> float:
        """The share of each rate that holds now: one, or less."""
        self._turn()
        return self._share

    def _turn(self) -> None:
        elapsed_s = self._clock.monotonic() - self._began
        if elapsed_s < WINDOW_S:
            return
        if self._bad >= max(BAD_LEAST, BAD_SHARE * self._answers):
            self._share, self._good_windows = max(LEAST, self._share / 2.0), 0
        else:
            self._good_windows += int(elapsed_s / WINDOW_S)
            doublings, self._good_windows = divmod(self._good_windows, GOOD_WINDOWS)
            self._share = min(1.0, self._share * 2.0**doublings)
        self._began += WINDOW_S * int(elapsed_s / WINDOW_S)
        self._answers = self._bad = 0
