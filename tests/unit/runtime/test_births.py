"""The record of a run and its grant: what the server refuses of one takes nothing from the other."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from remediator.errors import PermanentError
from remediator.model.instant import write_instant
from remediator.model.policy import BreakerState
from remediator.ports import Refusal
from tests.unit.runtime.fates import Fails, Fate, Held, Lost, Refused
from tests.unit.runtime.rig import Rig, broken

RUN = "machine-gpu-1-1"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "fate",
    [
        Refused(Refusal.OVERLOAD),
        Fails(PermanentError("404: the server could not find the requested resource", status=404)),
        Fails(PermanentError('403: admission webhook "policy.example.com" denied the request', status=403)),
    ],
    ids=["overload", "kind not served", "denied"],
)
async def test_fleet_takes_back_the_grant_of_a_record_that_was_refused(fate: Fate):
    """Nothing came of it: neither its token nor its spare may be missing for the next try."""
    rig = await broken()
    rig.server.fate("CreateRun", fate)
    await rig.fleet_pass()
    assert (rig.runs(), rig.granted()) == ({}, [])
    assert {each.scope: each.tokens for each in rig.status().rates} == {"fleet": 100.0}

    await rig.fleet_pass()

    assert rig.runs() == {RUN: "Granted"}
    assert rig.granted() == [RUN]
    assert {each.scope: each.tokens for each in rig.status().rates} == {"fleet": 99.0}


@pytest.mark.asyncio
async def test_fleet_takes_the_trial_of_a_breaker_back_too():
    """A breaker closes when its trial is over; one that never began has shown nothing."""
    rig = await broken()
    rig.server.fate("CreateRun", *[Refused(Refusal.OVERLOAD)] * 2)
    await rig.fleet_pass()  # its fault is counted by now
    half = BreakerState(scope="fleet", state="HalfOpen", since=write_instant(rig.clock.now()), limit=3)
    rig.change("policies", "cluster", {"status": {"breakers": msgspec.to_builtins([half])}})

    await rig.fleet_pass()

    assert rig.granted() == []
    assert sum(sent.kind == "CreateRun" for sent in rig.server.sent) == 2, "the trial was let through"
    assert [(each.state, each.trial) for each in rig.status().breakers] == [("HalfOpen", "")]


@pytest.mark.asyncio
async def test_fleet_tries_less_and_less_often_where_records_are_refused():
    """Each try writes the policy twice, and whoever denies records may do so for a day."""
    rig = Rig()
    rig.server.fate("CreateRun", *[Fails(PermanentError("403", status=403))] * 200)
    rig.break_node()
    rig.diagnose()
    loop = asyncio.ensure_future(rig.fleet.run())

    await rig.settle(400)
    await rig.clock.advance(60)
    loop.cancel()

    assert 8 <= sum(sent.kind == "SavePolicy" for sent in rig.server.sent) <= 24
    assert rig.granted() == []


@pytest.mark.asyncio
async def test_fleet_grant_without_record_is_freed_after_a_minute():
    """Whether the record was stored nobody knows: the grant limits others for a minute and then goes."""
    rig = await broken()
    rig.server.fate("CreateRun", Lost(committed=False))
    await rig.fleet_pass()
    assert rig.granted() == [RUN]
    assert rig.runs() == {}

    await rig.fleet_pass()
    assert rig.reasons() == ["RunOpen"]
    rig.clock.stand_still(61)
    rig.fresh()
    await rig.fleet_pass()

    assert rig.runs() == {RUN: "Granted"}
    assert rig.granted() == [RUN]


@pytest.mark.asyncio
async def test_fleet_unanswered_record_that_was_stored_is_used():
    """The run exists, whatever the reply: its watch event is what starts it."""
    rig = await broken()
    rig.server.fate("CreateRun", Lost(committed=True))

    await rig.fleet_pass()

    assert rig.runs() == {RUN: "Granted"}
    assert list(rig.world.open_runs) == [RUN]
    await rig.fleet_pass()
    assert rig.granted() == [RUN]


@pytest.mark.asyncio
async def test_fleet_has_one_write_of_the_policy_in_flight():
    """A failed record must not let the next pass overtake the grant that is still on its way."""
    rig = await broken("gpu-1", "gpu-2")
    gate = asyncio.Event()
    rig.server.fate("CreateRun", Fails(PermanentError("422", status=422)))
    rig.server.fate("SavePolicy", Held(gate))
    one = asyncio.ensure_future(rig.fleet.one_pass())
    await rig.settle(20)

    assert not one.done()
    assert rig.scout.in_flight
    gate.set()
    await one
    assert rig.granted() == ["machine-gpu-2-1"]


@pytest.mark.asyncio
async def test_fleet_does_not_fill_the_cluster_with_records_when_grants_are_denied():
    """Without permission to write the policy no record is worth creating, again and again."""
    rig = Rig()
    rig.server.fate("SavePolicy", *[Fails(PermanentError("403", status=403))] * 50)
    rig.break_node()
    rig.diagnose()
    loop = asyncio.ensure_future(rig.fleet.run())

    await rig.settle(400)
    await rig.clock.advance(20)
    loop.cancel()

    assert len(rig.runs()) <= 6


@pytest.mark.asyncio
async def test_fleet_does_not_fill_the_cluster_with_records_when_the_server_sheds_load():
    """429 on the grant: wait before the next try."""
    rig = Rig()
    rig.server.fate("SavePolicy", *[Refused(Refusal.OVERLOAD)] * 200)
    rig.break_node()
    rig.diagnose()
    loop = asyncio.ensure_future(rig.fleet.run())

    await rig.settle(400)
    await rig.clock.advance(20)
    loop.cancel()

    assert len(rig.runs()) <= 6
