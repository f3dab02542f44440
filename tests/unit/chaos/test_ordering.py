"""A log is in the order of answers; what is judged is the order of versions."""

from __future__ import annotations

from remediator.chaos.check import check
from remediator.chaos.ordering import in_version_order
from remediator.chaos.profile import load_profile
from tests.unit.chaos.trace import FENCE, NODE, POOL, THEM, Trace, a_node

CORDONED = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}


def versions(trace: Trace) -> list[int]:
    return [numbered.line for numbered in in_version_order(trace.records())]


def late(trace: Trace, *, after_s: float) -> None:
    """Ours was decided on what another had written, and is answered first."""
    trace.node(POOL, cordoned=True)
    trace.patch(POOL, CORDONED, FENCE, version=105)
    left = a_node(POOL, CORDONED, cordoned=True)
    trace.write("patch", "nodes", NODE, user=THEM, left=left, version=104, after_s=after_s)


def test_write_that_is_told_late_comes_before_the_one_that_saw_it() -> None:
    trace = Trace()
    late(trace, after_s=0.5)

    assert versions(trace) == [1, 3, 2]
    found = check(trace.records(), load_profile("remediator"))
    (foreign,) = (each for each in found.verdicts if each.rule == "S12")
    assert (foreign.answer, foreign.judged) == ("held", 1)


def test_what_stands_far_apart_stays_where_it_is() -> None:
    trace = Trace()
    late(trace, after_s=30.0)

    assert versions(trace) == [1, 2, 3]


def test_other_records_keep_their_order() -> None:
    trace = Trace()
    trace.node(POOL)
    trace.pod()
    trace.evict()
    trace.patch(POOL, FENCE)

    assert versions(trace) == [1, 2, 3, 4, 5]
