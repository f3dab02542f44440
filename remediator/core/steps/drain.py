"""Drain: who must leave, in which order, and when to stop trying. Nothing is ever forced."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from remediator.core.run_view import RunView
from remediator.core.silence import decide_silent, silent
from remediator.errors import ContractError
from remediator.model.action import EvictPod
from remediator.model.decision import Act, Decision, Done, GiveUp, Look, Wait
from remediator.model.duration import seconds
from remediator.model.instant import read_instant
from remediator.model.keys import TOLERATES_PREEMPTION
from remediator.model.playbook import DrainStep
from remediator.model.policy import PolicySpec
from remediator.model.remediation import RunState, StepStatus
from remediator.model.views import PdbView, PodView
from remediator.model.words import how_many

POLL_S: Final = 1.0
UNREADABLE_S: Final = 60.0
EVICTIONS_PER_PASS_MAX: Final = 50  # more than leave a GPU node; a busy server is asked no further than that
_QOS_ORDER: Final = {"BestEffort": 0, "Burstable": 1, "Guaranteed": 2}
_CRITICAL: Final = ("system-node-critical", "system-cluster-critical")
POD_ANNOTATIONS: Final = frozenset({TOLERATES_PREEMPTION})


def decide_drain(view: RunView, step: DrainStep, status: StepStatus) -> Decision:
    """Say what to do next to empty one node.

    Returns:
        ``Act`` with at most 50 evictions of the lowest band (priority, then QoS), ordered by
        (namespace, name); ``Wait`` while pods terminate, are refused or protected; ``Done`` when
        a consistent LIST begun after our taint shows none that must leave and was there before; ``GiveUp``
        as Held from the deadline on. While the kubelet is silent, what ``silence.decide_silent`` says.

    Raises:
        ContractError: the node carries no quarantine taint.

    Source: Kubernetes docs, "Safely Drain a Node" and "API-initiated Eviction".
    """
    if not view.quarantined:
        raise ContractError(f"{view.run.spec.node.name}: drain before quarantine")
    if view.pods is None:  # unknown is not empty
        if _unreadable(view, step, status):
            return GiveUp(RunState.HELD, "PodsUnknown", "the node's pods could not be read")
        return Wait(after_s=0.0, reason="pods not known yet", look=Look.PODS)
    started = read_instant(status.started_at) or view.now
    leaving = [pod for pod in view.pods if must_leave(pod, step)]
    remaining = sorted((pod for pod in leaving if not _came_after(pod, started)), key=band_key)
    if not remaining:
        if not view.pods_confirmed:
            return Wait(after_s=0.0, reason="confirming that the node is empty", look=Look.PODS)
        note = f"{how_many(view.evictions, 'pod')} evicted" if view.evictions else "no pod had to leave"
        if leaving:
            note += f"; {leaving[0].key} came after the fence, tolerates it and stays"
        return Done(reason="no pod left to evict", note=note)
    if view.node is not None and silent(view.node):
        # Nobody would end these pods, and their budgets count the very ones that hang.
        return decide_silent(view.node)
    protected = _protected(view, remaining)
    limit = step.protect_deadline if protected else step.deadline
    deadline = started + timedelta(seconds=seconds(limit))
    if view.now >= deadline:
        _, said = _obstacle(view, step, remaining)
        return GiveUp(RunState.HELD, "DrainTimedOut", f"{said}; {how_many(len(remaining), 'pod')} left")
    return _next_evictions(view, step, remaining, protected, deadline)


def _unreadable(view: RunView, step: DrainStep, status: StepStatus) -> bool:
    """Has a minute passed since the deadline without one answer about pods? Held runs go on looking."""
    longest = step.deadline if view.hard else step.protect_deadline
    started = read_instant(status.started_at) or view.now
    late = view.now >= started + timedelta(seconds=seconds(longest) + UNREADABLE_S)
    return late and view.status.state != RunState.HELD.value


def must_leave(pod: PodView, step: DrainStep) -> bool:
    """Has this pod to go before the node counts as empty?

    DaemonSet pods come straight back and mirror pods ignore the API server: waiting for either
    would never end. Finished pods hold nothing.
    """
    if pod.owner_kind == "DaemonSet" or pod.mirror or pod.finished:
        return False
    return not (step.critical == "Ignore" and pod.priority_class in _CRITICAL)


def _came_after(pod: PodView, started: datetime) -> bool:
    """Was it made when the fence stood, and tolerates every taint?

    Whoever evicts such a pod brings the next one, for as long as the drain may last. It stays, as a
    DaemonSet's does. One that does not tolerate the fence was bound by a scheduler that had not seen it yet.
    """
    created = read_instant(pod.created_at) if pod.created_at else None
    return pod.tolerates_all and created is not None and created > started


def band_key(pod: PodView) -> tuple[int, int, str, str]:
    """Lowest priority first, inside it the weakest QoS, then by name."""
    return (pod.priority, _QOS_ORDER.get(pod.qos, 2), pod.namespace, pod.name)


def gang_of(pod: PodView, policy: PolicySpec) -> str:
    """Key of the gang that the pod belongs to, or empty text: the first present label of the table."""
    for label in policy.gang_labels:
        value = pod.labels.get(label)
        if value:
            return f"{pod.namespace}/{label}={value}"
    return ""


def blocking_pdb(pod: PodView, pdbs: Iterable[PdbView]) -> PdbView | None:
    """The first PodDisruptionBudget that selects the pod and allows nothing now."""
    for pdb in pdbs:
        labels = pdb.match_labels.items()
        selects = pdb.namespace == pod.namespace and all(
            pod.labels.get(key) == value for key, value in labels
        )
        if selects and labels and pdb.disruptions_allowed < 1:
            return pdb
    return None


def _next_evictions(
    view: RunView, step: DrainStep, remaining: list[PodView], protected: frozenset[str], deadline: datetime
) -> Decision:
    stuck = frozenset(pod.uid for pod in remaining if _needs_a_person(pod, step))
    free = [
        pod
        for pod in remaining
        if not pod.deleting
        and pod.uid not in protected
        and pod.uid not in stuck
        and pod.key not in view.refused_evictions
        and gang_of(pod, view.policy) not in view.busy_gangs
    ]
    if not free:
        code, said = _obstacle(view, step, remaining)
        return Wait(after_s=POLL_S, reason=said, until=deadline, blocked=code)
    lowest = band_key(free[0])[:2]
    batch = [pod for pod in free if band_key(pod)[:2] == lowest][:EVICTIONS_PER_PASS_MAX]
    return Act(
        actions=tuple(EvictPod(namespace=pod.namespace, name=pod.name, uid=pod.uid) for pod in batch),
        reason=f"evicting {len(batch)} of {len(remaining)} pods",
    )


def _needs_a_person(pod: PodView, step: DrainStep) -> bool:
    bare = not pod.owner_kind and step.bare == "Hold"
    return bare or (pod.empty_dir and step.empty_dir == "Hold")


def _protected(view: RunView, remaining: list[PodView]) -> frozenset[str]:
    """Pods that a soft fault waits for; a hard fault protects nobody, and the plan says so."""
    if view.hard:
        return frozenset()
    return frozenset(pod.uid for pod in remaining if is_protected(pod, view.policy, view.tolerant_classes))


def is_protected(pod: PodView, policy: PolicySpec, tolerant: frozenset[str]) -> bool:
    """Does a soft fault wait for this pod?

    ``tolerant`` are the PriorityClasses that carry the preemption toleration of the scheduler-plugins;
    on the pod itself it counts, too.
    """
    named = pod.priority_class in policy.protected_priority_classes or pod.priority_class in tolerant
    return named or TOLERATES_PREEMPTION in pod.annotations


def _obstacle(view: RunView, step: DrainStep, remaining: list[PodView]) -> tuple[str, str]:
    """What keeps the first pod that is not on its way out: code, and words that stay the same.

    The code is empty where all pods are on their way out.
    """
    waiting = [pod for pod in remaining if not pod.deleting]
    if not waiting:
        return "", f"pod {remaining[0].key} is terminating"
    for pod in waiting:
        pdb = blocking_pdb(pod, view.pdbs)
        if pdb is not None:
            return "DisruptionBudget", f"PDB {pdb.namespace}/{pdb.name} lets no pod go (pod {pod.key})"
    for pod in waiting:
        if pod.key in view.refused_evictions:
            said = f"eviction of {pod.key} refused: {view.refused_evictions[pod.key]}"
            return "EvictionRefused", said[:240]
    pod = waiting[0]
    if pod.uid in _protected(view, waiting):
        return "PodProtected", f"pod {pod.key} is protected ({pod.priority_class})"
    if gang_of(pod, view.policy) in view.busy_gangs:
        return "GangBusy", f"gang {gang_of(pod, view.policy)} is being moved by another run"
    if not pod.owner_kind and step.bare == "Hold":
        said = f"pod {pod.key} has no controller and would not come back (drain.bare: Hold)"
        return "PodBare", said
    if pod.empty_dir and step.empty_dir == "Hold":
        return "PodScratchData", f"pod {pod.key} has scratch data (drain.emptyDir: Hold)"
    return "PodsRemain", f"pod {pod.key} has not left yet"
