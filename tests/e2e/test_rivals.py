"""Others work on the same nodes: what is theirs is never lost, and each knows its own affair."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Any, Final

import pytest

from remediator.adapters.audit import AuditRecord, writes
from remediator.fleet.repairs import (
    JobEnds,
)
from remediator.testbed.api import Api, ApiError
from remediator.testbed.stage import NODES, USER, Stage
from remediator.testbed.waiting import wait_until
from remediator.testbed.write_faults import Fate, read_journal
from tests.e2e import verdict

RIVAL_TAINT: Final = "rival.example.com/busy"
UPGRADE: Final = "nvidia.com/gpu-driver-upgrade-state"
PERIOD_S: Final = 0.1


class Rival:
    """Puts a taint of its own on a node and takes it away again, ten times a second, as others do.

    It reads, changes the list and writes it back with the version that it read; on a conflict it
    reads again. The default of most controllers.
    """

    def __init__(self, api: Api, node: str) -> None:
        self._api = api
        self._path = f"{NODES}/{node}"
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rival", daemon=True)
        self.writes = 0

    def __enter__(self) -> Rival:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(20)
        self._put(present=False)

    def _run(self) -> None:
        present = False
        while not self._stopping.wait(PERIOD_S):
            present = not present
            self._put(present=present)

    def _put(self, *, present: bool) -> None:
        for _ in range(100):
            node = self._api.get(self._path)
            taints = [each for each in node["spec"].get("taints") or [] if each["key"] != RIVAL_TAINT]
            if present:
                taints.append({"key": RIVAL_TAINT, "value": "mine", "effect": "PreferNoSchedule"})
            version = node["metadata"]["resourceVersion"]
            body = {"metadata": {"resourceVersion": version}, "spec": {"taints": taints}}
            try:
                self._api.merge_patch(self._path, body)
            except ApiError as error:
                if error.status != HTTPStatus.CONFLICT:
                    raise
                continue
            self.writes += 1
            return
        raise AssertionError(f"{self._path}: a hundred conflicts in a row")


def history(stage: Stage, node: str) -> list[AuditRecord]:
    """Everybody's landed writes of one Node, in the order of its versions."""
    found = [
        record
        for record in writes(stage.audit.since(), resource="nodes", subresource="")
        if record.committed and record.object_ref.name == node and record.verb in ("patch", "update")
    ]
    return sorted(found, key=verdict.revision)


def taint_keys(record: AuditRecord) -> set[str]:
    node = json.loads(bytes(record.response_object))
    return {taint["key"] for taint in node["spec"].get("taints") or []}


def lost_by_us(records: Sequence[AuditRecord]) -> Iterator[AuditRecord]:
    """Writes of ours after which the rival's taint is another than before."""
    before: set[str] = set()
    for record in records:
        after = taint_keys(record)
        if record.username == USER and (RIVAL_TAINT in before) != (RIVAL_TAINT in after):
            yield record
        before = after


@pytest.mark.timeout(180)
def test_foreign_taint_that_comes_and_goes_is_never_lost(shared_stage: Stage, victim: str) -> None:
    """A taints list is written whole: who writes an old one wipes out what came in between."""
    stage = shared_stage
    with Rival(stage.api, victim) as rival:
        stage.exporters.inject_xid(victim, 5, 79)
        stage.wait_run(victim, "Returned", timeout_s=120)

    records = history(stage, victim)
    ours = [record for record in records if record.username == USER]
    assert len(ours) >= 3, "quarantine, detach, return"
    assert rival.writes > 20, "the rival was at work all the time"
    assert [verdict.patch_of(each) for each in lost_by_us(records)] == []
    verdict.assert_nothing_leaks(stage, victim)


@pytest.mark.timeout(180)
def test_drain_by_hand_beside_ours_harms_nobody(full_stage: Stage) -> None:
    """Somebody drains the same node with kubectl: the run goes on, and no pod is evicted twice by us."""
    stage, node = full_stage, "gpu-c-03"
    stage.exporters.inject_xid(node, 5, 79)
    wait_until(lambda: verdict.taint_of(stage.node(node)) is not None, timeout_s=60, what="the quarantine")
    kubectl_drain(stage, node)
    stage.wait_run(node, "Returned", timeout_s=120)

    evicted = [record.object_ref.uid or record.object_ref.name for record in verdict.evicted(stage)]
    assert len(evicted) == len(set(evicted)), "one eviction a pod"
    verdict.assert_nothing_leaks(stage, node)


def kubectl_drain(stage: Stage, node: str) -> None:
    # Our own repair pod stays: whoever drains it away ends the repair, and with it the run.
    ours = ("--pod-selector", "!remediator.dev/repair")
    words = ("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=60s", *ours)
    done: subprocess.CompletedProcess[Any] = stage.cluster.kubectl(*words, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(180)
def test_driver_upgrade_is_left_alone_until_it_ends(shared_stage: Stage, victim: str) -> None:
    """The GPU operator cordons, drains and uncordons: two who do so to one node undo each other."""
    stage = shared_stage
    stage.api.merge_patch(f"{NODES}/{victim}", {"metadata": {"labels": {UPGRADE: "drain-required"}}})
    stage.exporters.inject_xid(victim, 5, 79)
    wait_until(lambda: "OwnedByOther" in stage.cli("why", victim).stdout, timeout_s=30, what="the gate")
    assert not stage.runs(victim)
    assert not verdict.node_patches(stage, victim)

    stage.api.merge_patch(f"{NODES}/{victim}", {"metadata": {"labels": {UPGRADE: "upgrade-done"}}})
    stage.wait_run(victim, "Returned", timeout_s=120)
    assert stage.node(victim)["metadata"]["labels"][UPGRADE] == "upgrade-done"


@pytest.mark.timeout(180)
def test_autoscaler_that_removes_the_node_in_mid_run_ends_the_run(shared_stage: Stage, victim: str) -> None:
    """It marks, then deletes: the run ends, its grant is free, and the spare stays where it is needed."""
    stage, node = shared_stage, victim
    stage.player.plan(node, job=JobEnds.HANGS)
    stage.exporters.inject_xid(node, 5, 79)
    run = stage.wait_run(node, "Repairing", timeout_s=90)
    spare = run["status"]["spare"]["name"]
    before = len(verdict.our_writes(stage, "nodes", ""))
    stage.cluster.kubectl("taint", "node", node, "ToBeDeletedByClusterAutoscaler=1:NoSchedule")
    stage.hardware.delete_node(node, keep_pods=False)

    stage.wait_run(node, "NodeGone", timeout_s=60)
    assert verdict.pool_of(stage.node(spare)) == "train"
    assert len(verdict.our_writes(stage, "nodes", "")) == before, "nothing more is written to any node"
    uid = run["spec"]["node"]["uid"]
    wait_until(lambda: uid not in verdict.granted(stage), timeout_s=60, what="the grant to be free")


@pytest.mark.timeout(240)
def test_autoscaler_that_removes_the_reserved_spare_costs_only_time(shared_stage: Stage, victim: str) -> None:
    """Deleted between the grant and the hand-over: another spare takes the place, and only one does."""
    stage, point = shared_stage, "PATCH nodes of swap"
    journal = stage.directory / "reserved.journal"
    stage.stop_controller()
    program = (
        "remediator.testbed.faulty_controller", "--journal", str(journal), "--point", point,
        "--fate", Fate.FROZEN.value,
    )  # fmt: skip
    stage.start_controller(program=program, lease_seconds=60.0)
    try:
        before = members(stage)
        stage.exporters.set_gauge(victim, 1, "DCGM_FI_DEV_ROW_REMAP_PENDING", 1)
        wait_until(
            lambda: (point, Fate.FROZEN.value) in read_journal(journal),
            timeout_s=60,
            what="the controller to stand still before the hand-over",
            detail=stage.log_tail,
        )
        (run,) = stage.runs(victim)
        reserved = run["spec"]["spare"]["name"]
        stage.hardware.delete_node(reserved, keep_pods=False)
        stage.controller.thaw()

        returned = stage.wait_run(victim, "Returned", timeout_s=120)
    finally:
        stage.stop_controller()
        stage.start_controller()
    promoted = members(stage) - before
    assert len(promoted) == 1
    assert returned["status"]["spare"]["name"] in promoted - {reserved}
    assert verdict.pool_of(stage.node(victim)) == "buffer"
    verdict.assert_nothing_leaks(stage, victim)


def members(stage: Stage) -> set[str]:
    """Names of the nodes of the training pool."""
    found = stage.api.list(NODES)
    return {node["metadata"]["name"] for node in found if verdict.pool_of(node) == "train"}
