"""XID 79 on a page to our taint, to a spare in the pool, and how fast the pods leave; ours and bare in turns.

Whole runs of gpu-off-bus on nodes full of pods. Times of writes are the API server's own; a fault
begins when the exporter's page shows it, by the same machine's clock.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec
from msgspec import Struct

from bench.context import Context
from bench.join import adds_taint
from bench.results import Finding, Series, a_series, at_least, at_most
from bench.wire import MERGE_PATCH, RawApi
from remediator.adapters.audit import AuditRecord
from remediator.fleet.layout import build_fleet, rack_name
from remediator.fleet.node_objects import LABEL_POOL
from remediator.fleet.workloads import (
    NAMESPACE,
    deployment,
)
from remediator.model.keys import LABEL_OPT_OUT
from remediator.testbed.stage import NODES, USER, Stage
from remediator.testbed.waiting import now, wait_until

PER_RACK: Final = 8
PODS: Final = 30
TRIALS_MAX: Final = 20
RUN_S_MAX: Final = 120.0
TAINT: Final = "bench.example.com/quarantine"
DEPLOYMENTS: Final = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
POD_LIST: Final = f"/api/v1/namespaces/{NAMESPACE}/pods"
WORKLOAD: Final = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
OURS, BARE = "remediator", "bare"


class Outcome(Struct, frozen=True, kw_only=True):
    """One fault: ms from the page to the taint and to the spare; evictions a second, and calls a pod."""

    side: str
    taint_ms: float
    spare_ms: float
    evictions_per_s: float
    calls_per_pod: float


def measure(context: Context, *, nodes: int, period_s: float) -> Finding:
    """Break one node after the other, ours and the baseline's in turns.

    Args:
        nodes: of 20 KB each; what is left of them after whole racks are system nodes.
        period_s: of the scrapes, of both sides.
    """
    trials = max(1, min(TRIALS_MAX, context.trials // 10))
    racks, system = divmod(nodes, PER_RACK)
    specs = build_fleet(racks, PER_RACK, infer=0, buffer=2, system=system)
    with Stage(context.directory / "stage", context.binaries, specs=specs) as stage:
        rate = {"rate": {"count": 1_000, "per": "1m", "burst": 100}}
        stage.patch_playbook("gpu-off-bus", {"limits": rate})
        # One fault after the other would be a storm to a breaker.
        stage.patch_policy(
            rate
            | {
                "breaker": {"count": 1_000, "percent": 100, "within": "10s", "quiet": "10s"},
                "exporter": {"period": f"{period_s:g}s"},
            }
        )
        stage.api.apply(f"/api/v1/namespaces/{NAMESPACE}", WORKLOAD)
        stage.start_controller()
        outcomes = []
        trial = _Trial(stage, Random(context.seed), period_s)
        for number in range(trials):
            rack, slot = rack_name(number % 10), 2 * (number // 10) + 1
            outcomes.append(trial.ours(f"gpu-{rack}-{slot:02}"))
            outcomes.append(asyncio.run(trial.bare(f"gpu-{rack}-{slot + 1:02}")))
            context.tell(f"{number + 1} of {trials} faults a side")
    return _finding(outcomes, trials, nodes=len(specs), period_s=period_s)


class _Trial:
    """Faults on one stage, each on a node full of pods."""

    def __init__(self, stage: Stage, rng: Random, period_s: float) -> None:
        self._stage = stage
        self._rng = rng
        self._period_s = period_s

    def ours(self, node: str) -> Outcome:
        """One fault, answered by the product until the node has returned."""
        stage = self._stage
        _fill(stage, node)
        mark = stage.audit.mark()
        began = self._break(node)
        run = stage.wait_run(node, "Returned", timeout_s=RUN_S_MAX)
        records = [record for record in stage.audit.since(mark) if record.username == USER]
        stage.api.remove(f"{DEPLOYMENTS}/load-{node}")
        return outcome(OURS, records, began, node=node, spare=run["status"]["spare"]["name"])

    async def bare(self, node: str) -> Outcome:
        """The same by a script that keeps no books: page, taint, spare, all evictions at once."""
        stage = self._stage
        await asyncio.to_thread(_fill, stage, node)
        # Ours goes on watching beside it, and must leave this node to the script.
        await asyncio.to_thread(_opt_out, stage, node, "true")
        nodes = await asyncio.to_thread(stage.api.list, NODES)
        spare = next(each for each in nodes if each["metadata"]["labels"].get(LABEL_POOL) == "buffer")
        before = next(each for each in nodes if each["metadata"]["name"] == node)
        mark = stage.audit.mark()
        async with RawApi(Path(stage.cluster.kubeconfig)) as raw:
            breaking = asyncio.create_task(asyncio.to_thread(self._break, node))
            await _shown(raw, stage.page_url(node), self._period_s)
            await _answer(raw, before, spare)
            began = await breaking
        records = [record for record in stage.audit.since(mark) if record.username != USER]
        await asyncio.to_thread(_take_back, stage, before, spare)
        return outcome(BARE, records, began, node=node, spare=spare["metadata"]["name"])

    def _break(self, node: str) -> datetime:
        """Show the XID at a random phase of everybody's period; when that was."""
        time.sleep(self._rng.uniform(self._period_s, 2 * self._period_s))
        began = now()
        self._stage.exporters.inject_xid(node, 0, 79)
        return began


def _fill(stage: Stage, node: str) -> None:
    made = deployment(f"load-{node}", PODS, pool="train")
    made["spec"]["template"]["spec"]["nodeSelector"]["kubernetes.io/hostname"] = node
    stage.api.create(DEPLOYMENTS, made)
    running = f"spec.nodeName={node},status.phase=Running"
    wait_until(
        lambda: len(stage.api.list(POD_LIST, field_selector=running)) == PODS,
        timeout_s=60.0,
        every_s=0.2,
        what=f"{PODS} pods on {node}",
    )


async def _shown(raw: RawApi, page: str, period_s: float) -> None:
    while True:
        async with raw.session.get(page) as response:
            lines = (await response.text()).splitlines()
        if any(line.startswith("DCGM_FI_DEV_XID_ERRORS{") and line.endswith(" 79") for line in lines):
            return
        await asyncio.sleep(period_s)


async def _answer(raw: RawApi, node: dict[str, Any], spare: dict[str, Any]) -> None:
    name = node["metadata"]["name"]
    taint = {"key": TAINT, "value": "bare", "effect": "NoSchedule"}
    fence = {"spec": {"taints": [*node["spec"].get("taints", ()), taint], "unschedulable": True}}
    await raw.send("PATCH", f"{NODES}/{name}", msgspec.json.encode(fence), content_type=MERGE_PATCH)
    joins = {"metadata": {"labels": {LABEL_POOL: "train"}}, "spec": {"taints": node["spec"]["taints"]}}
    path = f"{NODES}/{spare['metadata']['name']}"
    await raw.send("PATCH", path, msgspec.json.encode(joins), content_type=MERGE_PATCH)
    found = msgspec.json.decode(await raw.send("GET", f"{POD_LIST}?fieldSelector=spec.nodeName={name}"))
    async with asyncio.TaskGroup() as group:
        for pod in found["items"]:
            group.create_task(_evict(raw, pod["metadata"]["name"]))


async def _evict(raw: RawApi, pod: str) -> None:
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": NAMESPACE}}
    await raw.send("POST", f"{POD_LIST}/{pod}/eviction", msgspec.json.encode(body))


def _opt_out(stage: Stage, node: str, value: str | None) -> None:
    stage.api.merge_patch(f"{NODES}/{node}", {"metadata": {"labels": {LABEL_OPT_OUT: value}}})


def _take_back(stage: Stage, node: dict[str, Any], spare: dict[str, Any]) -> None:
    name = node["metadata"]["name"]
    stage.exporters.heal(name)
    stage.api.remove(f"{DEPLOYMENTS}/load-{name}")
    for each in (node, spare):
        was = {
            "metadata": {"labels": {LABEL_POOL: each["metadata"]["labels"][LABEL_POOL]}},
            "spec": {"taints": each["spec"]["taints"], "unschedulable": None},
        }
        stage.api.merge_patch(f"{NODES}/{each['metadata']['name']}", was)
    _opt_out(stage, name, None)


def outcome(side: str, records: Iterable[AuditRecord], began: datetime, *, node: str, spare: str) -> Outcome:
    """Find one fault's times in the audit log.

    Raises:
        ValueError: a write of it is not there.
    """
    taints, joins, evicted, calls = [], [], [], set()
    for record in records:
        about = record.object_ref
        if about.subresource == "eviction" and about.name.startswith(f"load-{node}-"):
            calls.add(record.audit_id)
            if record.committed:
                evicted.append(record)
        elif record.committed and record.verb == "patch" and about.name == spare:
            joins.append(record.staged_at)
        elif record.committed and about.name == node and adds_taint(record, "/quarantine"):
            taints.append(record.staged_at)
    if not taints or not joins or len(evicted) < PODS:
        raise ValueError(f"{len(taints)} taints, {len(joins)} of {spare}, {len(evicted)} evictions on {node}")
    first, last = min(each.received_at for each in evicted), max(each.staged_at for each in evicted)
    return Outcome(
        side=side,
        taint_ms=(min(taints) - began) / timedelta(milliseconds=1),
        spare_ms=(min(joins) - began) / timedelta(milliseconds=1),
        evictions_per_s=len(evicted) / (last - first).total_seconds(),
        calls_per_pod=len(calls) / len(evicted),
    )


def _finding(outcomes: Sequence[Outcome], trials: int, *, nodes: int, period_s: float) -> Finding:
    ours, bare = (_series(outcomes, side) for side in (OURS, BARE))
    taint, spare, rate = (
        mine.summary.p50 / plain.summary.p50 for mine, plain in zip(ours, bare, strict=True)
    )
    calls = max(each.calls_per_pod for each in outcomes if each.side == OURS)
    return Finding(
        series=(*ours, *bare),
        checks=(
            at_most("XID shown to taint, P50 to bare", taint, 1.5),
            at_most("XID shown to spare schedulable, P50 to bare", spare, 1.5),
            at_least("evictions per second, P50 to bare", rate, 0.8),
            at_most("eviction calls per pod, most", calls, 1.2),
        ),
        conditions={
            "nodes": nodes,
            "nodeSize": "full",
            "podsPerNode": PODS,
            "faultsPerSide": trials,
            "faultsAtOnce": 1,
            "playbook": "gpu-off-bus of deploy/overlays/testbed, rates raised",
            "scrape": f"every {period_s:g} s, of all nodes by remediator, of the one by bare",
            "apiLatency": "loopback, etcd without fsync",
        },
        notes=(
            "Half a period of the scrape is in every time, of both sides.",
            "Bare writes taint and spare and sends all evictions at once: no record, grant, check or budget.",
            "A pod's eviction is counted when the server has accepted it; ours go band by band by priority.",
        ),
    )


def _series(outcomes: Sequence[Outcome], side: str) -> list[Series]:
    mine = [each for each in outcomes if each.side == side]
    return [
        a_series(f"{side}, XID shown to taint", "ms", [each.taint_ms for each in mine]),
        a_series(f"{side}, XID shown to spare schedulable", "ms", [each.spare_ms for each in mine]),
        a_series(f"{side}, evictions", "1/s", [each.evictions_per_s for each in mine]),
    ]
