"""How long a signal must hold: our own clocks, kept over gaps, restarts and reboots."""

from __future__ import annotations

from datetime import timedelta

import pytest

from remediator.core.diagnose import PERSIST_AFTER_S
from remediator.model.ledger import ManagedNodeStatus, SuspicionRecord
from remediator.model.playbook import Matcher, NodeConditionMatch
from remediator.model.views import ConditionView
from tests.unit.core.ward import DEADLOCK, REMAP, Ward, a_gpu, a_playbook, answer, lasting


def test_reason_churn_fires_once_at_the_configured_time():
    """The reason changes every 10 s for an hour: the clock is ours and does not start again."""
    ward = Ward(a_playbook(lasting(DEADLOCK, "30m")))
    answers = []
    for tick in range(360):
        ward.condition("True", reason=f"Reason{tick % 7}", message=f"attempt {tick}")
        answers.append(answer(ward.look(10)))

    assert answers.index("fault") == 180
    assert set(answers[:180]) == {"suspicion"}
    assert set(answers[180:]) == {"fault"}


def test_listed_reason_that_comes_and_goes_matures():
    """Every second look shows a reason that is not ours; the node is bad all the time."""
    match = NodeConditionMatch(type="KernelDeadlock", status="True", reasons=("Ours",))
    ward = Ward(a_playbook(Matcher(id="m", node_condition=match, for_="10m")))
    answers = []
    for tick in range(121):
        ward.condition("True", reason="Ours" if tick % 2 == 0 else "Other")
        answers.append(answer(ward.look(10)))

    assert answers[58:62] == ["suspicion", "suspicion", "fault", "hidden"]


@pytest.mark.parametrize(("after_s", "expected"), [(599, "suspicion"), (600, "fault"), (601, "fault")])
def test_for_is_reached_exactly_at_its_end(after_s, expected):
    """The last second already counts."""
    ward = Ward(a_playbook(lasting(DEADLOCK, "10m")))
    ward.condition("True")
    first = ward.look()
    began = ward.now
    older = ward.look(PERSIST_AFTER_S)

    assert first.next_due == began + timedelta(seconds=PERSIST_AFTER_S), "the ledger is to hold it"
    assert older.next_due == first.suspicions[0].due_at == began + timedelta(seconds=600)
    assert answer(ward.look(after_s - PERSIST_AFTER_S)) == expected


def test_false_starts_the_clock_again():
    """The signal must hold without a gap."""
    ward = Ward(a_playbook(lasting(DEADLOCK, "10m")))
    for status in ("True", "False", "True"):
        ward.condition(status)
        ward.look(400)

    assert answer(ward.look(400)) == "suspicion"
    assert answer(ward.look(200)) == "fault"


def test_unknown_neither_stops_the_clock_nor_confirms():
    """A dead exporter for the whole time confirms nothing; the first page that says true does."""
    ward = Ward(a_playbook(lasting(REMAP, "10m")))
    ward.gpu = (a_gpu(pending=1.0),)
    ward.look()
    ward.gpu = None
    found = ward.look(3_600)

    assert (answer(found), found.next_due) == ("suspicion", None)
    ward.gpu = (a_gpu(pending=1.0),)
    assert answer(ward.look()) == "fault"


def test_restart_keeps_the_clock_of_the_ledger():
    """A suspicion of nine minutes must not start again because we did."""
    ward = Ward(a_playbook(lasting(DEADLOCK, "10m")))
    ward.condition("True")
    ward.look()
    early = ward.look(29).records
    late = ward.look(500).records
    ward.restart()

    assert (early, [record.matcher for record in late]) == ((), ["deadlock"])
    assert answer(ward.look(71)) == "fault"


def test_record_of_another_node_is_not_ours():
    """A node that was rebuilt under the same name has its own time."""
    ward = Ward(a_playbook(lasting(DEADLOCK, "10m")))
    record = SuspicionRecord(
        playbook="p", matcher="deadlock", node_uid="uid-0", first_seen="2026-11-21T00:00:00Z"
    )
    ward.ledger = ManagedNodeStatus(suspicions=(record,))
    ward.condition("True")

    assert answer(ward.look()) == "suspicion"


def test_old_record_does_not_come_back_after_the_signal_was_false():
    """The ledger may lag behind; a clock that we stopped stays stopped."""
    ward = Ward(a_playbook(lasting(DEADLOCK, "10m")))
    ward.condition("True")
    ward.look()
    stale = ManagedNodeStatus(suspicions=ward.look(500).records)
    ward.condition("False")
    ward.look()
    ward.ledger = stale
    ward.condition("True")

    assert answer(ward.look(100)) == "suspicion"


def test_clock_that_was_set_back_does_not_wait_for_the_future():
    """Our own wall clock may jump by a day."""
    ward = Ward(a_playbook(lasting(DEADLOCK, "10m")))
    record = SuspicionRecord(
        playbook="p", matcher="deadlock", node_uid="uid-1", first_seen="2026-11-23T00:00:00Z"
    )
    ward.ledger = ManagedNodeStatus(suspicions=(record,))
    ward.condition("True")
    ward.look()

    assert answer(ward.look(600)) == "fault"


def test_new_node_uid_starts_every_clock_anew():
    """Another Node is another story, even under the same name."""
    ward = Ward(a_playbook(lasting(DEADLOCK, "10m")))
    ward.condition("True")
    ward.look()
    ward.look(590)
    ward.uid = "uid-2"

    assert answer(ward.look()) == "suspicion"
    assert answer(ward.look(599)) == "suspicion"
    assert answer(ward.look(1)) == "fault"


def test_condition_left_over_from_the_old_boot_starts_anew():
    """The detector needs a moment after the reboot to take its own condition back."""
    ward = Ward(a_playbook(lasting(DEADLOCK, "10m")))
    ward.condition("True")
    ward.look()
    assert answer(ward.look(600)) == "fault"
    ward.reboot()

    assert answer(ward.look()) == "suspicion"


def test_node_that_reboots_for_ever_is_not_ready_all_the_time():
    """Ready speaks of the node and not of one boot: a chain of reboots must not hide it."""
    not_ready = Matcher(id="m", node_condition=NodeConditionMatch(type="Ready", status="False"), for_="10m")
    ward = Ward(a_playbook(not_ready))
    ward.conditions = (ConditionView("Ready", "False"),)
    for _ in range(5):
        ward.look(150)
        ward.reboot()

    assert answer(ward.look(1)) == "fault"
