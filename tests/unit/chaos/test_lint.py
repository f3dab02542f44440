"""A schedule that can't be played is refused before it is, with the field and the fix."""

from __future__ import annotations

import msgspec
import pytest

from remediator.chaos.campaign import drawn, load
from remediator.chaos.lint import problems
from remediator.chaos.schedule import Event, Fault, Schedule
from remediator.errors import InputError


@pytest.mark.parametrize(
    ("event", "field", "said"),
    [
        (Event(kind="Xid", node="gpu-z-01", value=79), "node", "'gpu-z-01' is no GPU node"),
        (Event(kind="Xid", node="gpu-a-01", value=1_000), "value", "1000 is no XID"),
        (Event(kind="Xid", node="gpu-a-01", value=7.5), "value", "7.5 is no XID"),
        (Event(kind="PagesLie", value=1.5), "value", "1.5 is no share"),
        (Event(kind="Condition", node="gpu-a-01", detail="Ready"), "detail", "'Ready' is no condition"),
        (
            Event(kind="PageTrouble", node="gpu-a-01", detail="dwon"),
            "detail",
            "'dwon' is none of PageTrouble",
        ),
        (Event(kind="RebootGoes", node="gpu-a-01", detail="well"), "detail", "'well' is none of RebootGoes"),
        (Event(kind="PartDown", detail="etcd", value=5), "detail", "'etcd' is none of PartDown"),
        (Event(kind="Silent", node="gpu-a-01", value=-1), "value", "-1 seconds are none"),
    ],
)
def test_event_that_cannot_happen_is_named(event, field, said):
    """The fleet has three racks of eight."""
    [(where, wrong, fix)] = problems(Schedule(seed=1, events=(event,)))
    assert (where, bool(fix)) == (("events", 0, field), True)
    assert wrong.startswith(said)


def test_fault_that_ends_before_it_begins_is_named():
    """It would never strike, and the history would show less than it says."""
    [(where, wrong, _)] = problems(Schedule(seed=1, faults=(Fault(kind="Slow", from_s=9, to_s=9),)))
    assert (where, wrong) == (("faults", 0, "toS"), "9 is not after fromS, 9")


def test_kind_that_is_not_served_has_a_name():
    """Without one nothing at all would be served, which is another fault."""
    [(where, wrong, fix)] = problems(Schedule(seed=1, faults=(Fault(kind="NotServed", from_s=1, to_s=9),)))
    assert (where, wrong) == (("faults", 0, "on"), "no kind is named")
    assert "its plural" in fix


@pytest.mark.parametrize("controller", ["remediator", "reference"])
def test_whatever_is_drawn_can_be_played(controller):
    """Two hundred seeds of each controller's words."""
    assert [found for each in drawn(range(200), controller) for found in problems(each)] == []


def test_file_that_cannot_be_played_is_refused_with_every_reason(tmp_path):
    """All at once: who mends one typo must not find the next one an hour later."""
    events = (Event(kind="Xid", node="x", value=-1), Event(kind="PartDown", detail="y"))
    path = tmp_path / "history.json"
    path.write_bytes(msgspec.json.encode(Schedule(seed=1, events=events)))
    with pytest.raises(InputError) as refused:
        load(path)
    fields = [problem.field for problem in refused.value.problems]
    assert fields == ["events[0].node", "events[0].value", "events[1].detail"]
