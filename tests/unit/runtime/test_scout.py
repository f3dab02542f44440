"""What asks for a run: faults, people, and machines that come back; and what Audit has said already."""

from __future__ import annotations

import pytest

from tests.unit.core.builders import a_pool, a_projection
from tests.unit.runtime.api_server import a_custom
from tests.unit.runtime.rig import Rig, hard, node_json, roomy, with_exporter, xid_book

RUN = "machine-gpu-1-1"
MACHINE = "machine-gpu-1"
AT = "2026-01-01T00:10:00Z"


def ask(rig: Rig, *, at: str = AT, **fields: str) -> None:
    """A person writes a request into the machine's object, as the command does."""
    request = {"playbook": "p", "by": "ann", "at": at} | fields
    if MACHINE in rig.server.names("ledgers"):
        rig.change("ledgers", MACHINE, {"spec": {"request": request}})
    else:
        rig.server.put("ledgers", MACHINE, a_custom("ManagedNode", {"request": request}))
        rig.server.flush()


@pytest.mark.asyncio
async def test_scout_asks_once_for_a_fault_that_has_a_run():
    """The open run is about this machine already."""
    rig = Rig()
    rig.break_node()

    for _ in range(3):
        await rig.fleet_pass()

    assert rig.runs() == {RUN: "Granted"}
    assert rig.reasons() == []


@pytest.mark.asyncio
async def test_scout_records_would_act_once_for_each_fault():
    """A week of Audit shows faults, not seconds; what comes again later is another fault."""
    rig = Rig(playbooks=[hard(mode="Audit")])
    rig.break_node()
    for _ in range(3):
        await rig.round(5)
    assert rig.runs() == {RUN: "WouldAct"}

    rig.heal_node()
    await rig.round(5)
    assert rig.scout.shadows == ()
    rig.break_node()
    for _ in range(3):
        await rig.round(5)

    assert rig.runs() == {RUN: "WouldAct", "machine-gpu-1-2": "WouldAct"}


@pytest.mark.asyncio
async def test_scout_remembers_what_audit_said_over_a_restart():
    """A restart is not a new fault."""
    rig = Rig(playbooks=[hard(mode="Audit")])
    rig.break_node()
    await rig.round(5)

    rig.again()
    await rig.round(5)

    assert rig.runs() == {RUN: "WouldAct"}


@pytest.mark.asyncio
async def test_scout_says_again_after_a_day():
    """A fault that is still there tomorrow is worth one more record."""
    rig = Rig(playbooks=[hard(mode="Audit")])
    rig.break_node()
    await rig.round(5)

    rig.clock.stand_still(25 * 3_600)
    rig.fresh()
    await rig.round(5)

    assert sorted(rig.runs().values()) == ["WouldAct", "WouldAct"]


@pytest.mark.asyncio
async def test_scout_shadows_limit_each_other():
    """Audit shows what the budgets would have done: one, and the other waits."""
    rig = Rig(playbooks=[hard(mode="Audit")], policy=roomy(max_concurrent=1))
    rig.break_node("gpu-1", "gpu-2")

    for _ in range(3):
        await rig.fleet_pass()

    assert list(rig.runs().values()) == ["WouldAct"]
    assert rig.reasons() == ["ConcurrencyReached"]
    assert rig.granted() == []


@pytest.mark.asyncio
async def test_scout_acts_once_the_mode_is_raised():
    """Audit's record does not stand in the way of the first enforced run."""
    rig = Rig(playbooks=[hard(mode="Audit")])
    rig.break_node()
    await rig.round(5)

    rig.change("playbooks", "p", {"spec": {"mode": "Enforce"}})
    await rig.fleet_pass()

    assert rig.granted() == ["machine-gpu-1-2"]


@pytest.mark.asyncio
async def test_scout_person_passes_the_mode_gate_only():
    """`remediate NODE` acts under Audit; every other gate still counts."""
    rig = Rig(playbooks=[hard(mode="Audit")])
    ask(rig)

    await rig.fleet_pass()

    run = rig.run(RUN)
    assert (run.spec.trigger, run.spec.by, run.spec.mode) == ("Manual", "ann", "Enforce")
    assert rig.granted() == [RUN]


@pytest.mark.asyncio
async def test_scout_answers_one_request_once():
    """The request stays in the object; the run that answered it is looked for, before the ledger says so."""
    rig = Rig(playbooks=[hard("quarantine")])
    ask(rig)
    await rig.play(10)
    assert rig.state(RUN) == "HandedOff"

    await rig.play(10)

    assert list(rig.runs()) == [RUN]
    assert rig.ledger(MACHINE).request_done == AT


@pytest.mark.asyncio
@pytest.mark.parametrize("at", ["2026-01-01T01:10:00+01:00", "2026-01-01T00:10:00.000Z"])
async def test_scout_answers_one_request_once_however_its_time_is_written(at):
    """People write times in many ways: a machine must not be rebooted for each look at one."""
    rig = Rig(playbooks=[hard("quarantine", "drain")])
    ask(rig, at=at)

    for _ in range(6):
        await rig.round(5)
        for name in rig.world.open_runs:
            rig.change("runs", name, {"spec": {"cancel": {"by": "ann"}}})

    assert list(rig.runs()) == [RUN]


@pytest.mark.asyncio
@pytest.mark.parametrize("at", ["2026-01-01T00:10:00z", "soon"])
async def test_scout_ignores_a_request_with_a_time_that_nobody_can_read(at):
    """One odd object must not stop the fleet."""
    rig = Rig()
    ask(rig, at=at)
    rig.break_node("gpu-2")

    await rig.fleet_pass()

    assert rig.granted() == ["machine-gpu-2-1"]


@pytest.mark.asyncio
async def test_scout_refuses_a_stale_plan_once():
    """The world has changed since the person looked: nothing happens, and the request is answered."""
    rig = Rig()
    ask(rig, planHash="00000000")

    await rig.fleet_pass()
    assert rig.reasons() == ["PlanStale"]
    assert rig.runs() == {}
    await rig.write_ledgers()
    assert rig.ledger(MACHINE).request_done == AT
    await rig.fleet_pass()

    assert rig.reasons() == []


@pytest.mark.asyncio
async def test_scout_stale_plan_stays_answered_on_a_machine_with_an_older_run():
    """The run of last week answers last week's request, not this one again and again."""
    rig = Rig(playbooks=[hard("report")])
    ask(rig)
    await rig.round(5)
    later = "2026-01-01T00:20:00Z"
    ask(rig, at=later, planHash="00000000")
    await rig.round(5)
    assert rig.reasons() == ["PlanStale"]

    rig.again()  # the whole memory is written anew
    for _ in range(4):
        await rig.round(5)
        assert rig.reasons() == []

    assert rig.ledger(MACHINE).request_done == later


@pytest.mark.asyncio
async def test_scout_quarantines_a_machine_that_is_out_and_comes_back_as_a_new_node():
    """A new Node object is not a new machine."""
    rig = Rig(playbooks=[hard("quarantine", "drain", "handoff")])
    rig.break_node()
    await rig.play(10, seconds=1)
    assert rig.ledger(MACHINE).state == "Out"

    rig.delete("nodes", "gpu-1")
    await rig.round(1)
    rig.server.put("nodes", "fresh-1", node_json("fresh-1", system_uuid=MACHINE))
    rig.server.flush()
    await rig.round(1)

    assert rig.run("machine-gpu-1-2").spec.trigger == "Reappeared"
    assert rig.quarantined("fresh-1")


@pytest.mark.asyncio
async def test_scout_does_not_ask_for_a_machine_that_is_out():
    """It waits for people; the fault that is still there is not news."""
    rig = Rig(playbooks=[hard("quarantine", "drain", "handoff")])
    rig.break_node()

    await rig.play(12, seconds=5)

    assert rig.runs() == {RUN: "HandedOff"}


@pytest.mark.asyncio
async def test_scout_asks_for_nothing_while_a_confirmed_fault_can_not_be_seen():
    """Unknown permits no new harm, and is no cure."""
    rig = Rig(policy=roomy(max_concurrent=1))
    rig.break_node("gpu-1", "gpu-2")
    await rig.fleet_pass()
    assert rig.reasons() == ["ConcurrencyReached"]

    rig.server.change("nodes", "gpu-2", {"status": {"conditions": [{"type": "Ready", "status": "True"}]}})
    rig.server.flush()
    await rig.fleet_pass()

    assert "machine-gpu-2" not in rig.fleet.refused


@pytest.mark.asyncio
async def test_scout_exporter_playbook_needs_coverage():
    """Pages of too few nodes: who is blind stands still."""
    rig = Rig(playbooks=[xid_book(79, steps=hard("quarantine").spec.steps)], policy=with_exporter())
    rig.change("policies", "cluster", {"status": {"baselined": [79]}})
    rig.page("gpu-1")
    rig.page("gpu-1", 79)

    await rig.fleet_pass()

    assert rig.reasons() == ["CoverageLow"]


@pytest.mark.asyncio
async def test_scout_codes_are_baselined_once_every_first_page_is_latched():
    """What stood there when we came is written down before anything counts as new."""
    rig = Rig(playbooks=[xid_book(79)], policy=with_exporter(), spares=0)
    for number in range(1, 6):
        rig.page(f"gpu-{number}", *([79] if number == 1 else []))
    await rig.round(1)
    assert rig.status().baselined == ()

    rig.pages.round_complete = True
    await rig.round(1)
    await rig.round(1)

    assert rig.status().baselined == (79,)
    assert [latch.state for latch in rig.ledger(MACHINE).latches] == ["Baseline"]
    assert rig.runs() == {}


@pytest.mark.asyncio
async def test_scout_codes_are_baselined_though_two_nodes_share_an_identity():
    """One mix-up of asset tags must not blind the whole fleet to a code."""
    rig = Rig(playbooks=[xid_book(79)], policy=with_exporter(), spares=0)
    for name in ("gpu-1", "gpu-2"):
        rig.change("nodes", name, {"status": {"nodeInfo": {"bootID": "boot-1", "systemUUID": "twin"}}})
    for number in range(1, 6):
        rig.page(f"gpu-{number}", *([79] if number == 1 else []))
    rig.pages.round_complete = True

    for _ in range(3):
        await rig.round(1)

    assert rig.status().baselined == (79,)


@pytest.mark.asyncio
async def test_scout_person_asks_for_an_unknown_playbook():
    """Nothing to follow, nothing to do, and no error."""
    rig = Rig()
    ask(rig, playbook="who")

    await rig.fleet_pass()

    assert rig.runs() == {}


@pytest.mark.asyncio
async def test_scout_request_of_a_pool_that_is_capped_waits_in_audit():
    """A pool's ceiling counts even where playbook and policy enforce."""
    pool = a_pool("train", max_mode="Audit", projection=a_projection())
    rig = Rig(pools=[pool])
    rig.break_node()

    await rig.fleet_pass()

    assert rig.granted() == []
    assert list(rig.runs().values()) in (["WouldAct"], [])


@pytest.mark.asyncio
async def test_scout_records_a_machine_that_reappears_once_in_audit():
    """One record a fault, not one a pass: 86,000 a day would fill etcd."""
    rig = Rig(playbooks=[hard("quarantine", "drain", "handoff")])
    rig.break_node()
    await rig.play(10, seconds=1)
    rig.change("playbooks", "p", {"spec": {"mode": "Audit"}})
    rig.delete("nodes", "gpu-1")
    await rig.round(1)
    rig.server.put("nodes", "fresh-1", node_json("fresh-1", system_uuid=MACHINE))
    rig.server.flush()

    for _ in range(10):
        await rig.round(1)

    assert sorted(rig.runs()) == [RUN, "machine-gpu-1-2"]
    assert rig.state("machine-gpu-1-2") == "WouldAct"


@pytest.mark.asyncio
async def test_scout_shadow_makes_room_once_a_real_grant_would_be_over():
    """Else Audit falls silent for good after as many records as there is room."""
    rig = Rig(playbooks=[hard(mode="Audit")], policy=roomy(max_concurrent=1))
    rig.break_node("gpu-1", "gpu-2")
    await rig.round(1)
    await rig.round(1)
    assert list(rig.runs().values()) == ["WouldAct"]

    rig.clock.stand_still(3_600)
    rig.fresh()
    await rig.round(1)
    await rig.round(1)

    assert list(rig.runs().values()) == ["WouldAct", "WouldAct"]
