"""How soon each planted bug is found: histories are drawn until one of them breaks a rule."""

from __future__ import annotations

from collections import Counter
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
    """How many ``histories`` each run took in which it was found; ``rules`` that were broken at its end."""

    bug: str
    histories: tuple[int, ...]
    rules: dict[str, int]
    missed: int


def named(slugs: tuple[str, ...]) -> tuple[Bug, ...]:
    """The bugs of these names; all of them where none is named.

    Raises:
        InputError: there is no such bug.
    """
    if slugs:
        candidate("reference", slugs)
    return tuple(BUGS[slug] for slug in slugs) or tuple(Bug)


def hunt(bugs: tuple[Bug, ...], *, runs: int, most: int, workers: int = 1) -> Iterator[Found]:
    """Look for each bug ``runs`` times, in at most ``most`` histories each time."""
    tasks = [(bug.slug, run * SEEDS_APART + 1, most) for bug in bugs for run in range(runs)]
    results = campaign.spread(_until_found, tasks, workers=workers)
    for bug in bugs:
        found = [next(results) for _ in range(runs)]
        rules = Counter(rule for _, broken in found for rule in broken)
        histories = tuple(number for number, _ in found if number)
        yield Found(bug.slug, histories, dict(sorted(rules.items())), runs - len(histories))


def told(found: Found) -> str:
    """One line for people."""
    if not found.histories:
        return f"{found.bug:<22} not found in {found.missed} runs"
    low, high = min(found.histories), max(found.histories)
    missed = f", missed in {found.missed} runs" if found.missed else ""
    rules = ", ".join(found.rules)
    return f"{found.bug:<22} {median(found.histories):>5g} histories ({low} to {high}), by {rules}{missed}"


def _until_found(task: tuple[str, int, int]) -> tuple[int, tuple[str, ...]]:
    """How many histories it took, and the rules; 0 where none was broken."""
    slug, first, most = task
    for number, schedule in enumerate(campaign.drawn(range(first, first + most), "reference", (slug,)), 1):
        broken = play(schedule).broken
        if broken:
            return number, broken
    return 0, ()
