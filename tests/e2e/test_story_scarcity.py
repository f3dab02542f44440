"""Story 4: more faults than spares or budget. The declared policy happens, and says so."""

from __future__ import annotations

import pytest

from remediator.adapters.audit import AuditRecord
from remediator.fleet.repairs import (
    JobEnds,
)
from remediator.testbed.stage import LEDGERS, NODES, POLICY, Stage
from remediator.testbed.waiting import wait_until
from tests.e2e import verdict

TRAIN = ("gpu-a-01", "gpu-b-01", "gpu-c-01")


def cordon_buffer(stage: Stage, but: int) -> None:
    """Take all spares but the first ``but`` away, as an operator would."""
    names = [f"gpu-{rack}-08" for rack in "abcdefgh"]
    for name in names[but:]:
        stage.api.merge_patch(f"{NODES}/{name}", {"spec": {"unschedulable": True}})


def waiting(stage: Stage, node: str) -> str:
    """The gate that holds this node's request back, as the ledger shows it."""
    for ledger in stage.api.list(LEDGERS):
        status = ledger.get("status", {})
        if status.get("node") == node and "request" in status:
            return str(status["request"]["blockedBy"])
    return ""


@pytest.mark.timeout(180)
def test_two_faults_and_one_spare_end_in_one_swap(stage: Stage) -> None:
    """A spare is used once; the soft fault without one waits untouched, and says for what."""
    cordon_buffer(stage, but=1)
    stage.patch_playbook("gpu-row-remap", {"limits": {"maxConcurrent": 2}})  # else it would wait for that
    for node in TRAIN[:2]:
        stage.player.plan(node, job=JobEnds.HANGS)  # a repaired node would be a spare again
        stage.exporters.set_gauge(node, 1, "DCGM_FI_DEV_ROW_REMAP_PENDING", 1)

    wait_until(lambda: any(stage.runs(node) for node in TRAIN[:2]), timeout_s=60, what="the first run")
    chosen = next(node for node in TRAIN[:2] if stage.runs(node))
    other = next(node for node in TRAIN[:2] if node != chosen)
    wait_until(
        lambda: waiting(stage, other) == "NoSpareReady",
        timeout_s=90,
        what=f"{other} to wait for a spare",
        detail=lambda: stage.cli("why", other).stdout,
    )

    assert verdict.taint_of(stage.node(other)) is None, "spare first: nothing is done without one"
    assert not verdict.node_patches(stage, other)
    members = [node for node in stage.api.list(NODES) if verdict.pool_of(node) == "train"]
    spares = [node["metadata"]["name"] for node in members if node["metadata"]["name"].endswith("-08")]
    assert spares == ["gpu-a-08"]


@pytest.mark.timeout(180)
def test_budget_of_two_lets_two_of_three_go(stage: Stage) -> None:
    """At no instant does the controller keep more nodes out than the pool's budget allows."""
    cordon_buffer(stage, but=0)  # a node that is replaced is not out any more
    wide = {"maxConcurrent": 6, "rate": {"count": 60, "per": "1h", "burst": 6}}
    stage.patch_playbook("gpu-off-bus", {"limits": wide})  # the budget has to be what stops
    stage.patch_pool("train", {"maxUnavailable": {"count": 2}})
    for node in TRAIN:
        stage.player.plan(node, job=JobEnds.HANGS)
        stage.exporters.inject_xid(node, 2, 79)

    wait_until(lambda: sum(bool(stage.runs(node)) for node in TRAIN) >= 2, timeout_s=60, what="two runs")
    held = wait_until(
        lambda: next((node for node in TRAIN if waiting(stage, node)), None),
        timeout_s=90,
        what="one to wait",
        detail=lambda: "\n".join(stage.cli("why", node).stdout for node in TRAIN),
    )
    assert waiting(stage, held) == "MaxUnavailableReached"
    assert verdict.taint_of(stage.node(held)) is None
    assert not verdict.node_patches(stage, held)
    assert verdict.out_max(stage.audit.since()) == 2
    why = stage.cli("why", held)
    assert why.returncode == 11, why.stderr
    assert "MaxUnavailableReached" in why.stdout


@pytest.mark.timeout(180)
def test_hard_fault_without_any_spare_goes_without(stage: Stage) -> None:
    """A lost GPU is quarantined all the same: its playbook declares noSpare: WithoutSpare."""
    cordon_buffer(stage, but=0)
    stage.exporters.inject_xid(TRAIN[0], 4, 79)
    run = stage.wait_run(TRAIN[0], "Returned", timeout_s=120)

    swap = next(step for step in run["status"]["steps"] if step["action"] == "swap")
    assert swap["state"] == "Skipped"
    assert "WithoutSpare" in swap["note"]
    assert verdict.pool_of(stage.node(TRAIN[0])) == "train", "its place was not filled: it comes back to it"


@pytest.mark.timeout(180)
def test_faults_all_over_open_the_breaker(stage: Stage) -> None:
    """Many nodes with one fault at once are one cause: no new harm, and one record of it."""
    nodes = [f"gpu-{rack}-0{number}" for rack in "abcdef" for number in (1, 2)]
    for node in nodes:
        stage.hardware.set_condition(node, "KernelDeadlock", "True", "Storm")

    def opened() -> bool:
        breakers = stage.api.get(POLICY).get("status", {}).get("breakers", [])
        return any(state["state"] == "Open" for state in breakers)

    wait_until(opened, timeout_s=60, what="the breaker to open")
    wait_until(lambda: not opened(), timeout_s=120, every_s=1.0, what="the breaker to half-open")

    books = verdict.landed(verdict.our_writes(stage, "remediationpolicies", "status"))
    opening = min((each for each in books if opens(each)), key=verdict.revision)
    later = [each for each in books if verdict.revision(each) > verdict.revision(opening)]
    closing = min((each for each in later if not opens(each)), key=verdict.revision)
    for each in later:
        if verdict.revision(each) < verdict.revision(closing):
            assert granted_in(each) <= granted_in(opening), "no new grant while it is open"
    begun = verdict.landed(verdict.our_writes(stage, "remediations", ""))
    meanwhile = {
        verdict.patch_of(each)["metadata"]["name"]
        for each in begun
        if each.verb == "create"
        and verdict.revision(opening) < verdict.revision(each) < verdict.revision(closing)
    }
    # A record is sent beside the grant that it belongs to: that of the trial may land just before it.
    assert meanwhile <= granted_in(opening) | granted_in(closing)
    assert verdict.out_max(stage.audit.since()) <= 4, "never more than the pool's budget, storm or not"


def granted_in(record: AuditRecord) -> set[str]:
    """The runs that hold a grant after this write of the policy's status."""
    return {grant["run"] for grant in verdict.patch_of(record).get("status", {}).get("grants", [])}


def opens(record: AuditRecord) -> bool:
    """Does this write of the policy's status leave a breaker open?"""
    breakers = verdict.patch_of(record).get("status", {}).get("breakers", [])
    return any(each["state"] == "Open" for each in breakers)
