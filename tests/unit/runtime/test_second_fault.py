"""A second fault on a machine that is under repair: told once, and no second run."""

from __future__ import annotations

import pytest

from remediator.model.playbook import Match, Matcher, NodeConditionMatch
from tests.unit.runtime.rig import BROKEN, Rig, hard

OTHER = "DiskBroken"


def other_book():
    matcher = Matcher(id="disk", node_condition=NodeConditionMatch(type=OTHER, status="True"))
    return hard(match=Match(any_of=(matcher,)), name="disk", fault_class="disk.bad")


@pytest.mark.asyncio
async def test_second_fault_joins_the_open_run():
    """One machine, one run; but whoever looks at the node learns that more is wrong."""
    rig = Rig(playbooks=[hard(), other_book()])
    rig.break_node("gpu-1")
    rig.diagnoses.look("gpu-1")
    await rig.fleet_pass()
    both = [{"type": name, "status": "True"} for name in ("Ready", BROKEN, OTHER)]
    rig.change("nodes", "gpu-1", {"status": {"conditions": both}})
    rig.diagnoses.look("gpu-1")

    for _ in range(3):
        await rig.fleet_pass()

    assert len(rig.runs()) == 1
    assert rig.told().count("FaultJoined") == 1
