"""A fault that ends between its run's grant and the first write: nothing is done for it any more."""

from __future__ import annotations

import pytest

from remediator.model.playbook import Match, Matcher, NodeConditionMatch
from tests.unit.runtime.rig import BROKEN, Rig, hard, with_exporter, xid_book

RUN = "machine-gpu-1-1"


@pytest.mark.asyncio
async def test_run_whose_fault_has_ended_before_the_fence_does_nothing():
    """Found by a scenario: while a cache hung, the run waited until it could fence a node that was well."""
    rig = Rig()
    rig.break_node()
    await rig.fleet_pass()
    rig.heal_node()
    await rig.turn(RUN)
    await rig.play(3, seconds=1)

    status = rig.run_status(RUN)
    assert (status.state, status.reason) == ("NotGranted", "FaultOver")
    assert (
        rig.server.get("nodes", "gpu-1")["spec"].get("taints", [])
        == rig.server.get("nodes", "gpu-2")["spec"]["taints"]
    )
    assert rig.granted() == []


@pytest.mark.asyncio
async def test_run_goes_on_once_the_fence_stands():
    """From then on the machine has to prove that it is well."""
    rig = Rig()
    rig.break_node()
    await rig.fleet_pass()
    await rig.turn(RUN)
    rig.heal_node()
    await rig.play()

    assert rig.state(RUN) == "Returned"


@pytest.mark.asyncio
async def test_suspicion_is_not_over():
    """A controller that starts anew sees a condition for a while before it believes in it."""
    lasting = Matcher(id="b", node_condition=NodeConditionMatch(type=BROKEN, status="True"), for_="60s")
    rig = Rig(playbooks=[hard(match=Match(any_of=(lasting,)))])
    rig.break_node()
    rig.diagnose()
    assert rig.diagnoses.faults() == ()
    assert not rig.diagnoses.is_over("gpu-1", "gpu.bad")
    rig.heal_node()
    assert rig.diagnoses.is_over("gpu-1", "gpu.bad")


@pytest.mark.asyncio
async def test_xid_is_never_over_before_the_next_boot():
    """The exporter starts anew and shows 0: the GPU is as broken as before."""
    rig = Rig(playbooks=[xid_book(79)], policy=with_exporter())
    rig.pages.round_complete = True
    for node in sorted(rig.world.nodes):
        rig.page(node)
    await rig.play(3, seconds=1)
    rig.page("gpu-1", 79)
    await rig.fleet_pass()
    rig.page("gpu-1")
    await rig.turn(RUN)

    assert rig.state(RUN) != "NotGranted"
