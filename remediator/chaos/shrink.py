"""Makes a history that broke a rule as small as it can be while it still breaks the same one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from msgspec.structs import replace

from remediator.chaos.history import Outcome, play
from remediator.chaos.schedule import Schedule

PLAYED_MAX: Final = 400

Tell = Callable[[Schedule], None]


def shrink(schedule: Schedule, rules: tuple[str, ...] = (), *, tell: Tell = lambda _: None) -> Schedule:
    """Leave out faults, events and replicas, and narrow the fleet, as long as one of ``rules`` is broken.

    Each candidate is played anew, at most ``PLAYED_MAX`` in all; the result may be smaller still.

    Args:
        schedule: that broke something.
        rules: what it has to break; empty: what it breaks now.
        tell: is given each smaller one that was found.

    Raises:
        ValueError: it breaks none of them.
    """
    first = play(schedule)
    wanted = set(rules or first.broken)
    if wanted.isdisjoint(first.broken):
        raise ValueError(f"it breaks {', '.join(first.broken) or 'no rule'}")
    best, played, found = schedule, 1, True
    while found and played < PLAYED_MAX:
        found = False
        for smaller in _smaller(best):
            played += 1
            if _breaks(play(smaller), wanted):
                best, found = smaller, True
                tell(best)
                break
            if played >= PLAYED_MAX:
                break
    return best


def _breaks(outcome: Outcome, wanted: set[str]) -> bool:
    return not wanted.isdisjoint(outcome.broken)


def _smaller(schedule: Schedule) -> Iterator[Schedule]:
    """Schedules that lack something, the largest parts first."""
    for field in ("faults", "events"):
        items = getattr(schedule, field)
        size = len(items)
        while size:
            for first in range(0, len(items), size):
                yield replace(schedule, **{field: items[:first] + items[first + size :]})
            size //= 2
    if schedule.replicas > 1:
        yield replace(schedule, replicas=schedule.replicas - 1)
    for number, fault in enumerate(schedule.faults):
        if fault.share < 1:
            yield _with(schedule, "faults", number, share=1.0)
    for number, event in enumerate(schedule.events):
        if event.at_s >= 1 and event.at_s != round(event.at_s):
            yield _with(schedule, "events", number, at_s=float(round(event.at_s)))


def _with(schedule: Schedule, field: str, number: int, **change: object) -> Schedule:
    items = list(getattr(schedule, field))
    items[number] = replace(items[number], **change)
    return replace(schedule, **{field: tuple(items)})
