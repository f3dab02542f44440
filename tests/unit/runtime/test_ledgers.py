"""The machines' memory: what a restart needs is written, once, and never too often."""

from __future__ import annotations

from typing import Any

import pytest

from remediator.errors import PermanentError
from remediator.model.playbook import Match, Matcher, NodeConditionMatch
from remediator.ports import Refusal
from remediator.runtime.ledgers import REQUEST_WRITES_PER_MINUTE
from tests.unit.runtime.fates import Fails, Lost, Refused
from tests.unit.runtime.rig import BROKEN, Rig, hard, roomy, with_exporter, xid_book

RUN = "machine-gpu-1-1"
MACHINE = "machine-gpu-1"
OPEN = {"scope": "class/other", "state": "Open", "since": "2026-01-01T00:16:00Z", "count": 9, "limit": 3}


def saves(rig: Rig) -> int:
    return sum(sent.kind in ("SaveLedger", "CreateLedger") for sent in rig.server.sent)


def told(rig: Rig) -> list[str]:
    """Machines whose ledger tells of a waiting request."""
    return [name for name in rig.server.names("ledgers") if rig.ledger(name).request]


async def waiting(**fields: Any) -> Rig:
    """gpu-1 has a run, gpu-2's request waits for the only grant."""
    rig = Rig(policy=roomy(max_concurrent=1), **fields)
    rig.break_node("gpu-1", "gpu-2")
    await rig.fleet_pass()
    assert rig.reasons() == ["ConcurrencyReached"]
    return rig


@pytest.mark.asyncio
async def test_ledger_of_a_healthy_machine_does_not_exist():
    """The memory is sparse: no story, no object."""
    rig = Rig()

    await rig.write_ledgers()

    assert rig.server.names("ledgers") == []


@pytest.mark.asyncio
async def test_ledger_settles_runs_that_ended_before_a_restart():
    """A crash between a run's end and the memory's write loses nothing."""
    rig = Rig(playbooks=[hard("quarantine", "drain", "handoff")])
    rig.break_node()
    await rig.fleet_pass()
    await rig.turn(RUN)
    assert rig.state(RUN) == "HandedOff"
    assert rig.server.names("ledgers") == []

    rig.again()
    await rig.write_ledgers()

    ledger = rig.ledger(MACHINE)
    assert (ledger.state, ledger.runs, ledger.node) == ("Out", 1, "gpu-1")
    before = saves(rig)
    for _ in range(3):
        await rig.write_ledgers()
    assert saves(rig) == before


@pytest.mark.asyncio
async def test_ledger_keeps_the_clock_of_an_old_suspicion():
    """A signal that needs an hour is not an hour younger after each restart."""
    match = Match(
        any_of=(Matcher(id="b", node_condition=NodeConditionMatch(type=BROKEN, status="True"), for_="1h"),)
    )
    rig = Rig(playbooks=[hard("quarantine", match=match)])
    rig.break_node()
    rig.diagnose()
    await rig.write_ledgers()
    assert rig.server.names("ledgers") == []

    rig.clock.stand_still(40)
    rig.fresh()
    rig.diagnose()
    rig.ledgers.mark(MACHINE)
    await rig.write_ledgers()
    assert len(rig.ledger(MACHINE).suspicions) == 1

    rig.again()
    rig.clock.stand_still(3_600 - 30)
    rig.fresh()
    await rig.fleet_pass()
    assert rig.granted() == [RUN]


@pytest.mark.asyncio
async def test_ledger_tells_of_a_request_that_waits_for_half_a_minute():
    """What waits for a moment is no news; what waits longer says why, once."""
    rig = await waiting()
    await rig.write_ledgers()
    assert rig.server.names("ledgers") == []

    rig.clock.stand_still(31)
    rig.fresh()
    await rig.fleet_pass()
    await rig.write_ledgers()
    request: Any = rig.ledger("machine-gpu-2").request
    assert (request.blocked_by, request.playbook) == ("ConcurrencyReached", "p")
    version = rig.server.get("ledgers", "machine-gpu-2")["metadata"]["resourceVersion"]
    for _ in range(5):
        await rig.fleet_pass()
        await rig.write_ledgers()
    assert rig.server.get("ledgers", "machine-gpu-2")["metadata"]["resourceVersion"] == version


@pytest.mark.asyncio
async def test_ledger_forgets_a_request_that_waits_no_more():
    """The fault has cleared: nobody waits."""
    rig = await waiting()
    rig.clock.stand_still(31)
    rig.fresh()
    await rig.fleet_pass()
    await rig.write_ledgers()

    rig.heal_node("gpu-2")
    await rig.fleet_pass()
    await rig.write_ledgers()

    assert not rig.ledger("machine-gpu-2").request


@pytest.mark.asyncio
async def test_ledger_writes_no_requests_while_a_breaker_is_open():
    """A storm must not become a storm of writes: the breaker's record says it all."""
    rig = await waiting()
    rig.change("policies", "cluster", {"status": {"breakers": [OPEN]}})
    rig.clock.stand_still(31)
    rig.fresh()
    await rig.fleet_pass()

    await rig.write_ledgers()

    assert rig.reasons() == ["ConcurrencyReached"]
    assert told(rig) == []


@pytest.mark.asyncio
async def test_ledger_writes_latches_while_a_breaker_is_open():
    """What a restart needs is written in a storm as well, whatever waits on the same machine."""
    rig = Rig(playbooks=[xid_book(79)], policy=with_exporter(max_concurrent=1))
    rig.change("policies", "cluster", {"status": {"baselined": [79]}})
    for number in range(1, 6):
        rig.page(f"gpu-{number}")
        rig.page(f"gpu-{number}", *([79] if number == 1 else []))
    for number in (1, 2):
        rig.page(f"spare-{number}")
    rig.change("policies", "cluster", {"status": {"breakers": [OPEN | {"scope": "fleet"}]}})
    await rig.fleet_pass()
    assert rig.reasons() == ["BreakerOpen"]
    rig.clock.stand_still(31)
    rig.ledgers.mark(MACHINE)

    await rig.write_ledgers()

    assert [latch.state for latch in rig.ledger(MACHINE).latches] == ["Fault"]
    assert not rig.ledger(MACHINE).request


@pytest.mark.asyncio
async def test_ledger_writes_requests_at_most_sixty_a_minute():
    """A thousand waiting machines are told of over time."""
    rig = Rig(policy=roomy(max_concurrent=1), nodes=REQUEST_WRITES_PER_MINUTE + 12, spares=1)
    rig.break_node(*rig.world.nodes)
    await rig.fleet_pass()
    rig.clock.stand_still(31)
    rig.fresh()
    await rig.fleet_pass()

    await rig.write_ledgers()
    assert len(told(rig)) == REQUEST_WRITES_PER_MINUTE
    rig.clock.stand_still(61)
    rig.fresh()
    await rig.fleet_pass()
    await rig.write_ledgers()

    assert len(told(rig)) == REQUEST_WRITES_PER_MINUTE + 12


@pytest.mark.asyncio
async def test_ledger_keeps_the_veto_of_a_deleted_run():
    """Who deletes a run says: not again for a day; a restart does not change that."""
    rig = Rig(playbooks=[hard("quarantine", "drain")])
    rig.break_node()
    await rig.fleet_pass()
    rig.heal_node()
    rig.delete("runs", RUN)
    rig.diagnose()
    await rig.write_ledgers()

    rig.again()
    rig.break_node()
    await rig.fleet_pass()

    assert rig.reasons() == ["VetoHold"]
    assert rig.runs() == {}
    assert rig.ledger(MACHINE).runs == 1, "the number of a deleted run is never used again"


@pytest.mark.asyncio
async def test_ledger_out_ends_when_a_person_lifts_the_quarantine():
    """The taint belongs to people after a hand-off: without it the machine is back, and we stay away."""
    rig = Rig(playbooks=[hard("quarantine", "drain", "handoff")])
    rig.break_node()
    await rig.play(8, seconds=1)
    assert rig.ledger(MACHINE).state == "Out"

    rig.change("nodes", "gpu-1", {"spec": {"taints": [], "unschedulable": None}})
    await rig.write_ledgers()
    await rig.fleet_pass()

    ledger = rig.ledger(MACHINE)
    assert ledger.state == "Active"
    assert ledger.veto_until == "2026-01-02T00:16:48Z"
    assert rig.reasons() == ["VetoHold"]


@pytest.mark.asyncio
@pytest.mark.parametrize("fate", [Refused(Refusal.CONFLICT), Lost(committed=True), Lost(committed=False)])
async def test_ledger_is_written_again_when_the_write_did_not_land(fate):
    """One bad reply costs a second, not the memory."""
    rig = Rig(playbooks=[hard("quarantine", "drain", "handoff")])
    rig.break_node()
    await rig.fleet_pass()
    await rig.turn(RUN)
    rig.server.fate("CreateLedger", fate)

    for _ in range(3):
        await rig.write_ledgers()

    assert rig.ledger(MACHINE).state == "Out"
    assert len(rig.ledger(MACHINE).history) == 1


@pytest.mark.asyncio
async def test_ledger_of_one_machine_stops_no_other():
    """A ledger that the server refuses is tried again later; the others are written."""
    rig = Rig(playbooks=[hard("quarantine", "drain", "handoff")])
    rig.break_node("gpu-1", "gpu-2")
    await rig.fleet_pass()
    for name in list(rig.world.open_runs):
        await rig.turn(name)
    rig.server.fate("CreateLedger", Fails(PermanentError("422", status=422)))
    loop = rig.background(rig.ledgers.run())

    await rig.clock.advance(1)
    assert rig.server.names("ledgers") == ["machine-gpu-2"]
    assert rig.metrics.counts["remediator_ledger_errors_total"] == 1
    await rig.clock.advance(1)
    loop.cancel()

    assert rig.server.names("ledgers") == ["machine-gpu-1", "machine-gpu-2"]


@pytest.mark.asyncio
async def test_ledger_counts_repairs_before_they_are_written():
    """A second reboot for the same fault is refused though the memory of the first is not stored yet."""
    rig = Rig()
    rig.break_node()
    rig.server.fate("CreateLedger", *[Fails(PermanentError("403", status=403))] * 400)
    for _ in range(12):
        await rig.fleet_pass()
        for name in list(rig.world.open_runs):
            await rig.turn(name)
        rig.clock.stand_still(5)
        rig.fresh()
    assert rig.state(RUN) == "Returned"

    rig.break_node()
    for _ in range(6):
        await rig.fleet_pass()
        for name in list(rig.world.open_runs):
            await rig.turn(name)
        rig.clock.stand_still(5)
        rig.fresh()

    assert rig.state("machine-gpu-1-2") == "HandedOff"
    assert len(rig.server.jobs) == 1


@pytest.mark.asyncio
async def test_ledger_probation_ends_with_its_date():
    """A repaired machine is an ordinary spare after a day."""
    rig = Rig()
    rig.break_node()
    await rig.play()
    assert rig.ledger(MACHINE).state == "Probation"

    rig.clock.stand_still(25 * 3_600)
    rig.fresh()
    await rig.write_ledgers()

    assert rig.ledger(MACHINE).state == "Active"


@pytest.mark.asyncio
async def test_ledger_shows_the_run_under_way_without_a_write_of_its_own():
    """`kubectl get mnode` names the machine's state from the first write on, and not later."""
    rig = Rig(playbooks=[xid_book(79)], policy=with_exporter())
    for node in sorted(rig.world.nodes):
        rig.page(node)
    await rig.fleet_pass()
    rig.page("gpu-1", 79)
    await rig.fleet_pass()
    assert list(rig.world.open_runs) == [RUN]
    before = saves(rig)

    await rig.write_ledgers()  # the latch, which is written anyway

    ledger = rig.ledger(MACHINE)
    assert (ledger.state, ledger.runs, len(ledger.latches)) == ("Remediating", 1, 1)
    for _ in range(3):
        await rig.write_ledgers()
    assert saves(rig) == before + 1

    await rig.play()
    ledger = rig.ledger(MACHINE)
    assert ledger.state == "Out", "as its end has it: nobody reads its pages here"
