"""Reads verdicts from objects and the API server's audit log; never from the controller's own words."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec.structs import replace

from remediator.adapters.audit import AuditRecord, Numbered, read_records, writes
from remediator.chaos.check import check
from remediator.chaos.profile import load_profile
from remediator.cli.chaos import render
from remediator.fleet.node_objects import LABEL_POOL, LABEL_RACK, LABEL_ZONE
from remediator.testbed.stage import GROUP, LEDGERS, NODES, POLICY, RUNS, USER, Stage
from remediator.testbed.waiting import wait_until

QUARANTINE = "remediator.dev/quarantine"
OURS = "remediator.dev/"
PROBATION = "remediator.dev/probation-until"
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
BY_PEOPLE = {"remediator.dev/hold", "remediator.dev/opt-out", "remediator.dev/fenced"}
# The fence mark of the last writer, and what tells a spare's history; neither keeps a node out.
MAY_STAY = {"remediator.dev/term", PROBATION}


def our_writes(stage: Stage, resource: str, subresource: str | None = None) -> list[AuditRecord]:
    """Every completed write of the controller's user on one resource, in log order."""
    return list(writes(stage.audit.since(), users=[USER], resource=resource, subresource=subresource))


def landed(records: Iterable[AuditRecord]) -> list[AuditRecord]:
    return [record for record in records if record.committed]


def patch_of(record: AuditRecord) -> dict[str, Any]:
    found = json.loads(bytes(record.request_object) or b"{}")
    assert isinstance(found, dict)
    return found


def revision(record: AuditRecord) -> int:
    """etcd's revision of what this write left behind."""
    return int(json.loads(bytes(record.response_object))["metadata"]["resourceVersion"])


def node_patches(stage: Stage, node: str) -> list[AuditRecord]:
    """Patches of one Node by the controller that landed."""
    return [
        record
        for record in landed(our_writes(stage, "nodes", ""))
        if record.object_ref.name == node and record.verb == "patch"
    ]


def adds_quarantine(record: AuditRecord) -> bool:
    taints = patch_of(record).get("spec", {}).get("taints") or []
    return any(taint["key"] == QUARANTINE for taint in taints)


def out_max(records: Iterable[AuditRecord], pool: str = "train") -> int:
    """The most nodes of the pool that the controller had quarantined, and not yet replaced, at one time."""
    out: set[str] = set()
    most = 0
    for record in landed(writes(records, users=[USER], resource="nodes", subresource="")):
        labels = patch_of(record).get("metadata", {}).get("labels", {})
        if labels.get(LABEL_POOL, pool) != pool:
            out.discard(record.object_ref.name)
        elif adds_quarantine(record):
            out.add(record.object_ref.name)
        most = max(most, len(out))
    return most


def taint_of(node: Mapping[str, Any]) -> dict[str, Any] | None:
    taints = node["spec"].get("taints") or []
    return next((taint for taint in taints if taint["key"] == QUARANTINE), None)


def pool_of(node: Mapping[str, Any]) -> str:
    return str(node["metadata"]["labels"].get("example.com/pool", ""))


def left_behind(node: Mapping[str, Any]) -> set[str]:
    """Our keys on a node that say more than who wrote last."""
    found = {key for key in node["metadata"].get("annotations", {}) if key.startswith(OURS)}
    found |= {key for key in node["metadata"].get("labels", {}) if key.startswith(OURS)}
    found |= {taint["key"] for taint in node["spec"].get("taints") or [] if taint["key"].startswith(OURS)}
    return found - MAY_STAY


def pods_on(stage: Stage, node: str) -> set[str]:
    """namespace/name of every pod bound to the node."""
    found = stage.api.list("/api/v1/pods", field_selector=f"spec.nodeName={node}")
    return {f"{pod['metadata']['namespace']}/{pod['metadata']['name']}" for pod in found}


def evicted(stage: Stage) -> list[AuditRecord]:
    return landed(our_writes(stage, "pods", "eviction"))


def assert_taint_before_eviction(stage: Stage, pods_before: Mapping[str, set[str]]) -> None:
    """No pod was evicted from a node before our taint had landed there.

    Args:
        pods_before: by node name the pods that were bound to it when the story began.
    """
    home = {pod: node for node, pods in pods_before.items() for pod in pods}
    for record in evicted(stage):
        pod = f"{record.object_ref.namespace}/{record.object_ref.name}"
        assert pod in home, f"{pod} was evicted, but no node of the story held it"
        tainted = [each for each in node_patches(stage, home[pod]) if adds_quarantine(each)]
        assert tainted, f"{pod} was evicted from {home[pod]}, which we never tainted"
        assert tainted[0].staged_at <= record.received_at, f"{pod} was evicted before our taint landed"


def assert_nothing_leaks(stage: Stage, *nodes: str) -> None:
    """No taint, no cordon, no mark and no grant of ours is left of a run that has ended."""
    for name in nodes:
        node = stage.node(name)
        assert not left_behind(node), f"{name}: {left_behind(node)}"
        assert not node["spec"].get("unschedulable"), f"{name} is cordoned"
    uids = {stage.node(name)["metadata"]["uid"] for name in nodes}
    wait_until(lambda: not uids & granted(stage), timeout_s=40.0, what="the grants to be given back")


def orphans(stage: Stage) -> list[str]:
    """What of ours, anywhere in the cluster, no open run and no machine's memory answers for.

    Judged here from the objects alone, by the rule of custody and without the product's own code.
    """
    runs = {run["metadata"]["name"]: run for run in stage.api.list(RUNS)}
    open_runs = {name: run for name, run in runs.items() if not run.get("status", {}).get("finishedAt")}
    busy = {run["spec"]["node"]["uid"] for run in open_runs.values()}
    out = {
        ledger["status"].get("nodeUid")
        for ledger in stage.api.list(LEDGERS)
        if ledger.get("status", {}).get("state") == "Out" and "out" in ledger["status"]
    }
    found = []
    for node in stage.api.list(NODES):
        left, uid = left_behind(node) - BY_PEOPLE, node["metadata"]["uid"]
        marked = [each for each in node["spec"].get("taints") or [] if each["key"] == OUT_OF_SERVICE]
        if any(each.get("value") == "remediator" for each in marked):
            left.add(OUT_OF_SERVICE)
        if left and uid not in busy | out:
            found.append(f"{node['metadata']['name']}: {', '.join(sorted(left))}")
    grants = stage.api.get(POLICY).get("status", {}).get("grants", [])
    return found + [f"grant of {each['run']}" for each in grants if each["run"] not in open_runs]


def assert_custody(stage: Stage) -> None:
    """Nothing of ours is orphaned, or stays so: the leader has a minute for a grant, seconds for a mark."""
    if not stage.api.find(POLICY):
        return  # a story without a policy, in which nothing can have been done
    wait_until(
        lambda: not orphans(stage),
        timeout_s=70.0 if stage.controller_alive else 0.0,
        every_s=0.5,
        what="everything of ours to have an owner",
        detail=lambda: "; ".join(orphans(stage)),
    )


def assert_rules(stage: Stage) -> None:
    """The rules of docs/chaos.md, on all that the API server wrote down of this stage."""
    keys = stage.api.get(POLICY)["spec"].get("nodeKeys", ())
    assert_records(read_records(stage.audit.path), keys)


def assert_records(records: Iterable[Numbered], node_keys: Iterable[str]) -> None:
    """The same on any records; ``node_keys`` are those of the policy."""
    profile = load_profile("remediator")
    assert profile.own is not None
    profile = replace(profile, own=replace(profile.own, keys=(*profile.own.keys, *node_keys)))
    report = check(records, profile)
    assert report.own
    assert not report.broken, "\n".join(render(report))


def granted(stage: Stage) -> set[str]:
    """Uids of the nodes that hold a grant."""
    status = stage.api.get(POLICY).get("status", {})
    return {grant["uid"] for grant in status.get("grants", [])}


def attributed(record: AuditRecord) -> bool:
    """Does the request name our term and run, as the audit trail promises?"""
    return "remediator/" in record.user_agent and "term=" in record.user_agent


def misfits(stage: Stage, spare: Mapping[str, Any], leaver: Mapping[str, Any], pool: str) -> list[str]:
    """Where the spare differs from what the pool's hardware class and required topology demand of it."""
    spec = stage.api.get(f"{GROUP}/resourcepools/{pool}")["spec"]
    wanted = spec["hardwareClass"]
    levels = [each["key"] for each in spec["topology"] if each.get("match") == "Required"]
    mine, theirs = spare["metadata"]["labels"], leaver["metadata"]["labels"]
    keys = [*wanted["labels"], wanted["driver"], *levels]
    found = [f"{key}: {mine.get(key)}, not {theirs[key]}" for key in keys if mine.get(key) != theirs[key]]
    gpus = int(spare["status"]["allocatable"]["nvidia.com/gpu"])
    return found if gpus == wanted["gpus"] else [*found, f"{gpus} GPUs, not {wanted['gpus']}"]


def nearest_spare(stage: Stage, node: str) -> str:
    """Name of the spare that fits now: the node's own zone first, then its rack, then the first by name."""
    leaver = stage.node(node)
    home, pool = leaver["metadata"]["labels"], pool_of(leaver)
    spares = [each for each in stage.api.list(NODES) if pool_of(each) == "buffer"]
    fresh = [each for each in spares if PROBATION not in each["metadata"]["annotations"]]
    fit = [each["metadata"] for each in fresh if not misfits(stage, each, leaver, pool)]
    levels = (LABEL_ZONE, LABEL_RACK)
    near = min(([each["labels"][key] != home[key] for key in levels], each["name"]) for each in fit)
    return str(near[1])


def jobs_sent(stage: Stage, node: str) -> list[AuditRecord]:
    """Every repair Job that the controller created for this node, in the audit log's order."""
    made = [each for each in landed(our_writes(stage, "jobs", "")) if each.verb == "create"]
    return [each for each in made if patch_of(each)["metadata"]["labels"]["remediator.dev/node"] == node]
