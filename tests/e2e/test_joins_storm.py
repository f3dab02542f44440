"""Many nodes join a real control plane at once: who is let in, how fast, and what runs there before."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from remediator.adapters.audit import read_records
from remediator.chaos.check import check
from remediator.chaos.profile import Joins, load_profile
from remediator.core.joins.preflight import PREFLIGHT
from remediator.fleet.layout import build_fleet
from remediator.fleet.node_objects import NodeSpec
from remediator.fleet.workloads import Workload
from remediator.model.joins import GATE_KEY
from remediator.model.keys import ANNOTATION_JOINED
from remediator.testbed import fleet
from remediator.testbed.binaries import Binaries
from remediator.testbed.stage import NODES, POLICY, Stage
from remediator.testbed.waiting import wait_until
from remediator.testbed.workloads import submit_workload
from tests.deploy.manifests import DEPLOY

MOST, BURST, PER_MINUTE = 300, 20, 240
RATE = {"count": PER_MINUTE, "per": "1m", "burst": BURST}
LIMIT = Joins(gate=GATE_KEY, count=PER_MINUTE, seconds=60.0, burst=BURST, proof=PREFLIGHT)
RULES = ("S5", "S12", "S18", "S19b", "S22")
# No growth limit: a cluster of ten nodes that grows by three hundred is what is tried here.
SPEC = {"mode": "Enforce", "rate": RATE, "maxInitialising": MOST, "growth": {"above": 1_000}}


def newcomers(count: int) -> list[NodeSpec]:
    here = {spec.name for spec in build_fleet(1, 8)}
    whole = build_fleet(12, 30, infer=0, buffer=0, system=0)
    return [dataclasses.replace(spec, gate=GATE_KEY) for spec in whole if spec.name not in here][:count]


@pytest.fixture
def storm(control_plane_binaries: Binaries, tmp_path: Path) -> Iterator[Stage]:
    """A small cluster with joins in Enforce, and more work than it has room for."""
    with Stage(tmp_path / "stage", control_plane_binaries, specs=build_fleet(1, 8)) as stage:
        for manifest in ("rbac.yaml", "node-status.yaml"):
            stage.cluster.kubectl("apply", "-f", str(DEPLOY / "components/joins" / manifest))
        stage.patch_policy({"joins": SPEC, "exporter": {"period": "15s"}})
        submit_workload(stage.api, Workload(trainers=MOST, gang=0, frontends=0))
        stage.start_controller()
        wait_until(lambda: books(stage).get("since"), timeout_s=60, what="the gate to be in force")
        yield stage


def books(stage: Stage) -> dict[str, Any]:
    return dict(stage.api.get(POLICY).get("status", {}).get("joins", {}))


def inside(node: dict[str, Any]) -> datetime | None:
    """When it was let in."""
    uid, _, at = node["metadata"].get("annotations", {}).get(ANNOTATION_JOINED, "").partition(" ")
    return datetime.fromisoformat(at) if uid == node["metadata"]["uid"] else None


def are_in(stage: Stage) -> int:
    return sum(inside(node) is not None for node in stage.api.list(NODES))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("count", [50, pytest.param(MOST, marks=pytest.mark.long)])
def test_nodes_that_join_at_once_are_let_in_at_the_rate(storm: Stage, count: int) -> None:
    """Judged by the audit log; and no pod of the workload is bound to a node before its gate opens."""
    new = newcomers(count)
    for spec in new:
        storm.exporters.add(spec.machine)
    fleet.apply_fleet(storm.api, new)
    screen = subprocess.run(
        [sys.executable, "-m", "remediator", "joins", "--kubeconfig", str(storm.cluster.kubeconfig)],
        capture_output=True, text=True, timeout=120, check=True,
    ).stdout  # fmt: skip
    wait_until(lambda: are_in(storm) == count, timeout_s=400, every_s=5.0, what="all to be in")

    assert "joins Enforce" in screen
    profile = load_profile("remediator")
    assert profile.own is not None
    keys = (*profile.own.keys, *storm.api.get(POLICY)["spec"].get("nodeKeys", ()), GATE_KEY)
    profile = replace(profile, own=replace(profile.own, keys=keys), joins=LIMIT)
    report = check(read_records(storm.audit.path), profile)
    told = {each.rule: (each.answer, each.findings) for each in report.verdicts if each.rule in RULES}
    assert told == {rule: ("held", ()) for rule in RULES}
    assert next(each.judged for each in report.verdicts if each.rule == "S18") == count
    assert workload_came_after(storm) > count // 2, "else nothing was tried"


def workload_came_after(stage: Stage) -> int:
    """How many of its pods run on new nodes; each was bound no sooner than its node was let in."""
    opened = {node["metadata"]["name"]: inside(node) for node in stage.api.list(NODES)}
    bound = 0
    for pod in stage.api.list("/api/v1/namespaces/workload/pods"):
        at = opened.get(pod["spec"].get("nodeName", ""))
        if at is None or pod["metadata"]["ownerReferences"][0]["kind"] == "DaemonSet":
            continue  # those of DaemonSets tolerate everything
        scheduled = next(c for c in pod["status"]["conditions"] if c["type"] == "PodScheduled")
        bound += 1
        # Both are whole seconds, and the mark is the clock of before the patch.
        assert datetime.fromisoformat(scheduled["lastTransitionTime"]) >= at, json.dumps(pod["metadata"])
    return bound
