"""A silent kubelet: when it is believed, what proves that the machine is off, and what is done then."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from remediator.core.account import Account
from remediator.core.fleet import open_case
from remediator.core.gates import evaluate
from remediator.core.run import decide_run
from remediator.core.silence import (
    FENCING_REQUIRED,
    acts_on_silence,
    back_in_service,
    contradiction,
    decide_silent,
    proof_of_fencing,
    settling,
    silent,
    silent_zones,
)
from remediator.model.action import PatchNode
from remediator.model.decision import Act, Wait
from remediator.model.keys import ANNOTATION_FENCED, TAINT_OUT_OF_SERVICE, TAINT_SHUTDOWN
from remediator.model.playbook import Match, Matcher, NodeConditionMatch
from remediator.model.remediation import RemediationStatus, StepStatus
from remediator.model.views import LeaseView, TaintView
from tests.unit.core.builders import (
    HARD,
    a_fleet,
    a_node,
    a_playbook,
    a_pod,
    a_request,
    a_run,
    a_view,
    quarantined,
    text,
)
from tests.unit.core.tiny_world import a_spare, patched

SILENCE = Match(
    any_of=(Matcher(id="silent", node_condition=NodeConditionMatch(type="Ready", status="Unknown")),)
)
SHUTDOWN = {"key": TAINT_SHUTDOWN, "effect": "NoSchedule"}
OUT_OF_SERVICE = {"key": TAINT_OUT_OF_SERVICE, "value": "nodeshutdown", "effect": "NoExecute"}
OURS = {"key": TAINT_OUT_OF_SERVICE, "value": "remediator", "effect": "NoExecute"}
ZONE = "topology.kubernetes.io/zone"


def a_silent_node(**fields):
    return quarantined(a_node(ready="Unknown", **fields))


def fenced(uid="uid-gpu-1", **fields):
    return a_silent_node(annotations={ANNOTATION_FENCED: uid}, **fields)


# ---- is it believed


@pytest.mark.parametrize(("ready", "expected"), [("True", False), ("False", False), ("Unknown", True)])
def test_silent_is_a_node_of_which_nothing_is_heard(ready, expected):
    """A kubelet that says NotReady lives, and can end pods."""
    assert silent(a_node(ready=ready)) is expected


def test_silent_is_no_node_that_never_reported_and_none_that_is_gone():
    """Nothing known is not the same as silence."""
    assert not silent(a_node(ready=""))
    assert not silent(None)


@pytest.mark.parametrize(
    ("age_s", "confirmed"), [(39.0, False), (40.0, False), (40.5, True), (-3_600.0, False)]
)
def test_lease_confirms_the_silence_only_past_its_own_period(age_s, confirmed):
    """The second witness: a node status that is old while the Lease is renewed is a bug elsewhere."""
    assert (contradiction(LeaseView(age_s=age_s, duration_s=40.0)) is None) is confirmed


def test_no_lease_is_no_witness():
    """Unknown is not a confirmation."""
    assert "no Lease" in (contradiction(None) or "")


def zoned(zone, heard, lost):
    names = [f"{zone}-{number}" for number in range(heard + lost)]
    return [
        a_node(name, labels={ZONE: zone}, ready="True" if number < heard else "Unknown")
        for number, name in enumerate(names)
    ]


@pytest.mark.parametrize(
    ("heard", "lost", "believed"),
    [(10, 0, True), (8, 2, True), (7, 3, False), (1, 1, True), (0, 1, True), (1, 2, False), (45, 55, False)],
)
def test_silence_is_believed_only_where_most_of_the_zone_is_heard(heard, lost, believed):
    """A cut network looks like many dead machines; one dead machine in a small zone is still one."""
    reasons = silent_zones(zoned("east", heard, lost) + zoned("west", 5, 0), 80)

    assert ("east" not in reasons) is believed
    assert "west" not in reasons


@given(st.permutations(zoned("east", 3, 3) + zoned("west", 9, 1)))
def test_silent_zones_do_not_depend_on_the_order_of_nodes(nodes):
    """Nodes come in any order."""
    assert silent_zones(nodes, 80) == {"east": "3 of 6 kubelets are heard in zone east, needs 80 %"}


@pytest.mark.parametrize(("passed_s", "settles"), [(0, True), (299, True), (300, False)])
def test_silence_is_not_believed_right_after_most_of_the_zone_was_silent(passed_s, settles):
    """A rack that has power again comes back machine by machine; its last fifth is not dead."""
    found = settling({"east": 1_000.0}, 1_000.0 + passed_s)

    assert ("east" in found) is settles


# ---- the gate


def gate(*, playbook=None, node=None, **fields):
    leaver = node or a_node(ready="Unknown")
    view = a_fleet([leaver, a_spare(), *(a_node(f"gpu-{number}") for number in range(2, 21))], **fields)
    request = a_request(leaver, playbook=playbook or a_playbook(*HARD, match=SILENCE))
    case = open_case(view, Account(view, (), ()), request, (request,))
    return next(each for each in evaluate(case) if each.gate == "coverage")


def test_gate_asks_for_the_second_witness():
    """Not looked at is not confirmed."""
    assert gate().stop == "LeaseFresh"
    assert gate(witnesses={"uid-gpu-1": "its Lease was renewed 3 s ago"}).stop == "LeaseFresh"
    assert gate(witnesses={"uid-gpu-1": ""}).ok


def test_gate_believes_no_silence_in_a_silent_zone():
    """Blind means still, whatever one Lease says: it went through the same cut network."""
    answer = gate(witnesses={"uid-gpu-1": ""}, silent_zones={"": "3 of 9 kubelets are heard"})

    assert (answer.stop, answer.numbers) == ("ZoneSilent", "3 of 9 kubelets are heard")


def test_gate_asks_no_witness_for_another_fault_or_a_kubelet_that_is_heard():
    """A hard fault must not wait for a Lease that has nothing to do with it."""
    assert gate(playbook=a_playbook(*HARD)).ok
    assert gate(node=a_node()).ok


def test_acts_on_silence_means_ready_unknown():
    """Ready=False is the kubelet's own word."""
    says_so = Match(
        any_of=(Matcher(id="sick", node_condition=NodeConditionMatch(type="Ready", status="False")),)
    )

    assert acts_on_silence(a_playbook(match=SILENCE).spec)
    assert not acts_on_silence(a_playbook(match=says_so).spec)


# ---- proof, and what follows from it


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (a_silent_node(taints=[SHUTDOWN]), "provider"),
        (a_silent_node(taints=[OUT_OF_SERVICE]), "out of service"),
        (fenced(), "person"),
    ],
    ids=["shut down", "marked by others", "a person's word"],
)
def test_proof_of_fencing_is_somebodys_word_about_this_machine(node, expected):
    """Only then may a volume be attached elsewhere."""
    assert expected in (proof_of_fencing(node) or "")


@pytest.mark.parametrize(
    "node",
    [
        a_silent_node(),
        fenced("uid-of-the-node-before"),
        fenced(""),
        a_silent_node(boot_id="boot-2"),
    ],
    ids=["nothing", "another Node's", "empty", "another boot, silent again"],
)
def test_no_proof_means_wait_without_any_write(node):
    """Two machines that write one volume destroy it."""
    decision = decide_silent(node)

    assert isinstance(decision, Wait)
    assert (decision.condition, decision.blocked, decision.idle) == (FENCING_REQUIRED, FENCING_REQUIRED, True)


def test_wait_for_proof_says_what_to_type():
    """At three in the morning the line is copied, not composed."""
    reason = decide_silent(a_silent_node()).reason

    assert f"kubectl annotate node gpu-1 {ANNOTATION_FENCED}=uid-gpu-1" in reason
    assert len(reason) <= 256
    assert "another uid" in decide_silent(fenced("uid-old")).reason


def test_proved_machine_is_marked_out_of_service_once():
    """Kubernetes then removes its pods and detaches their volumes."""
    node = fenced(taints=[{"key": "nvidia.com/gpu", "effect": "NoSchedule"}])
    decision = decide_silent(node)

    assert isinstance(decision, Act)
    (action,) = decision.actions
    assert isinstance(action, PatchNode)
    after = patched(node, action.patch)
    assert after.taints == (*node.taints, TaintView(TAINT_OUT_OF_SERVICE, "NoExecute", "remediator"))
    assert (action.uid, action.resource_version) == (node.uid, node.resource_version)
    assert isinstance(decide_silent(after), Wait)


def test_machine_that_is_heard_again_loses_our_mark_and_the_proof():
    """Left there, the proof would make the next silence look like a power-off."""
    silent_one = fenced(taints=[OURS, SHUTDOWN])
    heard = replace(silent_one, conditions=a_node().conditions)
    action = back_in_service(heard)

    assert back_in_service(silent_one) is None
    assert action is not None
    after = patched(heard, action.patch)
    assert ANNOTATION_FENCED not in after.annotations
    assert after.taint(TAINT_OUT_OF_SERVICE) is None
    assert after.taint(TAINT_SHUTDOWN) is not None
    assert back_in_service(after) is None


def test_mark_of_others_is_never_lifted():
    """Who set it, takes it away."""
    assert back_in_service(quarantined(a_node(taints=[OUT_OF_SERVICE]))) is None


# ---- in a run


def draining(node, **fields):
    done = StepStatus(id="fence", action="quarantine", state="Done", started_at=text(0))
    intent = StepStatus(id="drain", action="drain", state="Intent", started_at=text(0))
    status = RemediationStatus(state="Draining", steps=(done, intent))
    own = {"run": a_run(node=node, status=status), "node": node, "pods": (a_pod(),), "pods_confirmed": True}
    return a_view("quarantine", "drain", "verify", **own | fields)


def test_run_records_the_condition_while_it_waits_for_proof():
    """A condition can be waited for and alerted on; a line of text cannot."""
    move = decide_run(draining(a_silent_node()))

    assert move.save is not None
    assert move.save.state == "Blocked"
    assert [each.type for each in move.save.conditions] == ["Succeeded", "Blocked", FENCING_REQUIRED]


def test_run_lifts_the_mark_before_anything_else_once_the_machine_is_heard():
    """NoExecute on a machine that lives throws its DaemonSets out."""
    node = quarantined(a_node(taints=[OURS]))
    move = decide_run(draining(node))

    assert len(move.actions) == 1
    assert "out-of-service" in move.reason


def test_run_leaves_a_persons_word_alone_before_its_own_quarantine():
    """Quarantine is the first write of ours, always."""
    node = a_node(annotations={ANNOTATION_FENCED: "uid-gpu-1"})
    move = decide_run(a_view("quarantine", "drain", node=node))

    assert "quarantin" in move.reason
