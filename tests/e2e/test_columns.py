"""What `kubectl get` shows of a cluster in the middle of a run: no column is empty that has an answer."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from remediator.fleet.repairs import (
    Reboot,
)
from remediator.testbed.stage import GROUP, Stage
from remediator.testbed.waiting import wait_until

GOLDEN = Path(__file__).parent / "golden"
VICTIM = "gpu-a-01"
AGE = re.compile(r"\b\d+(?:m\d+)?s( *)$|\b\d+(?:m\d+)?s( +)", re.MULTILINE)


@pytest.fixture
def mid_run(shared_stage: Stage) -> Stage:
    """One node under repair for as long as the tests need, one playbook paused without a name."""
    stage = shared_stage
    stage.player.plan(VICTIM, Reboot(late_s=600.0))
    stage.exporters.inject_xid(VICTIM, 5, 79)
    stage.wait_run(VICTIM, "Repairing", timeout_s=60)
    pause = {"spec": {"pause": {"reason": "stop"}}}
    stage.api.merge_patch(f"{GROUP}/playbooks/kernel-deadlock", pause)
    return stage


def shown(stage: Stage) -> str:
    """All five kinds as a person reads them, ages masked."""
    wanted = "rmd,rpool,mnode,rpb,rpol"
    text = stage.cluster.kubectl("get", wanted).stdout
    return AGE.sub(lambda found: "AGE" + (found[1] or found[2] or ""), text).replace("\r", "")


def squeezed(text: str) -> list[list[str]]:
    return [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]


@pytest.mark.timeout(180)
def test_cluster_in_mid_run_reads_as_its_golden(mid_run: Stage) -> None:
    """The columns are what most people ever see of us."""
    golden = squeezed((GOLDEN / "kubectl-get.txt").read_text("utf-8"))

    # Pools and playbooks are counted every five seconds.
    wait_until(
        lambda: squeezed(shown(mid_run)) == golden,
        timeout_s=30,
        every_s=1.0,
        what="the cluster to read as its golden",
        detail=lambda: f"\n{shown(mid_run)}",
    )
