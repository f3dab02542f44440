"""From signals to faults: three values, one owner."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from remediator.model.ledger import ManagedNodeStatus
from remediator.model.playbook import Matcher
from remediator.model.signal import Severity
from tests.unit.core.ward import (
    CODES,
    DEADLOCK,
    PENDING,
    REMAP,
    XID,
    Ward,
    a_gpu,
    a_playbook,
    answer,
    lasting,
)

# What stands after a confirmed fault, when this happens and then its source says that.
MATRIX = {
    "condition": {
        "nothing": {
            "true": "fault",
            "false": "none",
            "absent": "hidden",
            "stale": "hidden",
            "error": "hidden",
        },
        "exporter restart": {
            "true": "fault",
            "false": "none",
            "absent": "hidden",
            "stale": "hidden",
            "error": "hidden",
        },
        "reboot": {"true": "fault", "false": "none", "absent": "none", "stale": "none", "error": "none"},
    },
    "metric": {
        "nothing": {
            "true": "fault",
            "false": "none",
            "absent": "hidden",
            "stale": "hidden",
            "error": "hidden",
        },
        "exporter restart": {
            "true": "fault",
            "false": "none",
            "absent": "hidden",
            "stale": "hidden",
            "error": "hidden",
        },
        "reboot": {"true": "fault", "false": "none", "absent": "none", "stale": "none", "error": "none"},
    },
    # An XID is an event: nothing that the gauge says later takes it back before the next boot.
    "xid": {
        "nothing": {"true": "fault", "false": "fault", "absent": "fault", "stale": "fault", "error": "fault"},
        "exporter restart": {
            "true": "fault",
            "false": "fault",
            "absent": "fault",
            "stale": "fault",
            "error": "fault",
        },
        "reboot": {"true": "fault", "false": "none", "absent": "none", "stale": "none", "error": "none"},
    },
}


def say(ward: Ward, source: str, what: str) -> None:
    """Let one source say it; ``error`` is a page without GPUs, or a condition without a status."""
    if source == "condition":
        ward.condition(
            {"true": "True", "false": "False", "absent": "", "stale": "Unknown", "error": "?"}[what]
        )
        return
    true = a_gpu(xid=79) if source == "xid" else a_gpu(pending=1.0)
    pages = {"true": (true,), "false": (a_gpu(),), "absent": (a_gpu(xid=None, pending=None),), "error": ()}
    ward.gpu = pages.get(what)


@pytest.mark.parametrize(
    ("source", "event", "what", "expected"),
    [
        (source, event, what, expected)
        for source, events in MATRIX.items()
        for event, answers in events.items()
        for what, expected in answers.items()
    ],
)
def test_confirmed_fault_ends_only_by_evidence(source, event, what, expected):
    """The whole table: unknown is no cure, an exporter restart is no cure, a reboot starts anew."""
    matcher = {"condition": DEADLOCK, "metric": REMAP, "xid": XID}[source]
    ward = Ward(a_playbook(matcher))
    ward.look()
    say(ward, source, "true")
    assert answer(ward.look()) == "fault"

    if event == "exporter restart":
        ward.gpu = None
        ward.look()
        ward.gpu = (a_gpu(xid=0, pending=None if source == "metric" and what != "false" else 0.0),)
        if source != "metric":
            ward.look()
    elif event == "reboot":
        ward.reboot()
        ward.gpu = None
        if source == "condition":
            ward.condition("")
        ward.look()
    say(ward, source, what)

    assert answer(ward.look()) == expected


@pytest.mark.parametrize("source", ["condition", "metric", "xid"])
@pytest.mark.parametrize("what", ["false", "absent", "stale", "error"])
def test_only_a_true_signal_is_a_fault(source, what):
    """What was never seen true is neither a fault nor a suspicion, however long it is unknown."""
    ward = Ward(
        a_playbook(*(lasting(each, "1m") if each is not XID else each for each in (DEADLOCK, REMAP, XID)))
    )
    say(ward, source, what)

    assert {answer(ward.look(60)) for _ in range(5)} == {"none"}


def test_page_from_before_the_reboot_says_nothing_of_this_boot():
    """It is fresh by its age, and shows what the reboot has just repaired."""
    ward = Ward(a_playbook(REMAP))
    ward.gpu = (a_gpu(pending=1.0),)
    ward.look()
    ward.reboot()
    found = ward.look(1, page_age_s=1)

    assert (answer(found), found.unknown) == ("none", ("no exporter page of this boot yet",))


def test_xid_is_a_fault_at_once_and_stays_while_its_latch_stands():
    """The event is the evidence; a restart of ours neither loses it nor repeats it."""
    ward = Ward(a_playbook(XID))
    ward.look()
    ward.gpu = (a_gpu(xid=79),)
    found = ward.look()
    at = ward.now
    ward.restart()
    again = ward.look(600)

    assert [edge.code for edge in found.edges] == [79]
    assert not again.edges
    for each in (found, again):
        (fault,) = each.faults
        assert (fault.first_seen, fault.confirmed_at, fault.clears) == (at, at, False)
        assert fault.evidence[0].text == "xid 79 on GPU 0 (GPU-0)"


def test_xid_counts_before_the_ledger_has_its_latch():
    """The write takes a while, or fails; the fault must not flicker meanwhile."""
    ward = Ward(a_playbook(XID))
    ward.look()
    ward.gpu = (a_gpu(xid=79),)
    for _ in range(3):
        assert answer(ward.look()) == "fault"
        ward.ledger = ManagedNodeStatus()


@pytest.mark.parametrize("page", [(a_gpu(xid=79),), None], ids=["page", "blind"])
def test_xid_of_the_baseline_is_no_fault(page):
    """It stood there before anybody looked: the ledger says so, the gauge never will."""
    ward = Ward(a_playbook(XID))
    ward.look()
    ward.gpu = (a_gpu(xid=79),)
    ward.look()
    known = tuple(replace(latch, state="Baseline") for latch in ward.ledger.latches)
    ward.ledger = ManagedNodeStatus(latches=known)
    ward.gpu = page

    assert answer(ward.look()) == "none"


def test_xid_may_be_asked_to_wait():
    """``for`` on an XID counts from its edge."""
    ward = Ward(a_playbook(lasting(XID, "5m")))
    ward.look()
    ward.gpu = (a_gpu(xid=79),)

    assert [answer(ward.look(wait)) for wait in (15, 299, 1)] == ["suspicion", "suspicion", "fault"]


def test_baseline_is_no_fault_trap_5():
    """A fresh installation finds old codes everywhere; it must not act on one of them."""
    ward = Ward(a_playbook(XID), baselined=frozenset())
    ward.gpu = (a_gpu(xid=79),)

    assert answer(ward.look()) == "none"
    ward.baselined = CODES
    ward.restart()
    assert answer(ward.look()) == "none"


def test_vanished_gpu_is_no_health_trap_6():
    """The seven GPUs that are left are fine; the node is not known to be."""
    ward = Ward(a_playbook(REMAP))
    ward.gpu = (a_gpu("GPU-0", pending=1.0), a_gpu("GPU-1"))
    ward.look()
    ward.gpu = (a_gpu("GPU-1"),)
    found = ward.look()

    assert (answer(found), found.missing) == ("hidden", ("GPU-0",))
    assert found.unknown == ("1 GPU(s) gone from the page, first GPU-0",)


def test_failed_page_is_unknown_never_healthy_trap_15():
    """The source is down: nothing heals, nothing falls ill, and someone is told."""
    ward = Ward(a_playbook(REMAP, XID))
    ward.gpu = None
    found = ward.look()

    assert (answer(found), found.unknown) == ("none", ("no fresh exporter page",))


def test_field_that_nobody_exports_is_not_waited_for():
    """Row remap pending is not in the default counters; a verify step must not wait for it for ever."""
    ward = Ward(a_playbook(REMAP, DEADLOCK))
    ward.gpu = (a_gpu(pending=None),)

    assert ward.look().unknown == ()


def test_highest_playbook_owns_the_fault():
    """Two playbooks see one class of fault: one owner, all the evidence, the worse severity."""
    ward = Ward(
        a_playbook(DEADLOCK, name="low", priority=100, severity="Hard"),
        a_playbook(REMAP, name="high", priority=900, severity="Soft"),
    )
    ward.condition("True")
    ward.gpu = (a_gpu(pending=1.0),)
    (fault,) = ward.look().faults

    assert (fault.playbook, fault.matcher, fault.severity) == ("high", "remap", Severity.HARD)
    assert [evidence.key for evidence in fault.evidence] == [PENDING, "KernelDeadlock"]


def test_faults_of_two_classes_are_two():
    """A matcher may carry a class of its own."""
    other = Matcher(id="remap", gpu_metric=REMAP.gpu_metric, fault_class="gpu.remap")
    ward = Ward(a_playbook(DEADLOCK, other))
    ward.condition("True")
    ward.gpu = (a_gpu(pending=1.0),)

    assert [fault.fault_class for fault in ward.look().faults] == ["gpu.bad", "gpu.remap"]


def test_playbook_that_does_not_select_the_node_is_not_asked():
    """Another pool's playbook neither finds nor latches anything here."""
    ward = Ward(a_playbook(DEADLOCK, XID, pool="train"))
    ward.condition("True")
    ward.look()
    ward.gpu = (a_gpu(xid=79),)
    found = ward.look()

    assert (answer(found), found.latches_to_add) == ("none", ())
    ward.labels = {"pool": "train"}
    assert answer(ward.look()) == "fault"


def test_signals_and_explanations_are_lines_for_people():
    """``why`` shows every matcher; the run view only what is true or can't be seen."""
    ward = Ward(a_playbook(lasting(DEADLOCK, "10m"), REMAP, XID))
    ward.condition("True", message="hung")
    found = ward.look(explain=True)

    assert found.signals == ("KernelDeadlock=True: DockerHung: hung",)
    assert found.explanations == (
        "p/deadlock: true: KernelDeadlock=True: DockerHung: hung, for 0 s, due 2026-11-22T00:10:15Z",
        f"p/remap: false: no GPU with {PENDING} > 0",
        "p/xid: false: no new xid of 62, 79 since the boot",
    )


def test_diagnosis_of_the_same_world_is_the_same():
    """Level-triggered: looking twice at one instant changes nothing."""
    ward = Ward(a_playbook(lasting(DEADLOCK, "10m"), REMAP, XID))
    ward.condition("True")
    ward.gpu = (a_gpu(xid=79, pending=1.0),)
    first, second = ward.look(), ward.look(0)

    assert (first.faults, first.suspicions) == (second.faults, second.suspicions)
    assert second.clock is first.clock


def test_no_node_no_playbook_no_fault():
    """Empty input is a quiet answer."""
    found = Ward().look()

    assert (found.faults, found.suspicions, found.unknown, found.next_due) == ((), (), (), None)
