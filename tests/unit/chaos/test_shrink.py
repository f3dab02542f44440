"""What shrinking leaves is small, and still breaks what it is about."""

from __future__ import annotations

import pytest

from remediator.chaos.history import play
from remediator.chaos.schedule import Event, Fault, Schedule
from remediator.chaos.shrink import shrink

BREAKS = Event(at_s=20, kind="Condition", node="gpu-a-01", detail="KernelDeadlock=True")
NOISE = Event(at_s=30, kind="Cordon", node="gpu-b-02")
SLOW = Fault(kind="Slow", from_s=0, to_s=60, seconds=1)
LARGE = Schedule(
    seed=9,
    controller="reference",
    bugs=("evicts-by-name",),
    faults=(SLOW, SLOW),
    events=(NOISE, BREAKS, NOISE, NOISE),
    calm_s=1_200,
)


@pytest.mark.timeout(180)
def test_what_is_left_is_what_breaks_it() -> None:
    told: list[Schedule] = []
    small = shrink(LARGE, tell=told.append)

    assert (small.faults, small.events, small.replicas) == ((), (BREAKS,), 1)
    assert told[-1] == small
    assert "S4" in play(small).broken


@pytest.mark.timeout(60)
@pytest.mark.parametrize("rules", [(), ("S13",)])
def test_history_that_breaks_nothing_of_the_kind_is_refused(rules: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="it breaks"):
        shrink(Schedule(seed=9, controller="reference", events=(BREAKS,), calm_s=600), rules)
