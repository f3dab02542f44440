"""How soon each planted bug is found: histories are drawn until one of them breaks a rule."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from statistics import median
from typing import Final

from msgspec import Struct

from remediator.chaos import campaign
from remediator.chaos.candidates import BUGS, candidate
from remediator.chaos.history import play
from remediator.chaos.reference.bugs import Bug

SEEDS_APART: Final = 10_000  # no run takes seeds of another


class Found(Struct, frozen=True):
    """How many ``histories`` each run took that found the bug, ascending; ``rules`` broken at their ends.

    The other ``runs`` had not found it when the search ended, after ``played`` histories of each.
    """

    bug: str
    histories: tuple[int, ...]
    rules: dict[str, int]
    runs: int
    played: int

    @property
    def median(self) -> float | None:
        """Of all runs; None where too few have found it for one to be known."""
        if len(self.histories) < _half(self.runs):
            return None
        late = [float("inf")] * (self.runs - len(self.histories))
        return median([*self.histories, *late])


def named(slugs: tuple[str, ...]) -> tuple[Bug, ...]:
    """The bugs of these names; all of them where none is named.

    Raises:
        InputError: there is no such bug.
    """
    if slugs:
        candidate("reference", slugs)
    return tuple(BUGS[slug] for slug in slugs) or tuple(Bug)


def hunt(bugs: tuple[Bug, ...], *, runs: int, most: int, workers: int = 1) -> Iterator[Found]:
    """Look for each bug ``runs`` times, in at most ``most`` histories each time.

    All runs of a bug play one history in turn, until more than half of them have found it: by then the
    median is known, and what the slowest would take costs as much again.
    """
    hunts = [_Hunt(bug.slug, runs, most) for bug in bugs]
    sent: deque[tuple[_Hunt, int, int]] = deque()  # in the order in which the results come

    def tasks() -> Iterator[tuple[str, int]]:
        for each in hunts:
            for run, number in each.turns():
                sent.append((each, run, number))
                yield each.bug, run * SEEDS_APART + number

    left = deque(hunts)
    for broken in campaign.spread(_broken, tasks(), workers=workers):
        each, run, number = sent.popleft()
        while left[0] is not each:
            yield left.popleft().found()
        each.played(run, number, broken)
    yield from (each.found() for each in left)


def told(found: Found) -> str:
    """One line for people."""
    if found.median is None:
        many = f"{len(found.histories)} of {found.runs} runs"
        return f"{found.bug:<22} found by {many} in {found.played} histories each"
    low, rules = found.histories[0], ", ".join(found.rules)
    return f"{found.bug:<22} {found.median:>5g} histories ({low} at best), by {rules}"


class _Hunt:
    """The runs after one bug. What is played ahead of the end is left out: it hangs on the workers."""

    def __init__(self, bug: str, runs: int, most: int) -> None:
        self.bug = bug
        self._runs, self._most = runs, most
        self._ends: dict[int, tuple[int, tuple[str, ...]]] = {}  # by run

    def turns(self) -> Iterator[tuple[int, int]]:
        """Which run plays its how manieth history next."""
        for number in range(1, self._most + 1):
            if self._last < number:
                return
            yield from ((run, number) for run in range(self._runs) if run not in self._ends)

    def played(self, run: int, number: int, broken: tuple[str, ...]) -> None:
        if broken:
            self._ends.setdefault(run, (number, broken))

    def found(self) -> Found:
        ends = [end for end in self._ends.values() if end[0] <= self._last]
        rules = Counter(rule for _, broken in ends for rule in broken)
        histories = tuple(sorted(number for number, _ in ends))
        return Found(self.bug, histories, dict(sorted(rules.items())), self._runs, self._last)

    @property
    def _last(self) -> int:
        """The turn with which the median is known."""
        ends = sorted(number for number, _ in self._ends.values())
        return ends[_half(self._runs) - 1] if len(ends) >= _half(self._runs) else self._most


def _half(runs: int) -> int:
    return runs // 2 + 1


def _broken(task: tuple[str, int]) -> tuple[str, ...]:
    slug, seed = task
    (schedule,) = campaign.drawn(range(seed, seed + 1), "reference", (slug,))
    return play(schedule).broken
