"""Small values for the tests of core: every builder sets only what a test tells about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from msgspec import UNSET

from remediator.core.census import Census
from remediator.core.request import FleetView, Request
from remediator.core.run_view import RunView
from remediator.core.spares import Fleetwide
from remediator.model.instant import write_instant
from remediator.model.keys import TAINT_QUARANTINE
from remediator.model.meta import ObjectMeta, Taint
from remediator.model.playbook import (
    CollectStep,
    DetachStep,
    DrainStep,
    HandoffRepair,
    JobRepair,
    Match,
    Matcher,
    NodeConditionMatch,
    NodeSelection,
    PlaybookInForce,
    PlaybookSpec,
    QuarantineStep,
    RepairStep,
    ReportStep,
    ReturnStep,
    Step,
    SwapStep,
    VerifyStep,
)
from remediator.model.policy import Grant, PolicySpec, PolicyStatus, RepairSpec
from remediator.model.pool import HardwareClass, Membership, PoolSpec, Projection, ResourcePool
from remediator.model.remediation import (
    NodeRef,
    PlaybookRef,
    Remediation,
    RemediationSpec,
    RemediationStatus,
)
from remediator.model.signal import Fault, Severity
from remediator.model.views import ConditionView, NodeView, PodView, TaintView

T0 = datetime(2026, 11, 22, tzinfo=UTC)
POOL_KEY = "example.com/pool"
NODE_KEYS = (
    POOL_KEY,
    "example.com/spare",
    "nvidia.com/gpu",
    "team",
    "cluster-autoscaler.kubernetes.io/scale-down-disabled",
)
GPU_TAINT = Taint(key="nvidia.com/gpu", value="present", effect="NoSchedule")

STEPS: Mapping[str, Step] = {
    "collect": Step(id="evidence", collect=CollectStep()),
    "quarantine": Step(id="fence", quarantine=QuarantineStep(value="gpu")),
    "swap": Step(id="swap", swap=SwapStep()),
    "drain": Step(id="drain", drain=DrainStep()),
    "detach": Step(id="detach", detach=DetachStep()),
    "repair": Step(id="reboot", repair=RepairStep(job=JobRepair(template="reboot", timeout="2m"))),
    "handoff": Step(id="people", repair=RepairStep(handoff=HandoffRepair(queue="boards"))),
    "verify": Step(id="verify", verify=VerifyStep(quiet_for="30s", boot_changed=True, timeout="2m")),
    "return": Step(id="return", return_=ReturnStep()),
    "report": Step(id="tell", report=ReportStep()),
}
HARD = ("quarantine", "swap", "collect", "drain", "detach", "repair", "verify", "return")
SOFT = ("swap", "quarantine", "collect", "drain", "detach", "repair", "verify", "return")


def at(seconds_: float) -> datetime:
    return T0 + timedelta(seconds=seconds_)


def text(seconds_: float) -> str:
    return write_instant(at(seconds_))


def raw_taints(*taints: Mapping[str, object]) -> bytes:
    return msgspec.json.encode(list(taints))


def with_taints(node: NodeView, raw: bytes) -> NodeView:
    """The node as the API server would show it with this list."""
    views = tuple(msgspec.json.decode(raw, type=list[TaintView]))
    return msgspec.structs.replace(node, taints=views, taints_raw=raw)


def merged(own: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """A builder's own values, and what its caller says instead."""
    return {**own, **fields}


def a_node(
    name: str = "gpu-1",
    *,
    pool: str | None = "train",
    ready: str = "True",
    taints: Iterable[Mapping[str, object]] = (),
    labels: Mapping[str, str] | None = None,
    **fields: Any,
) -> NodeView:
    """A healthy member of pool ``train``."""
    own = {} if pool is None else {POOL_KEY: pool}
    node = NodeView(
        **merged(
            {
                "name": name,
                "uid": f"uid-{name}",
                "resource_version": "1",
                "labels": own | dict(labels or {}),
                "conditions": (ConditionView("Ready", ready),) if ready else (),
                "boot_id": "boot-1",
                "gpus": 8,
            },
            fields,
        )
    )
    return with_taints(node, raw_taints(*taints))


def quarantined(node: NodeView, run: str = "m-1", *, cordon: bool = True) -> NodeView:
    """The node with our taint, cordon and mark, as after a quarantine step."""
    taint = {"key": TAINT_QUARANTINE, "value": "gpu", "effect": "NoSchedule"}
    items = [*msgspec.json.decode(node.taints_raw), taint]
    marks = {"remediator.dev/run": f"{run}/fence", "remediator.dev/prior": "{}"}
    node = msgspec.structs.replace(
        node, annotations={**node.annotations, **marks}, unschedulable=cordon or node.unschedulable
    )
    return with_taints(node, msgspec.json.encode(items))


def a_pod(name: str = "train-0", **fields: Any) -> PodView:
    """A pod of a ReplicaSet on ``gpu-1``."""
    return PodView(
        **merged(
            {
                "namespace": "team",
                "name": name,
                "uid": f"uid-{name}",
                "node": "gpu-1",
                "owner_kind": "ReplicaSet",
                "owner_name": "train",
            },
            fields,
        )
    )


def a_pool(name: str = "train", role: Any = "Workload", **fields: Any) -> ResourcePool:
    spec: dict[str, Any] = {"role": role, "membership": Membership(key=POOL_KEY, value=name)}
    if role == "Workload":
        spec["hardware_class"] = HardwareClass(gpus=8)
    return ResourcePool(metadata=ObjectMeta(name=name), spec=PoolSpec(**spec | fields))


def a_projection(*taints: Taint, labels: Any = UNSET, annotations: Any = UNSET) -> Projection:
    return Projection(taints=taints, labels=labels, annotations=annotations)


TRAIN = a_pool("train", projection=a_projection(GPU_TAINT, labels={"team": "train"}))
BUFFER = a_pool(
    "buffer",
    "Buffer",
    projection=a_projection(
        Taint(key="example.com/spare", effect="NoSchedule"),
        annotations={"cluster-autoscaler.kubernetes.io/scale-down-disabled": "true"},
    ),
)
REPAIR = a_pool("repair", "Repair", projection=a_projection(GPU_TAINT, labels={"team": "repair"}))


def a_policy(**fields: Any) -> PolicySpec:
    own = {"max_mode": "Enforce", "repair": RepairSpec(namespace="repairs"), "node_keys": NODE_KEYS}
    return PolicySpec(**merged(own, fields))


def a_spec(*actions: str | Step, **fields: Any) -> PlaybookSpec:
    """A playbook with these steps, by action name or as they are."""
    steps = tuple(STEPS[each] if isinstance(each, str) else each for each in actions or HARD)
    matcher = Matcher(id="ready", node_condition=NodeConditionMatch(type="Ready", status="False"))
    return PlaybookSpec(
        **merged(
            {
                "summary": "x",
                "mode": "Enforce",
                "fault_class": "gpu.bad",
                "severity": "Hard",
                "nodes": NodeSelection(match_all=True),
                "match": Match(any_of=(matcher,)),
                "steps": steps,
            },
            fields,
        )
    )


def a_playbook(*actions: str | Step, name: str = "p", **fields: Any) -> PlaybookInForce:
    spec = a_spec(*actions, **fields)
    return PlaybookInForce(name=name, generation=1, spec=spec, text=msgspec.json.encode(spec).decode())


def a_run(
    name: str = "m-1",
    *,
    node: NodeView | None = None,
    spare: NodeView | None = None,
    status: RemediationStatus | None = None,
    playbook: str = "p",
    **fields: Any,
) -> Remediation:
    leaver = node if node is not None else a_node()
    spec = RemediationSpec(
        **merged(
            {
                "machine": name.rpartition("-")[0],
                "node": NodeRef(name=leaver.name, uid=leaver.uid),
                "boot_id": leaver.boot_id,
                "pool": "train",
                "trigger": "Fault",
                "mode": "Enforce",
                "fault_class": "gpu.bad",
                "severity": "Hard",
                "playbook": PlaybookRef(name=playbook, text="{}"),
                "spare": UNSET if spare is None else NodeRef(name=spare.name, uid=spare.uid),
            },
            fields,
        )
    )
    meta = ObjectMeta(name=name, uid=f"uid-{name}", resource_version="1", creation_timestamp=text(0))
    return Remediation(metadata=meta, spec=spec, status=UNSET if status is None else status)


def a_grant(run: str = "m-1", node: str = "gpu-1", **fields: Any) -> Grant:
    return Grant(**merged({"run": run, "uid": f"uid-{node}", "pool": "train", "at": text(0)}, fields))


def a_fleetwide(**fields: Any) -> Fleetwide:
    return Fleetwide(
        **merged(
            {
                "now": T0,
                "serving_taints": ("nvidia.com/gpu",),
                "sick": {},
                "blind": frozenset(),
                "strikes": {},
            },
            fields,
        )
    )


def a_view(*actions: str | Step, **fields: Any) -> RunView:
    """The view of run ``m-1`` on ``gpu-1``, granted, in pool ``train``."""
    node = fields.get("node", a_node())
    return RunView(
        **merged(
            {
                "now": T0,
                "run": a_run(node=node or a_node()),
                "playbook": a_spec(*actions),
                "policy": a_policy(),
                "fleetwide": a_fleetwide(),
                "node": node,
                "grant": a_grant(),
                "home": TRAIN,
                "buffer": BUFFER,
            },
            fields,
        )
    )


def a_fleet(
    nodes: Iterable[NodeView], pools: Iterable[ResourcePool] = (TRAIN, BUFFER), **fields: Any
) -> FleetView:
    """A fleet of these nodes, seen at T0 with an enforcing policy."""
    seen = tuple(nodes)
    policy = fields.get("policy", a_policy())
    by_name = {pool.metadata.name: pool for pool in pools}
    census = Census()
    census.rebuild(seen, by_name.values(), policy.serving_taints)
    return FleetView(
        **merged(
            {
                "now": T0,
                "term": 1,
                "policy": policy,
                "status": PolicyStatus(term=1),
                "policy_exists": True,
                "pools": by_name,
                "nodes": {node.name: node for node in seen},
                "names": {node.uid: node.name for node in seen},
                "census": census,
                "runs": {},
                "ledgers": {},
                "fleetwide": a_fleetwide(now=fields.get("now", T0)),
            },
            fields,
        )
    )


def a_request(node: NodeView | None = None, *actions: str | Step, **fields: Any) -> Request:
    """A fault's request for the hard playbook on one node, whose machine has the node's name."""
    leaver = node if node is not None else a_node()
    own = {key: fields.pop(key) for key in ("playbook",) if key in fields}
    return Request(
        **merged(
            {
                "machine": leaver.name,
                "node": leaver,
                "playbook": own.get("playbook") or a_playbook(*actions),
                "trigger": "Fault",
                "fault_class": "gpu.bad",
                "since": T0,
                "number": 1,
            },
            fields,
        )
    )


def a_fault(machine: str = "gpu-1", **fields: Any) -> Fault:
    return Fault(
        **merged(
            {
                "machine": machine,
                "node": machine,
                "node_uid": f"uid-{machine}",
                "boot_id": "boot-1",
                "fault_class": "gpu.bad",
                "severity": Severity.HARD,
                "playbook": "p",
                "matcher": "ready",
                "first_seen": T0,
                "confirmed_at": T0,
                "clears": True,
                "evidence": (),
            },
            fields,
        )
    )
