"""API writes of the controller over whole runs of gpu-off-bus, a pod and a spare each, from the audit log."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from typing import Final

from bench.context import Context
from bench.results import Count, Finding, a_series, at_most
from remediator.adapters.audit import AuditRecord, writes
from remediator.fleet.layout import build_fleet
from remediator.fleet.workloads import (
    Workload,
)
from remediator.testbed.stage import USER, Stage

PLAYBOOK: Final = "gpu-off-bus"
PER_RACK: Final = 8
SETTLE_S: Final = 5.0
RUNS_MAX: Final = 8
WRITES_MAX: Final = 18
WRITES_PER_POD_MAX: Final = 1.2
NODE_WRITES_MAX: Final = 4
CHATTER: Final = ("events", "leases")


def measure(context: Context, *, nodes: int) -> Finding:
    """Break one train node after the other, each in a rack of its own, until it has returned.

    Args:
        nodes: of 20 KB each; what is left of them after whole racks are system nodes.
    """
    runs = max(1, min(RUNS_MAX, context.trials // 25))
    victims = [f"gpu-{rack}-02" for rack in "abcdefgh"[:runs]]
    racks, system = divmod(nodes, PER_RACK)
    specs = build_fleet(racks, PER_RACK, infer=1, buffer=1, system=system)
    pods = Workload(trainers=(PER_RACK - 2) * racks - Workload().gang)  # every train node has one
    with Stage(context.directory / "stage", context.binaries, workload=pods, specs=specs) as stage:
        # Only then are runs counted that nothing holds up: a refused request has writes of its own.
        stage.patch_playbook(PLAYBOOK, {"limits": {"rate": {"count": 100, "per": "1m", "burst": 10}}})
        stage.patch_policy({"rate": {"count": 100, "per": "1m", "burst": 10}})
        stage.start_controller()
        time.sleep(SETTLE_S)
        mark = stage.audit.mark()
        for node in victims:
            stage.exporters.inject_xid(node, 0, 79)
            stage.wait_run(node, "Returned", timeout_s=120.0)
            context.tell(f"{node} returned")
        # The last ledger write and the release of the grant come after the run's end.
        stage.wait_ledger(stage.runs(victims[-1])[0]["spec"]["machine"], "Probation")
        records = list(writes(stage.audit.since(mark), users=[USER]))
    return _finding(records, runs, nodes=len(specs))


def _finding(records: list[AuditRecord], runs: int, *, nodes: int) -> Finding:
    evictions = [each for each in records if each.object_ref.subresource == "eviction"]
    others = [each for each in records if each.object_ref.resource not in CHATTER and each not in evictions]
    per_node = Counter(each.object_ref.name for each in others if each.object_ref.resource == "nodes")
    pods = {(each.object_ref.namespace, each.object_ref.name) for each in evictions}
    a_run = (len(others) + len(evictions)) / runs
    limit = WRITES_MAX + WRITES_PER_POD_MAX * len(pods) / runs
    refused = [each for each in records if not each.committed]
    events = sum(each.object_ref.resource == "events" for each in records)
    return Finding(
        series=(a_series("writes of one node, nodes that were written", "writes", per_node.values()),),
        checks=(
            at_most("writes per remediated node, evictions included", a_run, round(limit, 2)),
            at_most("most writes of one Node", max(per_node.values()), NODE_WRITES_MAX),
            at_most("evictions per evicted pod", len(evictions) / max(1, len(pods)), WRITES_PER_POD_MAX),
        ),
        counts=(
            *_per_run("", others, runs),
            *_per_run("eviction: ", evictions, runs),
            Count(name="events, apart", value=round(events / runs, 2)),
            Count(name="refused, included above", value=round(len(refused) / runs, 2)),
        ),
        conditions={
            "nodes": nodes,
            "nodeSize": "full",
            "playbook": f"{PLAYBOOK} of deploy/overlays/testbed, XID 79, rates raised",
            "runs": runs,
            "runsAtOnce": 1,
            "podsEvicted": len(pods),
            "spare": "one a run",
        },
        notes=(
            "Counted per run: everything that the controller's account wrote, spares and ledgers included.",
        ),
    )


def _per_run(prefix: str, records: Iterable[AuditRecord], runs: int) -> list[Count]:
    kinds = Counter(f"{prefix}{each.verb} {_resource(each)}" for each in records)
    return [Count(name=name, value=round(number / runs, 2)) for name, number in sorted(kinds.items())]


def _resource(record: AuditRecord) -> str:
    about = record.object_ref
    return f"{about.resource}/{about.subresource}" if about.subresource else about.resource
