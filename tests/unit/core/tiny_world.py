"""A cluster of a few values that obeys what core decides: no IO, no clock but a number.

It applies merge patches with their precondition, evicts pods, reboots nodes for Jobs, and stores
run and policy as JSON, so that bounds are checked and nothing survives that was not saved.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from remediator.core.account import run_state
from remediator.core.census import Census
from remediator.core.fleet import FleetDecision, decide_fleet
from remediator.core.lifecycle import NEXT, STATES, ended
from remediator.core.people import held
from remediator.core.request import Request
from remediator.core.run import Move, decide_run
from remediator.core.run_view import RunView
from remediator.core.spares import Fleetwide
from remediator.model.action import CreateJob, EvictPod, PatchNode, WorldAction
from remediator.model.decision import Look
from remediator.model.keys import NODE_ANNOTATIONS, TAINT_QUARANTINE
from remediator.model.playbook import PlaybookInForce, PlaybookSpec, Step, VerifyStep
from remediator.model.policy import PolicySpec, PolicyStatus
from remediator.model.pool import ResourcePool
from remediator.model.remediation import Remediation, RemediationStatus, RunState
from remediator.model.views import EventView, JobView, NodeView, PdbView, PodView
from tests.unit.core.builders import (
    BUFFER,
    HARD,
    REPAIR,
    SOFT,
    T0,
    TRAIN,
    a_fleet,
    a_node,
    a_playbook,
    a_pod,
    a_policy,
    with_taints,
)

T = TypeVar("T")
FOREIGN = {"key": "example.com/mine", "effect": "PreferNoSchedule", "timeAdded": "2026-01-01T00:00:00Z"}
GPU = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
SPARE_TAINT = {"key": "example.com/spare", "effect": "NoSchedule"}


def leaver() -> NodeView:
    return a_node("gpu-1", taints=(FOREIGN, GPU), labels={"team": "train", "zone": "a"})


def a_spare(name: str = "spare-1", **fields: Any) -> NodeView:
    return a_node(name, pool="buffer", taints=(SPARE_TAINT,), labels={"zone": "a"}, **fields)


class TinyWorld:
    """One machine ``m`` with a fault, some spares, and what becomes of them."""

    def __init__(
        self,
        playbook: PlaybookInForce | None = None,
        *,
        spares: Iterable[NodeView] | None = None,
        pools: Iterable[ResourcePool] = (TRAIN, BUFFER),
        pods: Iterable[PodView] | None = None,
        policy: PolicySpec | None = None,
    ) -> None:
        self.playbook = playbook or a_playbook()
        self.policy = policy or a_policy()
        self.pools = {pool.metadata.name: pool for pool in pools}
        found = (a_spare(), a_spare("spare-2")) if spares is None else tuple(spares)
        # Enough healthy members that one may leave.
        others = [a_node(f"gpu-{number}") for number in range(2, 6)]
        self.nodes = {node.name: node for node in (leaver(), *found, *others)}
        self.pods = list(pods if pods is not None else (a_pod("a"), a_pod("b", priority=5)))
        self.born = self.nodes["gpu-1"]
        self.now = T0
        self.status = PolicyStatus(term=1)
        self.run: Remediation | None = None
        self.jobs: dict[str, JobView] = {}
        self.sick: dict[str, str] = {"gpu-1": "xid 79"}
        self.pdbs: tuple[PdbView, ...] = ()
        self.paused = ""
        self.job_reboots = True
        self.drop: Callable[[int], bool] = lambda _: False
        self.writes: list[WorldAction] = []
        self.states: list[RunState] = []
        self.evictions: list[str] = []
        self._sent = 0
        self._version = 1
        self.crash()

    def fork(self) -> TinyWorld:
        """The same world once more, to try what becomes of it."""
        other = copy.copy(self)
        for name in ("nodes", "pods", "jobs", "sick", "writes", "states", "evictions"):
            setattr(other, name, copy.copy(getattr(self, name)))
        return other

    # -- what only the process knows

    def crash(self) -> None:
        """Forget everything that was not saved."""
        self._pods: tuple[PodView, ...] | None = None
        self._confirmed = False
        self._events: tuple[EventView, ...] | None = None
        self._job_known = False
        self._refused: dict[str, str] = {}

    # -- looking

    def fleetwide(self) -> Fleetwide:
        return Fleetwide(
            now=self.now,
            serving_taints=self.policy.serving_taints,
            sick=self.sick,
            blind=frozenset(),
            strikes={},
        )

    def fleet_pass(self, *requests: Request) -> FleetDecision:
        """One pass: the decision is stored and its runs are born."""
        open_run = self.run if self.run is not None and not ended(run_state(self.run)) else None
        view = a_fleet(
            self.nodes.values(),
            self.pools.values(),
            now=self.now,
            policy=self.policy,
            status=self.status,
            runs={} if open_run is None else {open_run.metadata.name: open_run},
            ended_runs=frozenset({self.run.metadata.name} if self.run is not None and not open_run else ()),
            fleetwide=self.fleetwide(),
        )
        decision = decide_fleet(view, requests, ())
        self.status = _stored(decision.status, PolicyStatus)
        for granted in decision.granted:
            run = _stored(granted.run, Remediation)
            self.run = replace(run, metadata=replace(run.metadata, uid="run-uid", resource_version="1"))
        return decision

    def start(self) -> FleetDecision:
        """Ask for the playbook on ``gpu-1``."""
        return self.fleet_pass(
            Request(
                machine="m",
                node=self.nodes["gpu-1"],
                playbook=self.playbook,
                trigger="Fault",
                fault_class="gpu.bad",
                since=self.now,
                number=1,
            )
        )

    def view(self) -> RunView:
        run = self.run
        assert run is not None
        census = Census()
        census.rebuild(self.nodes.values(), self.pools.values(), self.policy.serving_taints)
        node = self.nodes.get(run.spec.node.name)
        if node is not None and node.uid != run.spec.node.uid:
            node = None
        grant = next((each for each in self.status.grants if each.run == run.metadata.name), None)
        name = grant.spare if grant is not None else ""
        if not name and run.status is not UNSET and run.status.spare is not UNSET:
            name = run.status.spare.name
        spare = self.nodes.get(name)
        return RunView(
            now=self.now,
            run=run,
            playbook=msgspec.json.decode(run.spec.playbook.text, type=PlaybookSpec),
            policy=self.policy,
            fleetwide=self.fleetwide(),
            node=node,
            grant=grant,
            spare=spare,
            home=self.pools.get(run.spec.pool),
            spare_home=self.pools.get(census.home(spare.name) or "") if spare is not None else None,
            buffer=self.pools.get("buffer"),
            repair_pool=self.pools.get("repair"),
            pods=self._pods,
            pods_confirmed=self._confirmed,
            pdbs=self.pdbs,
            refused_evictions=self._refused,
            job=next(iter(self.jobs.values()), None) if self._job_known else None,
            job_known=self._job_known,
            signals=(self.sick["gpu-1"],) if "gpu-1" in self.sick else (),
            hold=(held(node, self.now) or "") if node is not None else "",
            paused=self.paused,
            events=self._events,
        )

    def decide(self) -> Move:
        """Decide twice on the same view: a decision has no memory of its own."""
        view = self.view()
        move = decide_run(view)
        assert decide_run(view) == move
        return move

    # -- acting

    def step(self) -> Move:
        """One fleet pass, one move, and its effects."""
        self.fleet_pass()
        move = self.decide()
        if move.save is not None:
            assert not move.actions, "a move is one status write or the step's actions, never both"
            if not self._lost():
                self._save(move.save)
        elif move.actions:
            for action in move.actions:
                if not self._lost():
                    self._apply(action)
        elif move.look is not Look.NOTHING:
            self._look(move.look)
        if move.after_s:
            self.now += timedelta(seconds=move.after_s)
            self.wake()
        return move

    def wake(self) -> None:
        """A pause is over: like the run pass, what was looked up before it does not count."""
        self._pods, self._confirmed, self._job_known = None, False, False
        self._refused = {}

    def play(self, moves: int = 400, *, until: RunState | None = None, crash: bool = False) -> RunState:
        """Move on until the run has ended, stands in ``until``, or ``moves`` are used up."""
        for _ in range(moves):
            if self.state is until or ended(self.state):
                break
            self.step()
            if crash:
                self.crash() if self._changed() else None
        return self.state

    @property
    def state(self) -> RunState:
        assert self.run is not None
        return run_state(self.run)

    @property
    def reason(self) -> str:
        assert self.run is not None
        assert self.run.status is not UNSET
        return self.run.status.reason

    @property
    def node(self) -> NodeView:
        return self.nodes["gpu-1"]

    def change(self, name: str, **fields: object) -> None:
        """Somebody else writes to a node."""
        self._version += 1
        self.nodes[name] = replace(self.nodes[name], resource_version=str(self._version), **fields)

    def untaint(self, name: str = "gpu-1") -> None:
        node = self.nodes[name]
        items = [each for each in msgspec.json.decode(node.taints_raw) if each["key"] != TAINT_QUARANTINE]
        raw = with_taints(node, msgspec.json.encode(items))
        self.change(name, taints=raw.taints, taints_raw=raw.taints_raw)

    def later(self, seconds_: float) -> datetime:
        self.now += timedelta(seconds=seconds_)
        self.wake()
        return self.now

    def cancel(self) -> None:
        assert self.run is not None
        spec = msgspec.to_builtins(self.run.spec) | {"cancel": {"by": "ann", "reason": "no"}}
        self.run = replace(self.run, spec=msgspec.convert(spec, type(self.run.spec)))

    def _changed(self) -> bool:
        """Did anything reach the cluster since the last look?"""
        before, self._sent_before = getattr(self, "_sent_before", 0), self._sent
        return before != self._sent

    def _lost(self) -> bool:
        self._sent += 1
        return self.drop(self._sent)

    def _save(self, status: RemediationStatus) -> None:
        assert self.run is not None
        before, after = self.state, RunState(status.state)
        # One write may tell of two changes: the end of a step, and the begin of the next.
        through = {before, *(each for each in NEXT[before] if not ended(each))}
        assert after is before or any(after in NEXT[each] for each in through), f"{before} -> {after}"
        assert STATES[after].bound
        self.run = replace(self.run, status=_stored(status, RemediationStatus))
        self.states.append(after)

    def _look(self, what: Look) -> None:
        if what is Look.PODS:
            self._pods = tuple(self.pods)
            self._confirmed = self.node.taint(TAINT_QUARANTINE) is not None
        elif what is Look.EVENTS:
            self._events = (EventView(None, "Warning XidCritical"),)
        elif what is Look.JOB:
            self._job_known = True

    def _apply(self, action: WorldAction) -> None:
        self.writes.append(action)
        if isinstance(action, PatchNode):
            self._patch(action)
        elif isinstance(action, EvictPod):
            self._evict(action)
        else:
            self._start_job(action)

    def _patch(self, action: PatchNode) -> None:
        node = self.nodes[action.name]
        assert node.uid == action.uid
        if node.resource_version != action.resource_version:
            return  # 409
        self._version += 1
        self.nodes[action.name] = replace(patched(node, action.patch), resource_version=str(self._version))

    def _evict(self, action: EvictPod) -> None:
        assert self.node.taint(TAINT_QUARANTINE) is not None, "quarantine before eviction"
        key = f"{action.namespace}/{action.name}"
        if self.pdbs:
            self._refused[key] = "Cannot evict pod"
            return
        self.evictions.append(key)
        self.pods = [pod for pod in self.pods if pod.uid != action.uid]
        self._pods, self._confirmed = None, False

    def _start_job(self, action: CreateJob) -> None:
        assert not self.pods, "repair before the node is empty"
        if action.name in self.jobs:
            return  # 409: it exists
        expected = action.env["EXPECTED_BOOT_ID"]
        done = self.job_reboots and self.node.boot_id == expected
        self.jobs[action.name] = JobView(action.namespace, action.name, "job-uid", succeeded=done)
        self._job_known = False
        if done:
            self.change("gpu-1", boot_id=f"{expected}+")
            self.sick.pop("gpu-1", None)


def patched(node: NodeView, patch: object) -> NodeView:
    """The node after a merge patch (RFC 7396), as the API server applies it."""
    change = msgspec.json.decode(msgspec.json.encode(patch))
    meta, spec = change.get("metadata", {}), change.get("spec", {})
    taints = spec.get("taints")
    result = replace(
        node,
        labels=_merged(node.labels, meta.get("labels", {})),
        annotations=_merged(node.annotations, meta.get("annotations", {})),
        unschedulable=bool(spec.get("unschedulable", node.unschedulable)),
    )
    return result if taints is None else with_taints(result, msgspec.json.encode(taints))


def _merged(before: object, change: dict[str, str | None]) -> dict[str, str]:
    assert isinstance(before, dict)
    merged = {**before, **change}
    return {key: value for key, value in merged.items() if value is not None}


def _stored(value: T, type_: type[T]) -> T:
    return msgspec.json.decode(msgspec.json.encode(value), type=type_)


def taint_set(node: NodeView) -> frozenset[str]:
    """The taints with every field, in any order."""
    items = msgspec.json.decode(node.taints_raw)
    return frozenset(msgspec.json.encode(each, order="sorted").decode() for each in items)


def look_of(node: NodeView) -> tuple[dict[str, str], dict[str, str], bool, frozenset[str]]:
    """What people see of a node: all that a run may have changed."""
    return (dict(node.labels), dict(node.annotations), node.unschedulable, taint_set(node))


SWIFT = Step(id="verify", verify=VerifyStep(quiet_for="30s", timeout="2m"))
KINDS = {
    "hard": a_playbook(*HARD),
    "soft": a_playbook(*SOFT, severity="Soft"),
    "bare": a_playbook("quarantine", "drain", SWIFT, "return"),
}
POOLS = {"no repair pool": (TRAIN, BUFFER), "repair pool": (TRAIN, BUFFER, REPAIR)}


def started(kind: PlaybookInForce, **fields: Any) -> TinyWorld:
    world = TinyWorld(kind, **fields)
    assert world.start().granted
    if "repair" not in kind.actions:
        world.sick = {}
    return world


def ours(node: NodeView) -> list[str]:
    """What of ours stands on the node."""
    marks = [key for key in NODE_ANNOTATIONS if key in node.annotations and "probation" not in key]
    return marks + [taint.key for taint in node.taints if taint.key == TAINT_QUARANTINE]


def points_of(kind: PlaybookInForce, **fields: Any) -> Iterator[TinyWorld]:
    """The world before each move of the undisturbed run."""
    world = started(kind, **fields)
    while world.state is not RunState.RETURNED:
        yield world.fork()
        world.step()


def same(node: NodeView) -> tuple[object, ...]:
    """The node's look, but for what people put there to say no."""
    labels, notes, cordoned, taints = look_of(node)
    labels.pop("remediator.dev/opt-out", None)
    notes.pop("remediator.dev/hold", None)
    return labels, notes, cordoned, taints
