"""A second fault on a machine that is under repair: told once, and no second run."""

from __future__ import annotations

import pytest

from remediator.model.playbook import Match, Matcher, NodeConditionMatch
from tests.unit.runtime.rig import BROKEN, Rig, hard, soft

OTHER = "DiskBroken"


def other_book(**fields):
    matcher = Matcher(id="disk", node_condition=NodeConditionMatch(type=OTHER, status="True"))
    return hard(match=Match(any_of=(matcher,)), name="disk", fault_class="disk.bad", **fields)


def break_it_too(rig):
    both = [{"type": name, "status": "True"} for name in ("Ready", BROKEN, OTHER)]
    rig.change("nodes", "gpu-1", {"status": {"conditions": both}})
    rig.diagnoses.look("gpu-1")


@pytest.mark.asyncio
async def test_second_fault_joins_the_open_run():
    """One machine, one run; but whoever looks at the node learns that more is wrong."""
    rig = Rig(playbooks=[hard(), other_book()])
    rig.break_node("gpu-1")
    rig.diagnoses.look("gpu-1")
    await rig.fleet_pass()
    break_it_too(rig)

    for _ in range(3):
        await rig.fleet_pass()

    assert len(rig.runs()) == 1
    assert rig.told().count("FaultJoined") == 1


async def stranded(**fields):
    """A soft run whose spare is lost after its grant, and another fault on its machine."""
    rig = Rig(playbooks=[soft(), other_book(**fields)], spares=1)
    rig.break_node("gpu-1")
    await rig.fleet_pass()
    (name,) = rig.runs()
    rig.delete("nodes", "spare-1")
    for _ in range(3):
        await rig.round()
    assert not rig.quarantined("gpu-1"), "a soft fault waits for its spare"
    break_it_too(rig)
    for _ in range(3):
        await rig.round()
    return rig, name


@pytest.mark.asyncio
async def test_hard_fault_takes_the_machine_of_a_soft_run_out_at_once():
    """The soft run may wait ten minutes for a spare, and a day for pods; the job is dead meanwhile."""
    rig, name = await stranded()

    assert list(rig.runs()) == [name]
    assert rig.quarantined("gpu-1")
    assert rig.run_status(name).raised_by == "disk.bad: DiskBroken=True"


@pytest.mark.asyncio
@pytest.mark.parametrize("fields", [{"mode": "Audit"}, {"severity": "Soft"}], ids=["in Audit", "soft"])
async def test_fault_that_nobody_would_act_on_in_a_hurry_raises_nothing(fields):
    """Audit promises that its playbook changes nothing."""
    rig, name = await stranded(**fields)

    assert not rig.quarantined("gpu-1")
    assert rig.run_status(name).raised_by == ""
