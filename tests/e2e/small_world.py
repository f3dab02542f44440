"""A fleet of five nodes whose stories take seconds, and that can be made as it was for the next one.

One control plane carries many stories; between two of them, with no controller alive, the world is
reset. What is compared and counted comes from objects and from the API server's audit log.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

from remediator.adapters.audit import AuditRecord, writes
from remediator.fleet.layout import (
    build_fleet,
)
from remediator.fleet.machines import next_boot_id
from remediator.fleet.node_objects import LABEL_POOL, NodeSpec
from remediator.fleet.workloads import (
    LABEL_APP,
    Workload,
)
from remediator.testbed.node_edits import NODES, boot_id_of, is_settled
from remediator.testbed.stage import GROUP, LEDGERS, POLICY, REPAIR_NAMESPACE, RUNS, USER, Stage
from remediator.testbed.waiting import wait_until
from tests.e2e import verdict

BAD: Final = "gpu-a-01"
SPARE: Final = "gpu-a-04"
TRAINERS: Final = 3
SETTLE_S: Final = 120.0
REBOOTS_MAX: Final = 5
JOBS: Final = f"/apis/batch/v1/namespaces/{REPAIR_NAMESPACE}/jobs"
REPAIR_PODS: Final = f"/api/v1/namespaces/{REPAIR_NAMESPACE}/pods"
WORKLOAD_PODS: Final = "/api/v1/namespaces/workload/pods"
OURS: Final = "remediator.dev/"
# Values that differ between any two stories; that they are there is compared.
MASKED: Final = ("remediator.dev/term", "remediator.dev/probation-until")


def open_fleet() -> tuple[NodeSpec, ...]:
    """Three nodes that train, one spare for them, and one node without GPUs."""
    return build_fleet(racks=1, per_rack=4, infer=0, buffer=1, system=1)


def workload() -> Workload:
    """One trainer per node of the pool, so that an eviction needs the spare."""
    return Workload(trainers=TRAINERS, gang=0, frontends=0)


class SmallWorld:
    """One stage, prepared so that stories follow each other. No controller runs between two of them."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        for name in ("gpu-off-bus", "gpu-row-remap"):
            stage.patch_playbook(name, _hurried(stage.api.get(f"{GROUP}/playbooks/{name}")["spec"]))
        stage.patch_policy(
            {
                "rate": {"count": 100, "per": "1m", "burst": 50},
                # The same fault comes back every few seconds; that is no storm here.
                "breaker": {"count": 100, "percent": 10, "within": "10m", "quiet": "30s"},
            }
        )
        stage.start_controller()  # until the XIDs have their baseline
        stage.stop_controller()
        self._boots = {spec.name: boot_id_of(stage.node(spec.name)) for spec in stage.specs}

    def settled(self, count: int = 1) -> bool:
        """Are ``count`` runs over and in the memory of their machines, their grants given back?"""
        runs = self.runs()
        if sum(run["state"] == "Returned" for run in runs) < count or any(not run["over"] for run in runs):
            return False
        ledgers = [each.get("status", {}) for each in self.stage.api.list(LEDGERS)]
        if sum(each.get("state") != "Out" and "history" in each for each in ledgers) < count:
            return False
        # Node lifecycle takes its own taints off a node some seconds after it is Ready again.
        calm = all(is_settled(node) for node in self.stage.api.list(NODES))
        return calm and not self.stage.api.get(POLICY)["status"].get("grants") and self._works()

    def _works(self) -> bool:
        pods = self._trainers()
        return len(pods) == TRAINERS and all(pod["status"]["phase"] == "Running" for pod in pods)

    def _trainers(self) -> list[dict[str, Any]]:
        pods = self.stage.api.list(WORKLOAD_PODS, label_selector=f"{LABEL_APP}=trainers")
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    # -- the world as it was

    def reset(self) -> None:
        """Make everything as it was before the last story; call it while no controller lives."""
        api = self.stage.api
        for collection in (JOBS, RUNS, LEDGERS):
            api.delete_all(collection)
        wait_until(
            lambda: not any(api.list(path) for path in (JOBS, REPAIR_PODS, RUNS, LEDGERS)),
            timeout_s=SETTLE_S,
            what="the end of the last story's objects",
        )
        api.merge_patch(
            POLICY,
            {"status": {"grants": [], "rates": [], "breakers": [], "recentFaults": []}},
            subresource="status",
        )
        for spec in self.stage.specs:
            if spec.gpus:
                self.stage.exporters.heal(spec.name)
                self._reset_node(spec)
        for pod in self._trainers():
            if self._pool_of(pod) != "train":
                api.remove(f"{WORKLOAD_PODS}/{pod['metadata']['name']}", grace_s=0)
        wait_until(
            lambda: self._works() and all(self._pool_of(pod) == "train" for pod in self._trainers()),
            timeout_s=SETTLE_S,
            what="the workload to be where it was",
        )

    def _reset_node(self, spec: NodeSpec) -> None:
        node = self.stage.node(spec.name)
        taint = {"key": LABEL_POOL, "value": spec.pool, "effect": "NoSchedule"}
        ours = {key: None for key in node["metadata"]["annotations"] if key.startswith(OURS)}
        self.stage.api.merge_patch(
            f"{NODES}/{spec.name}",
            {
                "metadata": {"labels": {LABEL_POOL: spec.pool}, "annotations": ours},
                "spec": {"taints": [taint], "unschedulable": None},
            },
        )
        self._boots[spec.name] = boot_id_of(node)

    def _pool_of(self, pod: dict[str, Any]) -> str:
        name = pod["spec"].get("nodeName", "")
        return next((spec.pool for spec in self.stage.specs if spec.name == name), "")

    # -- what is compared

    def state(self) -> dict[str, Any]:
        """The end state without times, uids, versions, terms and the number of a run."""
        status = self.stage.api.get(POLICY)["status"]
        return {
            "nodes": {spec.name: self._node(spec.name) for spec in self.stage.specs},
            "runs": [run for run in self.runs() if run["state"] != "NotGranted"],
            "ledgers": [_ledger(each["status"]) for each in self.stage.api.list(LEDGERS)],
            "policy": {
                "grants": status.get("grants", []),
                "breakers": status.get("breakers", []),
                "baselined": status["baselined"],
                "rates": {each["scope"]: each["tokens"] for each in status["rates"]},
                "faults": [each["faultClass"] for each in status.get("recentFaults", [])],
            },
            "trainers": sorted(pod["spec"]["nodeName"] for pod in self._trainers()),
        }

    def _node(self, name: str) -> dict[str, Any]:
        node = self.stage.node(name)
        annotations = node["metadata"]["annotations"]
        return {
            "labels": node["metadata"]["labels"],
            "annotations": {key: "" if key in MASKED else value for key, value in annotations.items()},
            "taints": node["spec"].get("taints", []),
            "unschedulable": node["spec"].get("unschedulable", False),
            "reboots": _reboots(self._boots[name], boot_id_of(node)),
        }

    def runs(self) -> list[dict[str, Any]]:
        """Every Remediation without what differs between two stories, oldest first."""
        return [_run(run) for run in self.stage.runs()]


def _hurried(spec: dict[str, Any]) -> dict[str, Any]:
    """A playbook's own spec with times of a second, and limits that let it run again and again."""
    for step in spec["steps"]:
        if "verify" in step:
            step["verify"]["quietFor"] = "1s"
    for matcher in spec["match"]["anyOf"]:
        if "gpuMetric" in matcher:
            matcher["for"] = "1s"
    limits = {"maxConcurrent": 2, "rate": {"count": 100, "per": "1m", "burst": 50}}
    return {"limits": limits, "steps": spec["steps"], "match": spec["match"]}


def _run(run: dict[str, Any]) -> dict[str, Any]:
    spec, status = run["spec"], run.get("status", {})
    return {
        "machine": spec["machine"],
        "node": spec["node"]["name"],
        "pool": spec["pool"],
        "class": spec["faultClass"],
        "playbook": spec["playbook"]["name"],
        "plan": spec["planHash"],
        "evidence": [(each["key"], each["text"]) for each in spec["evidence"]],
        "spare": status.get("spare", {}).get("name", ""),
        "state": status.get("state", ""),
        "reason": status.get("reason", ""),
        "over": "finishedAt" in status,
        "steps": [(step["id"], step["action"], step["state"]) for step in status.get("steps", [])],
        "conditions": [
            (each["type"], each["status"], each["reason"]) for each in status.get("conditions", [])
        ],
    }


def _ledger(status: dict[str, Any]) -> dict[str, Any]:
    return {
        "node": status["node"],
        "state": status["state"],
        "history": [(each["faultClass"], each["outcome"]) for each in status.get("history", [])],
        "strikes": [(each["faultClass"], each["repair"]) for each in status.get("strikes", [])],
        "latches": [each["code"] for each in status.get("latches", [])],
        "other": sorted(status.keys() - {"runs", "suspicions"}),
    }


def _reboots(before: str, after: str) -> int:
    """How many reboots lie between two boots; each boot ID is derived from the one before it."""
    for count in range(REBOOTS_MAX):
        if before == after:
            return count
        before = next_boot_id(before)
    return REBOOTS_MAX


def effects(records: Iterable[AuditRecord]) -> dict[str, Counter[str]]:
    """How often each effect on the outside happened, by what it happened to.

    A write that left the object's version as it was had no effect and does not count.
    """
    found: dict[str, Counter[str]] = {
        name: Counter() for name in ("evicted", "jobs", "quarantined", "joined")
    }
    versions: dict[str, str] = {}
    for record in writes(records, users=[USER]):
        if not record.committed:
            continue
        where, name = record.object_ref.resource, record.object_ref.name
        if where == "pods":
            uid = verdict.patch_of(record)["deleteOptions"]["preconditions"]["uid"]
            found["evicted"][f"{name} {uid}"] += 1
        elif where == "jobs":
            found["jobs"][verdict.patch_of(record)["metadata"]["name"]] += 1
        elif where == "nodes":
            version = json.loads(bytes(record.response_object))["metadata"]["resourceVersion"]
            if versions.get(name) != version:
                _count_patch(found, name, record)
            versions[name] = version
    return found


def _count_patch(found: dict[str, Counter[str]], name: str, record: AuditRecord) -> None:
    patch = verdict.patch_of(record)
    if re.search(r'"remediator.dev/run":"[^"]*/fence"', json.dumps(patch, separators=(",", ":"))):
        found["quarantined"][name] += 1
    if patch.get("metadata", {}).get("labels", {}).get(LABEL_POOL) == "train":
        found["joined"][name] += 1


def differences(found: object, expected: object, where: str = "") -> list[str]:
    """Say, one line each, where two states differ."""
    if isinstance(found, dict) and isinstance(expected, dict):
        keys = sorted({*found, *expected})
        return [
            line
            for key in keys
            for line in differences(found.get(key), expected.get(key), f"{where}.{key}".lstrip("."))
        ]
    return [] if found == expected else [f"{where}: {found!r}, expected {expected!r}"]
