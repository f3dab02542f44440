"""Machines that are out come back by a person's word and by proof: retry, return, and what they refuse."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from remediator.core.ledger import number_of
from remediator.fleet.repairs import (
    JobEnds,
)
from remediator.testbed.stage import Stage
from remediator.testbed.waiting import wait_until
from tests.e2e import verdict

pytestmark = pytest.mark.timeout(240)

BLOCKED = 11


def said(done: subprocess.CompletedProcess[str], code: int = 0) -> str:
    """What the command said, on whichever stream its exit code demands."""
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done.stderr if code else done.stdout


def test_retry_repairs_a_machine_whose_first_repair_failed(shared_stage: Stage, victim: str) -> None:
    """The whole playbook once more, behind the same fence, and no second spare for one place."""
    stage = shared_stage
    stage.player.plan(victim, job=JobEnds.FAILS)
    stage.exporters.inject_xid(victim, 3, 79)
    failed = stage.wait_run(victim, "Failed", timeout_s=90)
    stage.wait_ledger(failed["spec"]["machine"], "Out")
    spares = buffer_of(stage)

    stage.player.plan(victim)
    said(stage.cli("retry", failed["metadata"]["name"], "--wait", "--timeout", "90s"))

    again = stage.wait_run(victim, "Returned", number=2, timeout_s=20)
    assert (again["spec"]["trigger"], again["spec"]["by"]) == ("Return", "admin")
    assert buffer_of(stage) == {*spares, victim}, "nobody else has moved"
    verdict.assert_nothing_leaks(stage, victim)
    assert "no run keeps" in said(stage.cli("retry", failed["metadata"]["name"]), 1)


def test_return_waits_for_proof_and_joins_the_pool_that_was_named(shared_stage: Stage, victim: str) -> None:
    """A person's word begins it, the machine's own signals end it; who stops it leaves the fence."""
    stage = shared_stage
    stage.exporters.set_gauge(victim, 1, "DCGM_FI_DEV_ROW_REMAP_FAILURE", 1)
    first = stage.wait_run(victim, "HandedOff", timeout_s=90)
    stage.wait_ledger(first["spec"]["machine"], "Out")
    assert f"remediator return {victim}" in " ".join(said(stage.cli("why", victim)).split())

    said(stage.cli("return", victim, "--to", "train", "--playbook", "gpu-off-bus"))
    wait_until(
        lambda: "still true" in newest(stage, victim).get("status", {}).get("waitsFor", ""),
        timeout_s=30,
        what="the proof to fail",
    )
    assert "is under way" in said(stage.cli("retry", newest(stage, victim)["metadata"]["name"]), BLOCKED)
    said(stage.cli("cancel", victim, "--reason", "the board has not come"))
    stage.wait_run(victim, "Cancelled", number=2, timeout_s=60)
    assert verdict.taint_of(stage.node(victim)) is not None
    assert stage.node(victim)["spec"]["unschedulable"]

    stage.exporters.heal(victim)
    asked = ("return", victim, "--to", "train", "--playbook", "gpu-off-bus", "--wait", "--timeout", "60s")
    assert "return to pool train requested" in said(stage.cli(*asked))
    stage.wait_run(victim, "Returned", number=3, timeout_s=20)
    assert verdict.pool_of(stage.node(victim)) == "train"
    verdict.assert_nothing_leaks(stage, victim)


def test_way_back_of_a_machine_that_is_not_out_is_refused(shared_stage: Stage, victim: str) -> None:
    """Nothing is written where there is nothing to give back."""
    stage = shared_stage

    assert f"no run keeps {victim} out" in said(stage.cli("return", victim, "--to", "train"), 1)
    assert "no run, or node with one" in said(stage.cli("retry", victim), 1)
    assert stage.runs(victim) == []


def test_return_into_no_pool_names_those_there_are(shared_stage: Stage, victim: str) -> None:
    """A typo is told at once, not found by the leader."""
    stage = shared_stage
    stage.exporters.set_gauge(victim, 1, "DCGM_FI_DEV_ROW_REMAP_FAILURE", 1)
    run = stage.wait_run(victim, "HandedOff", timeout_s=90)
    stage.wait_ledger(run["spec"]["machine"], "Out")

    assert "did you mean train" in said(stage.cli("return", victim, "--to", "trian"), 1)
    assert len(stage.runs(victim)) == 1


def newest(stage: Stage, node: str) -> dict[str, Any]:
    return max(stage.runs(node), key=lambda run: number_of(run["metadata"]["name"]))


def buffer_of(stage: Stage) -> set[str]:
    return {spec.name for spec in stage.specs if verdict.pool_of(stage.node(spec.name)) == "buffer"}
