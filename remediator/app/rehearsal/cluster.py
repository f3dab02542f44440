"""The API server of a story: objects in memory behind ``ports.Writer``, ``Records`` and ``Reader``.

It keeps the server's promises that deciding relies on: resourceVersions only grow, a stale one is
refused, a name is created once. What a write sets off later is put on the agenda.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from remediator.adapters.files.testfile import GivenPod
from remediator.app.rehearsal.hardware import Hardware
from remediator.app.rehearsal.opening import Opening, with_condition, with_taints
from remediator.app.rehearsal.shelf import Shelf
from remediator.app.rehearsal.words import say_eviction, say_job, say_patch
from remediator.core.silence import silent
from remediator.errors import ContractError
from remediator.model.action import (
    Attribution,
    CreateJob,
    CreateLedger,
    CreateRun,
    EvictPod,
    PatchNode,
    RecordAction,
    SaveLedger,
    SavePolicy,
    SaveRun,
    WorldAction,
)
from remediator.model.duration import seconds
from remediator.model.instant import write_instant
from remediator.model.keys import POLICY_NAME, TAINT_OUT_OF_SERVICE, TAINT_UNSCHEDULABLE
from remediator.model.ledger import ManagedNode
from remediator.model.meta import LabelSelector, ObjectMeta
from remediator.model.playbook import Playbook
from remediator.model.policy import PolicySpec, PolicyStatus, RemediationPolicy
from remediator.model.pool import ResourcePool
from remediator.model.remediation import Remediation
from remediator.model.views import (
    ConditionView,
    EventView,
    JobView,
    LeaseView,
    NodeView,
    PdbView,
    PodView,
    TaintView,
)
from remediator.ports import Clock, Outcome, PodListing, PolicyObject, Refusal, Written

PODGC_S: Final = 20.0
_UNSCHEDULABLE: Final = TaintView(TAINT_UNSCHEDULABLE, "NoSchedule")


@dataclass(slots=True)
class Repaired:
    """One repair Job and whether it is over."""

    view: JobView
    over: bool = False


@dataclass(slots=True)
class Books:
    """What was written, for the verdict. ``lines`` in words; the rest by name."""

    lines: list[str] = field(default_factory=list)
    touched: set[str] = field(default_factory=set)
    evicted: list[str] = field(default_factory=list)


class Cluster:
    """Objects, and the three doors to them. ``agenda`` is called with a delay and what happens then."""

    def __init__(
        self,
        opening: Opening,
        *,
        hardware: Hardware,
        clock: Clock,
        agenda: Callable[[float, Callable[[], None]], None],
    ) -> None:
        self.nodes: Shelf[NodeView] = Shelf()
        self.runs: Shelf[Remediation] = Shelf()
        self.playbooks: Shelf[Playbook] = Shelf()
        self.pools: Shelf[ResourcePool] = Shelf()
        self.policies: Shelf[PolicyObject] = Shelf()
        self.ledgers: Shelf[ManagedNode] = Shelf()
        self.pods: dict[str, PodView] = {}
        self.jobs: dict[str, Repaired] = {}
        self.books = Books()
        self._opening = opening
        self._pods_given: dict[str, GivenPod] = {}
        self._hardware = hardware
        self._clock = clock
        self._agenda = agenda
        self._version = 1
        self._boots = 1

    def stock(self, playbooks: Mapping[str, Playbook], status: PolicyStatus) -> None:
        """Put the opening on the shelves; whoever listens hears of every object."""
        opening = self._opening
        for pod in opening.pods:
            self._add_pod(pod)
        for name, pool in opening.pools.items():
            self.pools.put(name, self._next(), pool)
        for name, playbook in playbooks.items():
            self.playbooks.put(name, self._next(), playbook)
        self.put_policy(opening.policy, status)
        for name, ledger in opening.ledgers.items():
            self._put_ledger(name, ledger)
        for name, run in opening.runs.items():
            self._put_run(name, run)
        for node in opening.nodes.values():
            self.put_node(node)

    # -- objects

    def _next(self) -> int:
        self._version += 1
        return self._version

    def put_node(self, node: NodeView) -> NodeView:
        """Store a node, with the taint that Kubernetes itself keeps beside a cordon."""
        version = self._next()
        taints = [each for each in node.taints if each != _UNSCHEDULABLE]
        node = with_taints(node, [*taints, _UNSCHEDULABLE] if node.unschedulable else taints)
        node = replace(node, resource_version=str(version))
        self.nodes.put(node.name, version, node)
        return node

    def put_policy(self, spec: PolicySpec, status: PolicyStatus) -> PolicyObject:
        version = self._next()
        metadata = ObjectMeta(name=POLICY_NAME, uid="policy", resource_version=str(version), generation=1)
        policy = RemediationPolicy(metadata=metadata, spec=spec, status=status)
        made = PolicyObject(policy=policy, raw=msgspec.json.encode(policy))
        self.policies.put(POLICY_NAME, version, made)
        return made

    def put_condition(self, name: str, condition: ConditionView) -> None:
        node = self.nodes.get(name)
        if node is not None:
            self.put_node(replace(node, conditions=with_condition(node.conditions, condition)))

    def _put_run(self, name: str, run: Remediation) -> Remediation:
        version = self._next()
        stored = replace(run, metadata=replace(run.metadata, resource_version=str(version)))
        self.runs.put(name, version, stored)
        return stored

    def put_run(self, run: Remediation) -> None:
        """Store what a person changed in a run."""
        self._put_run(run.metadata.name, run)

    def put_ledger(self, ledger: ManagedNode) -> None:
        """Store what a person changed in a ledger."""
        self._put_ledger(ledger.metadata.name, ledger)

    def _put_ledger(self, name: str, ledger: ManagedNode) -> ManagedNode:
        version = self._next()
        stored = replace(ledger, metadata=replace(ledger.metadata, resource_version=str(version)))
        self.ledgers.put(name, version, stored)
        return stored

    def _add_pod(self, given: GivenPod) -> None:
        pod = PodView(
            namespace=given.namespace,
            name=given.name,
            uid=f"pod-{given.namespace}-{given.name}",
            node=given.node,
            owner_kind=given.owner,
            owner_name=given.name,
            labels=dict(given.labels or {}),
            annotations=dict(given.annotations or {}),
            priority=given.priority,
            priority_class=given.priority_class,
            empty_dir=given.empty_dir,
        )
        self.pods[pod.key] = pod
        self._pods_given[pod.key] = given

    def boot(self, name: str, *, gpus: int | None = None, cured: bool = True) -> None:
        """The machine has come up anew."""
        node = self.nodes.get(name)
        if node is None:
            return
        self._boots += 1
        self._hardware.boot(name, gpus=gpus, cured=cured)
        given = self._opening.nodes.get(name)
        conditions = given.conditions if cured and given is not None else node.conditions
        conditions = with_condition(conditions, ConditionView("Ready", "True", "KubeletReady"))
        self.put_node(
            replace(
                node,
                boot_id=f"{name}-boot-{self._boots}",
                conditions=conditions,
                gpus=node.gpus if gpus is None else gpus,
            )
        )

    # -- ports.Writer

    async def apply(self, action: WorldAction, attribution: Attribution) -> Written:
        """Carry out one write to the world."""
        del attribution
        match action:
            case PatchNode():
                return self._patch(action)
            case EvictPod():
                return self._evict(action)
            case CreateJob():
                return self._create_job(action)

    def _patch(self, action: PatchNode) -> Written:
        node = self.nodes.get(action.name)
        if node is None or node.uid != action.uid:
            return Written(Outcome.REFUSED, Refusal.GONE, f"no node {action.name} of uid {action.uid}")
        if node.resource_version != action.resource_version:
            return Written(Outcome.REFUSED, Refusal.CONFLICT, "the object has been modified")
        after = patched(node, action.patch)
        self.books.lines.append(say_patch(node, after))
        self.books.touched.add(node.name)
        stored = self.put_node(after)
        if after.taint(TAINT_OUT_OF_SERVICE) is not None:
            self._agenda(PODGC_S, lambda: self._remove_pods(after.name))
        return _applied({"metadata": {"resourceVersion": stored.resource_version}})

    def _evict(self, action: EvictPod) -> Written:
        key = f"{action.namespace}/{action.name}"
        pod = self.pods.get(key)
        if pod is None or pod.uid != action.uid:
            return Written(Outcome.REFUSED, Refusal.GONE, f"no pod {key}")
        for budget in self._opening.budgets:
            selects = budget.match_labels.items() <= dict(pod.labels).items()
            if budget.namespace == pod.namespace and selects and not budget.disruptions_allowed:
                line = say_eviction(action, f"budget {budget.name}")
                if self.books.lines[-1:] != [line]:  # asked for again and again: said once
                    self.books.lines.append(line)
                message = f"Cannot evict pod as it would violate the pod's disruption budget {budget.name}"
                return Written(Outcome.REFUSED, Refusal.BUDGET, message)
        self.books.lines.append(say_eviction(action))
        self.books.evicted.append(key)
        self.pods[key] = replace(pod, deleting=True)
        given = self._pods_given[key]
        if not given.never_ends and not silent(self.nodes.get(pod.node)):
            self._agenda(seconds(given.ends), lambda: self._remove_pod(key))
        return _applied({"metadata": {}})

    def _remove_pod(self, key: str) -> None:
        self.pods.pop(key, None)

    def _remove_pods(self, node: str) -> None:
        """What Kubernetes does to the pods of a machine that is marked out of service."""
        for key in [key for key, pod in self.pods.items() if pod.node == node]:
            self._remove_pod(key)

    def _create_job(self, action: CreateJob) -> Written:
        if action.name in self.jobs:
            return Written(Outcome.REFUSED, Refusal.EXISTS, f"job {action.name} already exists")
        self.books.lines.append(say_job(action))
        view = JobView(action.namespace, action.name, f"job-{action.name}", labels=dict(action.labels))
        self.jobs[action.name] = Repaired(view)
        repairs = self._opening.repairs
        takes_s = seconds(repairs.takes)
        if repairs.outcome == "Fails":
            self._agenda(takes_s, lambda: self._job_ends(action.name, failed=True))
        elif repairs.outcome == "Boots":
            self._agenda(takes_s / 2, lambda: self._goes_down(action.node))
            self._agenda(takes_s, lambda: self._comes_up(action))
        return _applied({"metadata": {}})

    def _job_ends(self, name: str, *, failed: bool) -> None:
        job = self.jobs[name]
        message = "BackoffLimitExceeded" if failed else ""
        job.view = replace(job.view, failed=failed, succeeded=not failed, message=message)
        job.over = True

    def _goes_down(self, node: str) -> None:
        self._hardware.set_silent(node, True)
        self.put_condition(node, ConditionView("Ready", "Unknown", "NodeStatusUnknown"))

    def _comes_up(self, action: CreateJob) -> None:
        repairs = self._opening.repairs
        gpus = None if repairs.gpus_after is UNSET else repairs.gpus_after
        self._job_ends(action.name, failed=False)
        self.boot(action.node, gpus=gpus, cured=repairs.cures)

    # -- ports.Records

    async def save(self, action: RecordAction, attribution: Attribution) -> Written:
        """Carry out one write to our own objects."""
        del attribution
        match action:
            case CreateRun(run=run):
                return self._create_run(run)
            case SaveRun():
                return self._save_run(action)
            case SavePolicy():
                return self._save_policy(action)
            case CreateLedger(node=ledger):
                name = ledger.metadata.name
                return _applied(self._put_ledger(name, ledger))
            case SaveLedger():
                before = self.ledgers.get(action.name)
                if before is None or before.metadata.resource_version != action.resource_version:
                    return Written(Outcome.REFUSED, Refusal.CONFLICT, "the object has been modified")
                return _applied(self._put_ledger(action.name, replace(before, status=action.status)))
            case _:
                raise ContractError(f"{type(action).__name__}: nothing in a rehearsal writes that")

    def _create_run(self, run: Remediation) -> Written:
        name = run.metadata.name
        if self.runs.get(name) is not None:
            return Written(Outcome.REFUSED, Refusal.EXISTS, f"run {name} already exists")
        # The server's own times have whole seconds.
        born = write_instant(self._clock.now().replace(microsecond=0))
        metadata = replace(run.metadata, uid=f"run-{name}", creation_timestamp=born)
        return _applied(self._put_run(name, replace(run, metadata=metadata)))

    def _save_run(self, action: SaveRun) -> Written:
        run = self.runs.get(action.name)
        if run is None:
            return Written(Outcome.REFUSED, Refusal.GONE, f"no run {action.name}")
        if run.metadata.resource_version != action.resource_version:
            return Written(Outcome.REFUSED, Refusal.CONFLICT, "the object has been modified")
        return _applied(self._put_run(action.name, replace(run, status=action.status)))

    def _save_policy(self, action: SavePolicy) -> Written:
        seen = self.policies.get(POLICY_NAME)
        assert seen is not None
        based_on = msgspec.json.decode(action.raw, type=RemediationPolicy)
        if based_on.metadata.resource_version != seen.policy.metadata.resource_version:
            return Written(Outcome.REFUSED, Refusal.CONFLICT, "the object has been modified")
        return Written(Outcome.APPLIED, body=self.put_policy(seen.policy.spec, action.status).raw)

    # -- ports.Reader

    async def pods_of(self, node: str) -> PodListing:
        """The pods of one node and all budgets."""
        pods = tuple(pod for _, pod in sorted(self.pods.items()) if pod.node == node)
        pdbs = tuple(
            PdbView(each.namespace, each.name, each.disruptions_allowed, dict(each.match_labels))
            for each in self._opening.budgets
        )
        return PodListing(pods, pdbs)

    async def events_of(self, node: str, uid: str, *, newest: int) -> tuple[EventView, ...]:
        """A rehearsal keeps no Events."""
        del node, uid, newest
        return ()

    async def job(self, namespace: str, name: str) -> JobView | None:
        del namespace
        found = self.jobs.get(name)
        return found.view if found is not None else None

    async def pod_addresses(self, namespace: str, selector: LabelSelector) -> Mapping[str, tuple[str, ...]]:
        """Pages are read without addresses here."""
        del namespace, selector
        return {}

    async def heartbeat(self, node: str) -> LeaseView | None:
        """The Lease of a node that is silent here has run out."""
        seen = self.nodes.get(node)
        return LeaseView(age_s=3_600.0 if silent(seen) else 1.0, duration_s=40.0)

    async def run_exists(self, name: str) -> bool:
        return self.runs.get(name) is not None

    async def policy(self) -> PolicyObject | None:
        return self.policies.get(POLICY_NAME)


def patched(node: NodeView, patch: Mapping[str, object]) -> NodeView:
    """The node after a merge patch of ours; other fields than those that we write are refused.

    Raises:
        ContractError: the patch writes a field that no decision of ours may write.
    """
    metadata, spec = _part(patch, "metadata"), _part(patch, "spec")
    wrong = {*patch} - {"metadata", "spec"} | {*metadata} - {"labels", "annotations"}
    wrong |= {*spec} - {"taints", "unschedulable"}
    if wrong:
        raise ContractError(f"node {node.name}: the patch writes {sorted(wrong)}")
    taints = node.taints
    if "taints" in spec:
        taints = msgspec.json.decode(msgspec.json.encode(spec["taints"]), type=tuple[TaintView, ...])
    return with_taints(
        replace(
            node,
            labels=_merged(node.labels, _part(metadata, "labels")),
            annotations=_merged(node.annotations, _part(metadata, "annotations")),
            unschedulable=bool(spec.get("unschedulable", node.unschedulable)),
        ),
        taints,
    )


def _part(patch: Mapping[str, object], name: str) -> Mapping[str, object]:
    found = patch.get(name, {})
    assert isinstance(found, Mapping)
    return found


def _merged(before: Mapping[str, str], patch: Mapping[str, object]) -> dict[str, str]:
    merged = {**before, **{key: str(value) for key, value in patch.items() if value is not None}}
    return {key: value for key, value in merged.items() if key not in patch or patch[key] is not None}


def _applied(body: object) -> Written:
    return Written(Outcome.APPLIED, body=msgspec.json.encode(body))
