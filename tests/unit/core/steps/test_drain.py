"""Drain: who must leave, in which order, what is never touched, and that it is finite."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remediator.core.steps.drain import EVICTIONS_PER_PASS_MAX, blocking_pdb, decide_drain, gang_of
from remediator.errors import ContractError
from remediator.model.decision import Act, Done, GiveUp, Look, Wait
from remediator.model.playbook import DrainStep
from remediator.model.remediation import RemediationStatus, RunState, StepStatus
from remediator.model.views import PdbView, PodView
from tests.unit.core.builders import a_node, a_pod, a_policy, a_run, a_view, at, quarantined, text

INTENT = StepStatus(id="drain", action="drain", state="Intent", started_at=text(0))
STEP = DrainStep()
GANG = {"batch.kubernetes.io/job-name": "train"}


def decide(*pods, step=STEP, now_s=0.0, known=True, **fields):
    own = {
        "node": quarantined(a_node()),
        "pods": pods if known else None,
        "pods_confirmed": True,
        "now": at(now_s),
    }
    return decide_drain(a_view("quarantine", "drain", **own | fields), step, INTENT)


def evicted(decision):
    return [action.name for action in decision.actions] if isinstance(decision, Act) else decision


def test_drain_before_quarantine_breaks_our_own_rule():
    """Quarantine before eviction: else the pods come straight back."""
    with pytest.raises(ContractError, match="gpu-1"):
        decide(node=a_node())


def test_drain_takes_unknown_pods_for_unknown_and_not_for_none():
    """Unknown is not empty."""
    decision = decide(known=False)

    assert isinstance(decision, Wait)
    assert decision.look is Look.PODS


def test_drain_is_done_only_after_a_listing_that_began_after_the_taint():
    """A pod that was bound in between would be lost with the machine."""
    early = decide(pods_confirmed=False)

    assert isinstance(early, Wait)
    assert early.look is Look.PODS
    assert decide() == Done(reason="no pod left to evict", note="no pod had to leave")


LEAVES = {
    "of a DaemonSet": (a_pod(owner_kind="DaemonSet"), False),
    "mirror": (a_pod(mirror=True, owner_kind="Node"), False),
    "succeeded": (a_pod(phase="Succeeded"), False),
    "failed": (a_pod(phase="Failed"), False),
    "critical": (a_pod(priority_class="system-node-critical"), False),
    "pending": (a_pod(phase="Pending"), True),
    "running": (a_pod(), True),
}


@pytest.mark.parametrize("kind", sorted(LEAVES))
def test_drain_waits_only_for_pods_that_can_leave(kind):
    """Waiting for a pod that comes back or ignores us would never end."""
    pod, leaves = LEAVES[kind]

    assert isinstance(decide(pod), Act if leaves else Done)


def test_drain_evicts_critical_pods_only_where_the_playbook_says_so():
    """Each kind of pod has a named policy."""
    step = DrainStep(critical="Evict")

    assert isinstance(decide(a_pod(priority_class="system-cluster-critical"), step=step), Act)


@pytest.mark.parametrize(
    ("pod", "step", "kind"),
    [
        (a_pod(owner_kind=""), STEP, Wait),
        (a_pod(owner_kind=""), DrainStep(bare="Evict"), Act),
        (a_pod(empty_dir=True), STEP, Act),
        (a_pod(empty_dir=True), DrainStep(empty_dir="Hold"), Wait),
    ],
    ids=["bare", "bare evict", "scratch", "scratch hold"],
)
def test_drain_holds_pods_that_would_lose_something(pod, step, kind):
    """A pod without a controller does not come back, so people decide."""
    decision = decide(pod, step=step)

    assert isinstance(decision, kind)
    assert kind is Act or decision.blocked


def test_drain_evicts_the_lowest_band_first_with_uids():
    """Least important first; the uid makes sure that it is that pod and no other of its name."""
    pods = (a_pod("c", priority=9), a_pod("b", qos="Burstable"), a_pod("a"), a_pod("d"))
    decision = decide(*pods)

    assert evicted(decision) == ["a", "d"]
    assert decision.actions[0].uid == "uid-a"
    assert evicted(decide(*pods[:2])) == ["b"]


@given(st.permutations([a_pod(f"p-{number}", priority=number % 2) for number in range(6)]))
def test_drain_order_ignores_list_order(pods):
    """The API server returns lists in any order; plans must not flap."""
    assert evicted(decide(*pods)) == ["p-0", "p-2", "p-4"]


@pytest.mark.parametrize("count", [1, EVICTIONS_PER_PASS_MAX, EVICTIONS_PER_PASS_MAX + 1])
def test_drain_evicts_at_most_twenty_in_one_pass(count):
    """Bounded, so that others get their turn."""
    pods = [a_pod(f"p-{number:02}") for number in range(count)]

    assert len(decide(*pods).actions) == min(count, EVICTIONS_PER_PASS_MAX)


def test_drain_never_evicts_what_is_leaving_or_was_just_refused():
    """An eviction is asked for once; a refusal is not hammered."""
    going, refused, free = a_pod("a", deleting=True), a_pod("b"), a_pod("c")
    decision = decide(going, refused, free, refused_evictions={"team/b": "no"})

    assert evicted(decision) == ["c"]
    assert not decide(going).blocked


@pytest.mark.parametrize(("now_s", "kind"), [(1_799, Act), (1_800, GiveUp), (1_801, GiveUp)])
def test_drain_gives_up_as_held_from_its_deadline_on(now_s, kind):
    """Finite, and force is never a default."""
    decision = decide(a_pod(), now_s=now_s)

    assert isinstance(decision, kind)
    assert getattr(decision, "state", RunState.HELD) is RunState.HELD


def test_drain_that_is_empty_at_the_deadline_is_done():
    """Done is asked first: a deadline must not undo what was reached."""
    assert isinstance(decide(now_s=9_999), Done)


PROTECTED: dict[str, tuple[PodView, dict[str, Any]]] = {
    "tolerant class": (a_pod(priority_class="gold"), {"tolerant_classes": frozenset({"gold"})}),
    "class": (a_pod(priority_class="gold"), {"policy": a_policy(protected_priority_classes=("gold",))}),
    "annotation": (
        a_pod(annotations={"preemption-toleration.scheduling.x-k8s.io/minimum-preemptable-priority": "1"}),
        {},
    ),
}


@pytest.mark.parametrize("kind", sorted(PROTECTED))
def test_drain_of_a_soft_fault_waits_for_protected_pods(kind):
    """The spare is in place, so it can wait; then people decide."""
    pod, fields = PROTECTED[kind]
    soft = {"run": a_run(severity="Soft")} | fields

    assert isinstance(decide(pod, now_s=1_800, **soft), Wait)
    assert isinstance(decide(pod, now_s=86_400, **soft), GiveUp)
    assert evicted(decide(pod, a_pod("other"), **soft)) == ["other"]
    assert isinstance(decide(pod, **fields), Act)
    raised = a_run(severity="Soft", status=RemediationStatus(raised_by="gpu.bus: xid 79"))
    assert isinstance(decide(pod, **fields | {"run": raised}), Act), "a hard fault has joined"


def test_drain_leaves_a_gang_that_another_soft_run_moves():
    """Two nodes of one job drained at once restart it twice."""
    pod = a_pod(labels=GANG)
    gang = gang_of(pod, a_policy())
    decision = decide(pod, a_pod("free"), busy_gangs=frozenset({gang}))

    assert gang == "team/batch.kubernetes.io/job-name=train"
    assert evicted(decision) == ["free"]
    assert "gang" in decide(pod, busy_gangs=frozenset({gang})).reason
    assert gang_of(a_pod(), a_policy()) == ""


PDB = PdbView("team", "train", 0, {"app": "x"})


@pytest.mark.parametrize(
    ("pdb", "blocks"),
    [
        (PDB, True),
        (PdbView("team", "train", 1, {"app": "x"}), False),
        (PdbView("other", "train", 0, {"app": "x"}), False),
        (PdbView("team", "train", 0, {"app": "y"}), False),
        (PdbView("team", "train", 0, {}), False),
    ],
    ids=["blocks", "allows", "other namespace", "other pods", "selector not read"],
)
def test_blocking_pdb_is_one_that_selects_the_pod_and_allows_nothing(pdb, blocks):
    """A wrong name would send people to the wrong team."""
    assert (blocking_pdb(a_pod(labels={"app": "x"}), (pdb,)) is not None) is blocks


def test_drain_names_the_same_obstacle_while_nothing_changes():
    """A refusal is forgotten after seconds; the record must neither flap nor name a wrong cause."""
    pod = a_pod(labels={"app": "x"})
    fresh = decide(pod, pdbs=(PDB,), refused_evictions={pod.key: "Cannot evict"})
    late = decide(pod, pdbs=(PDB,), now_s=1_800)

    assert fresh.reason == "PDB team/train lets no pod go (pod team/train-0)"
    assert late.message == f"{fresh.reason}; 1 pod left"


def test_drain_names_no_cause_that_is_not_there():
    """A pod that was evictable until the deadline has no scratch data and no missing controller."""
    assert decide(a_pod(), now_s=1_800).message == "pod team/train-0 has not left yet; 1 pod left"
    assert "terminating" in decide(a_pod(deleting=True), now_s=1_800).message
    assert "no controller" in decide(a_pod(owner_kind=""), now_s=1_800).message


def test_drain_evicts_nothing_from_a_silent_kubelet():
    """Such an eviction would never end, and the budgets would count the very pods that hang."""
    silent = quarantined(a_node(ready="Unknown"))

    decision = decide(a_pod(), node=silent)

    assert isinstance(decision, Wait)
    assert decision.blocked
    assert "silent" in decision.reason


@pytest.mark.parametrize(
    ("severity", "now_s", "held"),
    [("Hard", 1_859, False), ("Hard", 1_860, True), ("Soft", 1_860, False), ("Soft", 86_460, True)],
)
def test_drain_is_held_when_its_pods_can_never_be_read(severity, now_s, held):
    """Every step has a way out; a grant that nobody gives back is one node less for all others."""
    decision = decide(known=False, now_s=now_s, run=a_run(severity=severity))

    assert isinstance(decision, GiveUp if held else Wait)


def test_drain_that_is_held_goes_on_looking():
    """A run that people wait for ends once its node is empty."""
    run = a_run(status=RemediationStatus(state="Held"))
    decision = decide(known=False, now_s=999_999, run=run)

    assert isinstance(decision, Wait)
    assert decision.look is Look.PODS


CAME = {
    "after, and tolerates": (a_pod(created_at=text(1), tolerates_all=True), False),
    "after, by a scheduler that had not seen the fence": (a_pod(created_at=text(1)), True),
    "before": (a_pod(created_at=text(-1), tolerates_all=True), True),
    "nobody knows when": (a_pod(tolerates_all=True), True),
}


@pytest.mark.parametrize("kind", sorted(CAME))
def test_drain_does_not_evict_what_comes_back_behind_the_fence(kind):
    """Its controller would send the next one, again and again until the deadline."""
    pod, leaves = CAME[kind]
    decision = decide(pod, now_s=60.0, evictions=3)

    if leaves:
        assert evicted(decision) == [pod.name]
    else:
        stays = f"{pod.key} came after the fence, tolerates it and stays"
        assert decision == Done(reason="no pod left to evict", note=f"3 pods evicted; {stays}")
