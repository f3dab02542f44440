"""A kubelet falls silent: the place is filled, and what ran there waits for proof that the machine is off."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from remediator.fleet.workloads import (
    STATEFUL_SET,
    Workload,
)
from remediator.testbed.binaries import Binaries
from remediator.testbed.components import Options
from remediator.testbed.node_edits import NODES, edit_taints
from remediator.testbed.stage import GROUP, Stage
from remediator.testbed.waiting import wait_until
from tests.e2e import verdict

PODS = "/api/v1/namespaces/workload/pods"
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
FENCED = "remediator.dev/fenced"
SILENT_S = 90.0  # lease, grace and monitor period of the control plane, and two busy cores
FOR_S = 20  # longer than it takes until the last node of a silent zone is missed


@dataclass(frozen=True, slots=True)
class Silenced:
    """A node whose run waits for proof, and the StatefulSet's pod that hangs on it."""

    stage: Stage
    node: str
    number: int
    uid: str

    @property
    def pod(self) -> dict[str, Any] | None:
        return self.stage.api.find(f"{PODS}/{STATEFUL_SET}-{self.number}")

    @property
    def hangs(self) -> bool:
        """Kubernetes wants the pod gone, and nobody ends it."""
        seen = self.pod
        return seen is not None and "deletionTimestamp" in seen["metadata"] and not self.moved

    @property
    def moved(self) -> bool:
        seen = self.pod
        return seen is None or str(seen["metadata"]["uid"]) != self.uid

    def wait_elsewhere(self) -> None:
        def runs() -> bool:
            seen = self.pod
            return self.moved and seen is not None and seen["status"]["phase"] == "Running"

        wait_until(runs, timeout_s=90, what="the pod to run elsewhere", detail=self.stage.log_tail)


@pytest.fixture(scope="module")
def silent_stage(
    control_plane_binaries: Binaries, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """A fleet whose control plane notices silence within seconds, and marks pods five seconds later."""
    options = Options.quick(toleration_s=5)
    workload = Workload(trainers=0, gang=0, frontends=4, daemon_sets=False)
    directory = tmp_path_factory.mktemp("silent") / "stage"
    with Stage(directory, control_plane_binaries, workload=workload, options=options) as found:
        found.patch_playbook("node-unreachable", {"limits": {"maxConcurrent": 4}})
        found.start_controller()
        yield found
        verdict.assert_custody(found)


@pytest.fixture(scope="module")
def silenced(silent_stage: Stage) -> Sequence[Silenced]:
    """Four nodes that fell silent together, each with a pod; all of their runs wait for proof."""
    stage = silent_stage
    found = []
    for number in range(4):
        pod = stage.api.get(f"{PODS}/{STATEFUL_SET}-{number}")
        found.append(Silenced(stage, pod["spec"]["nodeName"], number, pod["metadata"]["uid"]))
    for each in found:
        stage.hardware.go_silent(each.node)
    for each in found:
        wait_for_proof(stage, each.node)
    wait_until(lambda: all(each.hangs for each in found), timeout_s=60, what="Kubernetes' own taint eviction")
    return found


def out_of_service(stage: Stage, node: str) -> bool:
    return any(taint["key"] == OUT_OF_SERVICE for taint in stage.node(node)["spec"].get("taints") or [])


def wait_for_proof(stage: Stage, node: str) -> None:
    """Wait until the node's run says that it needs proof."""
    stage.wait_run(node, "Blocked", timeout_s=SILENT_S)
    wait_until(
        lambda: "FencingRequired" in {each["type"] for each in stage.runs(node)[0]["status"]["conditions"]},
        timeout_s=30,
        what="the condition FencingRequired",
    )


def marks(stage: Stage, node: str) -> list[int]:
    """Revisions of our patches that put out-of-service on the node."""
    found = []
    for record in verdict.node_patches(stage, node):
        taints = verdict.patch_of(record).get("spec", {}).get("taints") or []
        if any(taint["key"] == OUT_OF_SERVICE for taint in taints):
            found.append(verdict.revision(record))
    return found


@pytest.mark.timeout(240)
def test_places_are_filled_and_no_pod_is_touched_without_proof(silenced: Sequence[Silenced]) -> None:
    """The pool has its capacity back; what hangs, hangs: nobody knows whether it still runs."""
    stage = silenced[0].stage
    pools = [verdict.pool_of(node) for node in stage.api.list(NODES)]

    assert pools.count("infer") == 12, "four spares have come, four dead machines are members still"
    assert all(each.hangs for each in silenced), "nothing was started elsewhere"
    assert not [mark for each in silenced for mark in marks(stage, each.node)]
    assert not verdict.our_writes(stage, "pods"), "an eviction would never end"


@pytest.mark.timeout(240)
@pytest.mark.parametrize("proof", ["a person's word", "the provider's"])
def test_stateful_pod_comes_back_only_after_proof(silenced: Sequence[Silenced], proof: str) -> None:
    """Two machines that write one volume destroy it; so the pod waits, and the place does not."""
    hung = silenced[0 if proof == "a person's word" else 1]
    stage, node = hung.stage, hung.node
    assert hung.hangs
    if proof == "a person's word":
        uid = stage.node(node)["metadata"]["uid"]
        said = stage.api.merge_patch(f"{NODES}/{node}", {"metadata": {"annotations": {FENCED: uid}}})
    else:
        said = shut_down(stage, node)
    proved_at = int(said["metadata"]["resourceVersion"])
    hung.wait_elsewhere()

    assert marks(stage, node)
    assert all(revision > proved_at for revision in marks(stage, node)), "proof first"

    start_again(stage, node)
    stage.wait_run(node, "Returned", timeout_s=90)
    assert not out_of_service(stage, node)
    verdict.assert_nothing_leaks(stage, node)


def shut_down(stage: Stage, node: str) -> dict[str, Any]:
    """What the cloud's node controller does when the provider says that the instance is off."""
    taint = {"key": "node.cloudprovider.kubernetes.io/shutdown", "effect": "NoSchedule"}
    return edit_taints(stage.api, node, lambda taints: [*taints, taint])


def start_again(stage: Stage, node: str) -> None:
    """The provider starts the machine; its taint goes, and the kubelet speaks."""

    def without(taints: list[Any]) -> list[Any]:
        return [each for each in taints if "cloudprovider" not in each["key"]]

    edit_taints(stage.api, node, without)
    stage.hardware.come_back(node)


@pytest.mark.timeout(240)
def test_node_that_returns_by_itself_is_drained_and_returned(silenced: Sequence[Silenced]) -> None:
    """It was cut off, not dead: its pods are ended by its own kubelet, and no proof is ever needed."""
    hung = silenced[2]
    stage = hung.stage
    assert hung.hangs

    stage.hardware.come_back(hung.node)
    stage.wait_run(hung.node, "Returned", timeout_s=120)

    assert hung.moved
    assert not marks(stage, hung.node)
    verdict.assert_nothing_leaks(stage, hung.node)


@pytest.mark.timeout(240)
def test_deleted_node_ends_the_run_and_frees_its_pods(silenced: Sequence[Silenced]) -> None:
    """The provider deletes the Node of an instance that is no more: that is proof for Kubernetes itself."""
    hung = silenced[3]
    stage = hung.stage
    machine = stage.runs(hung.node)[0]["spec"]["machine"]
    assert hung.hangs

    stage.hardware.delete_node(hung.node)
    stage.wait_run(hung.node, "NodeGone", timeout_s=60)
    stage.wait_ledger(machine, "Out")
    hung.wait_elsewhere()


@pytest.mark.timeout(300)
def test_half_a_zone_that_falls_silent_is_not_believed(silent_stage: Stage) -> None:
    """A cut network looks like many dead machines: blind means still, with every Lease run out."""
    stage = silent_stage
    zone = [
        node["metadata"]["name"]
        for node in stage.api.list(NODES)
        if node["metadata"]["labels"].get("topology.kubernetes.io/zone") == "zone-2"
        and verdict.pool_of(node) == "train"
    ]
    matcher = stage.api.get(f"{GROUP}/playbooks/node-unreachable")["spec"]["match"]["anyOf"][0]
    stage.patch_playbook("node-unreachable", {"match": {"anyOf": [{**matcher, "for": f"{FOR_S}s"}]}})
    before = {run["metadata"]["name"] for run in stage.runs()}
    patches = len(verdict.our_writes(stage, "nodes", ""))
    for node in zone:
        stage.hardware.go_silent(node)

    def all_silent() -> bool:
        ready = {node["metadata"]["name"]: node["status"]["conditions"] for node in stage.api.list(NODES)}
        return all(
            any(each["type"] == "Ready" and each["status"] == "Unknown" for each in ready[name])
            for name in zone
        )

    wait_until(all_silent, timeout_s=SILENT_S, what=f"{len(zone)} nodes to be Unknown")

    def all_confirmed() -> bool:
        return {line["node"] for line in stage.controller.lines("fault confirmed")} >= set(zone)

    wait_until(all_confirmed, timeout_s=FOR_S + 30, what="each of them to be silent for long enough")
    said = stage.cli("why", zone[0], "--playbook", "node-unreachable").stdout
    assert "ZoneSilent" in said, "the gate says so"
    assert {run["metadata"]["name"] for run in stage.runs()} == before, "no run"
    assert len(verdict.our_writes(stage, "nodes", "")) == patches, "no write to any node"
