"""What a dead leader could have left: named by `status`, taken back by the next one, an Event for each."""

from __future__ import annotations

import pytest

from remediator.testbed.stage import NODES, POLICY, Stage
from remediator.testbed.waiting import now, wait_until
from tests.e2e import verdict

MARKED = "gpu-a-03"
BY_GRANT = "gpu-b-03"


@pytest.mark.timeout(180)
def test_what_nobody_owns_is_named_and_taken_back(stage: Stage) -> None:
    """Marks of a run that is nowhere, and a grant of another: no story would leave them, a person might."""
    stage.stop_controller()
    stage.api.merge_patch(
        f"{NODES}/{MARKED}",
        {
            "metadata": {"annotations": {"remediator.dev/run": "gone-7/fence", "remediator.dev/prior": "{}"}},
            "spec": {
                "unschedulable": True,
                "taints": [
                    {"key": verdict.QUARANTINE, "value": "gpu-bus", "effect": "NoSchedule"},
                    *(stage.node(MARKED)["spec"].get("taints") or []),
                ],
            },
        },
    )
    grant = {
        "run": "gone-8",
        "uid": stage.node(BY_GRANT)["metadata"]["uid"],
        "pool": "train",
        "spare": "gpu-b-08",
        "at": now().isoformat().replace("+00:00", "Z"),
    }
    stage.api.merge_patch(POLICY, {"status": {"grants": [grant]}}, subresource="status")

    assert verdict.orphans(stage) == [
        f"{MARKED}: remediator.dev/prior, remediator.dev/quarantine, remediator.dev/run",
        "grant of gone-8",
    ]
    said = " ".join(stage.cli("status").stdout.split())
    assert f"{MARKED} carries marks of gone-7, which nobody owns" in said
    assert "gone-8 has a grant and keeps spare gpu-b-08, and is no open run" in said

    stage.start_controller(pages=False)
    verdict.assert_custody(stage)

    verdict.assert_nothing_leaks(stage, MARKED)
    wait_until(lambda: "OrphanSwept" in stage.told(MARKED), timeout_s=60, what="the Event of the marks")
    wait_until(lambda: "GrantDropped" in stage.told(BY_GRANT), timeout_s=60, what="the Event of the grant")
    assert "which nobody owns" not in stage.cli("status").stdout
