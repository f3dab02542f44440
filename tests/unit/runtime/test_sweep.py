"""The sweep: what nobody owns is taken back, and only what the server itself says nobody owns."""

from __future__ import annotations

import pytest

from remediator.errors import PermanentError, TransientError
from remediator.ports import Refusal
from remediator.runtime.sweep import ORPHAN_FOR_S, PERIOD_S
from tests.unit.runtime.fates import Fails, Refused
from tests.unit.runtime.rig import Rig, hard

RUN = "machine-gpu-1-1"


async def quarantined(*nodes: str) -> Rig:
    """Runs that have tainted their nodes and wait for a budget."""
    rig = Rig(playbooks=[hard("quarantine", "drain")])
    rig.break_node(*(nodes or ("gpu-1",)))
    rig.server.blocked_pods = {"team/a"}
    await rig.fleet_pass()
    for name in list(rig.world.open_runs):
        await rig.turn(name)
    assert rig.quarantined("gpu-1")
    return rig


async def sweep(rig: Rig, seconds: float) -> None:
    """Rounds of the sweep for that long."""
    for _ in range(int(seconds / PERIOD_S) + 1):
        await rig.finish(rig.sweep.once())
        rig.clock.stand_still(PERIOD_S)
        rig.fresh()


@pytest.mark.asyncio
async def test_sweep_leaves_what_a_run_owns():
    """An open run answers for its marks, for as long as it takes."""
    rig = await quarantined()

    await sweep(rig, 60)

    assert rig.quarantined("gpu-1")
    assert not any(read.startswith("run ") for read in rig.server.reads)


@pytest.mark.asyncio
async def test_sweep_restores_the_node_of_a_deleted_run():
    """Who deletes the record wants the node back as it was."""
    rig = await quarantined()
    rig.delete("runs", RUN)

    await sweep(rig, ORPHAN_FOR_S - PERIOD_S)
    assert rig.quarantined("gpu-1")
    assert f"run {RUN}" not in rig.server.reads
    await sweep(rig, PERIOD_S)

    node = rig.server.get("nodes", "gpu-1")
    assert not rig.quarantined("gpu-1")
    assert "unschedulable" not in node["spec"]
    assert set(node["metadata"]["annotations"]) == {"remediator.dev/term"}
    assert rig.taints("gpu-1") == ["nvidia.com/gpu"]
    assert f"run {RUN}" in rig.server.reads
    await rig.fleet_pass()
    assert rig.reasons() == ["VetoHold"]


@pytest.mark.asyncio
async def test_sweep_takes_the_rest_of_marks_that_people_took_in_part():
    """A line in `kubectl describe node` about a run that nobody knows sends people looking for it."""
    rig = await quarantined()
    rig.delete("runs", RUN)
    taken = {"metadata": {"annotations": {"remediator.dev/prior": None}}, "spec": {"taints": []}}
    rig.change("nodes", "gpu-1", taken)
    rig.change("nodes", "gpu-1", {"spec": {"unschedulable": None}})

    await sweep(rig, 30)

    assert set(rig.server.get("nodes", "gpu-1")["metadata"]["annotations"]) == {"remediator.dev/term"}


@pytest.mark.asyncio
async def test_sweep_believes_the_server_and_not_a_lagging_cache():
    """A new leader's cache may not show the run yet: the quarantine stays."""
    rig = await quarantined()
    rig.server.feeds["runs"].store.remove(RUN, 1)  # the cache forgets; the server does not
    assert RUN not in rig.world.open_runs

    await sweep(rig, 30)

    assert rig.quarantined("gpu-1")


@pytest.mark.asyncio
async def test_sweep_does_nothing_while_a_cache_is_not_in_sync():
    """`kubectl delete crd` must not lift every quarantine at once."""
    rig = await quarantined()
    rig.delete("runs", RUN)
    rig.server.feeds["runs"].store.synced = False

    await sweep(rig, 30)

    assert rig.quarantined("gpu-1")


@pytest.mark.asyncio
async def test_sweep_does_nothing_while_the_server_does_not_answer():
    """Not known is not gone."""
    rig = await quarantined()
    rig.delete("runs", RUN)
    rig.server.read_errors.extend([TransientError("reset")] * 100)

    await sweep(rig, 10)

    assert rig.quarantined("gpu-1")


@pytest.mark.asyncio
async def test_sweep_leaves_a_machine_that_is_out():
    """The ended run that keeps it out owns the taint, before and after the ledger says so."""
    rig = Rig(playbooks=[hard("quarantine", "drain", "handoff")])
    rig.break_node()
    await rig.fleet_pass()
    await rig.turn(RUN)
    assert rig.state(RUN) == "HandedOff"

    await sweep(rig, 10)
    await rig.write_ledgers()
    await sweep(rig, 10)

    assert rig.quarantined("gpu-1")


@pytest.mark.asyncio
@pytest.mark.parametrize("fate", [Fails(PermanentError("403", status=403)), Refused(Refusal.CONFLICT)])
async def test_sweep_of_one_node_stops_no_other(fate):
    """A node that can't be written is tried again; the next one is restored now."""
    rig = await quarantined("gpu-1", "gpu-2")
    for name in list(rig.runs()):
        rig.delete("runs", name)
    rig.server.fate("PatchNode", fate)

    await sweep(rig, ORPHAN_FOR_S)

    assert rig.quarantined("gpu-1")
    assert not rig.quarantined("gpu-2")


@pytest.mark.asyncio
async def test_sweep_restores_after_a_restart():
    """The dead leader's leftovers are the new one's affair."""
    rig = await quarantined()
    rig.delete("runs", RUN)

    rig.again()
    await sweep(rig, ORPHAN_FOR_S)

    assert not rig.quarantined("gpu-1")


@pytest.mark.asyncio
async def test_sweep_run_that_appears_resets_the_clock():
    """Twice the same in four seconds means without a break."""
    rig = await quarantined()
    obj = rig.server.get("runs", RUN)
    rig.delete("runs", RUN)
    await sweep(rig, 0)
    rig.server.put("runs", RUN, obj)
    rig.server.flush()
    await sweep(rig, 10)

    assert rig.quarantined("gpu-1")
