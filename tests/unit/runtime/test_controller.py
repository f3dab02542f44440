"""One process' life: who leads, with which term, and how it stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from remediator.errors import ContractError, PermanentError, TransientError
from remediator.ports import Refusal
from remediator.runtime.controller import BEGIN_AGAIN_S
from remediator.runtime.health import RULES_STALE_S, STALE_WATCH_S
from tests.unit.runtime.api_server import a_custom
from tests.unit.runtime.fates import Fails, Held, Lost, Refused
from tests.unit.runtime.rig import Lease, Rig, hard, roomy

RUN = "machine-gpu-1-1"


@asynccontextmanager
async def alive(rig: Rig) -> AsyncIterator[asyncio.Task[bool]]:
    """The controller at work; it is stopped at the end, however the test ends."""
    task = asyncio.ensure_future(rig.controller.run())
    await rig.clock.settle()
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.asyncio
async def test_controller_that_does_not_lead_writes_nothing():
    """The second replica watches."""
    rig = Rig()
    rig.break_node()
    async with alive(rig):
        await rig.clock.advance(30)

        assert rig.server.sent == []
        assert not rig.controller.leading
        assert rig.controller.not_ready() == ()


@pytest.mark.asyncio
async def test_controller_leads_and_carries_a_run():
    """All loops together, in virtual time: a fault is isolated within a second or two."""
    rig = Rig(playbooks=[hard("quarantine", "swap", "drain", "handoff")])
    async with alive(rig):
        rig.lease.elected.set()
        await rig.clock.advance(1)
        assert rig.controller.leading
        rig.break_node()
        await rig.clock.advance(3)

        assert rig.runs() == {RUN: "HandedOff"}
        assert rig.quarantined("gpu-1")
        assert "SparePromoted" in [event.reason for event in rig.server.events]
        assert rig.ledger("machine-gpu-1").state == "Out"
        assert rig.controller.status()["term"] == 1


@pytest.mark.asyncio
async def test_controller_term_is_its_first_write():
    """Nothing else may carry a term that is not in the policy yet."""
    rig = Rig()
    rig.break_node()
    async with alive(rig):
        rig.lease.elected.set()
        await rig.clock.advance(2)

        assert rig.server.sent[0].kind == "SavePolicy"
        assert {sent.by.term for sent in rig.server.sent} == {1}
        assert (rig.status().term, rig.status().leader) == (1, "me")


@pytest.mark.asyncio
@pytest.mark.parametrize("source", ["lease", "policy", "run", "node", "nonsense"])
async def test_controller_term_is_above_every_used_one(source):
    """An older leader's writes must never look as new as ours, whatever was emptied."""
    rig = Rig()
    expected = 8
    if source == "lease":
        rig.lease.transitions = 7
    elif source == "policy":
        rig.change("policies", "cluster", {"status": {"term": 7}})
    elif source == "run":
        rig.break_node()
        await rig.fleet_pass()
        rig.change("runs", RUN, {"spec": {"term": 7}})
        rig.change("policies", "cluster", {"status": {"term": None}})
    elif source == "node":
        rig.change("nodes", "gpu-4", {"metadata": {"annotations": {"remediator.dev/term": "7"}}})
    else:
        rig.change("nodes", "gpu-4", {"metadata": {"annotations": {"remediator.dev/term": "9" * 30}}})
        expected = 1
    async with alive(rig):
        rig.lease.elected.set()
        await rig.clock.advance(1)

        assert rig.status().term == expected
        assert rig.controller.term == expected
        assert rig.fleet.term == rig.run_pass.term == rig.sweep.term == expected


@pytest.mark.asyncio
async def test_controller_waits_for_whole_caches_before_it_leads():
    """A takeover on half a view would take every quarantine for an orphan."""
    rig = Rig()
    rig.again(sync=False)
    async with alive(rig):
        rig.lease.elected.set()
        await rig.clock.advance(10)
        assert rig.server.sent == []
        assert len(rig.controller.not_ready()) == 6

        rig.server.sync()
        await rig.clock.advance(1)

        assert rig.controller.leading


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "fate",
    [Refused(Refusal.CONFLICT), Lost(committed=True), Lost(committed=False), Fails(PermanentError("403"))],
)
async def test_controller_tries_its_term_again(fate):
    """Nothing begins before the term is known to be written."""
    rig = Rig()
    rig.server.fate("SavePolicy", fate)
    rig.break_node()
    async with alive(rig):
        rig.lease.elected.set()
        await rig.clock.advance(BEGIN_AGAIN_S / 2)
        assert not rig.controller.leading
        assert rig.runs() == {}
        await rig.clock.advance(BEGIN_AGAIN_S)

        assert rig.controller.leading
        assert rig.status().term == rig.controller.term


@pytest.mark.asyncio
async def test_controller_survives_a_read_that_fails_at_takeover():
    """Leaders change when servers are shaky: one lost GET must not end the new one as well."""
    rig = Rig()
    rig.server.read_errors.extend([TransientError("reset")] * 3)
    async with alive(rig) as task:
        rig.lease.elected.set()
        await rig.clock.advance(5)

        assert not task.done()
        assert rig.controller.leading


@pytest.mark.asyncio
async def test_controller_without_policy_leads_in_audit():
    """Somebody deleted the envelope: everything is looked at, nothing is done."""
    rig = Rig()
    rig.delete("policies", "cluster")
    rig.break_node()
    async with alive(rig):
        rig.lease.elected.set()
        await rig.clock.advance(2)
        assert rig.runs() == {RUN: "WouldAct"}

        rig.server.put("policies", "cluster", a_custom("RemediationPolicy", roomy()))
        await rig.clock.advance(3)

        assert rig.run("machine-gpu-1-2").spec.mode == "Enforce"
        assert rig.status().term == 1


@pytest.mark.asyncio
async def test_controller_stop_ends_the_turn_and_releases_the_lease():
    """Parked at a safe point: the write under way is waited for, and no other begins."""
    rig = Rig(playbooks=[hard("quarantine", "drain")])
    gate = asyncio.Event()
    rig.server.fate("PatchNode", Held(gate))
    rig.break_node()
    async with alive(rig) as task:
        rig.lease.elected.set()
        await rig.clock.advance(2)
        assert rig.workers.busy == 1

        rig.controller.stop()
        await rig.clock.advance(1)
        assert not task.done()
        assert not rig.lease.released
        gate.set()
        await rig.clock.advance(1)

        assert await task is True
        assert rig.lease.released
        assert rig.workers.busy == 0


@pytest.mark.asyncio
async def test_controller_stop_does_not_wait_for_ever():
    """A server that never answers must not keep the Lease from the next one."""
    rig = Rig()
    rig.server.fate("PatchNode", Held(asyncio.Event()))
    rig.break_node()
    async with alive(rig) as task:
        rig.lease.elected.set()
        await rig.clock.advance(2)
        rig.controller.stop()
        await rig.clock.advance(11)

        assert task.done()
        assert rig.lease.released


@pytest.mark.asyncio
async def test_controller_that_lost_its_lease_ends_and_releases_nothing():
    """The Lease is somebody else's now: the process ends, and says that it was not asked to."""
    rig = Rig()
    async with alive(rig) as task:
        rig.lease.elected.set()
        await rig.clock.advance(1)
        rig.lease.lost.set()
        await rig.clock.advance(1)

        assert await task is False
        assert not rig.lease.released
        assert not rig.controller.leading


@pytest.mark.asyncio
async def test_controller_ends_when_we_break_our_own_rule():
    """A ContractError stops the process; the cluster holds the state."""
    rig = Rig()
    rig.server.fate("PatchNode", Fails(ContractError("patch without a version")))
    rig.break_node()
    async with alive(rig) as task:
        rig.lease.elected.set()
        await rig.clock.advance(2)

        assert task.done()
        with pytest.raises(BaseExceptionGroup) as raised:
            await task
        assert raised.group_contains(ContractError)
        assert not rig.lease.released


@pytest.mark.asyncio
async def test_controller_takes_over_what_the_last_leader_began():
    """The next leader goes on with the open run under a higher term, and repeats nothing."""
    rig = Rig(playbooks=[hard("quarantine", "drain", "handoff")])
    rig.server.blocked_pods = {"team/a"}
    async with alive(rig):
        rig.lease.elected.set()
        rig.break_node()
        await rig.clock.advance(3)
    assert rig.quarantined("gpu-1")

    rig.again()
    rig.lease = Lease()
    rig.controller._election = rig.lease
    rig.server.blocked_pods = set()
    async with alive(rig):
        rig.lease.elected.set()
        await rig.clock.advance(8)

        assert rig.state(RUN) == "HandedOff"
        assert rig.status().term == 2
        assert rig.server.effects[f"patch gpu-1 {RUN}/fence"] == 1
        assert rig.server.effects["evict team/b"] == 1


@pytest.mark.asyncio
async def test_controller_is_blind_when_nothing_is_heard_of_nodes():
    """Blind means still: no grant on an old picture, and no turn of a run either."""
    rig = Rig(playbooks=[hard("quarantine", "drain")])
    assert rig.health.blind() == ""
    rig.break_node()
    rig.diagnose()
    rig.clock.stand_still(STALE_WATCH_S + 1)

    assert rig.health.blind() == "nothing was heard about nodes for 91 s"
    await rig.fleet_pass()
    assert rig.reasons() == ["Blind"]
    rig.server.feeds["runs"].store.synced = False
    assert rig.health.blind() == "not in sync: remediations"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("feed", "kind"),
    [
        ("runs", "remediations"),
        ("playbooks", "playbooks"),
        ("pools", "resourcepools"),
        ("policies", "remediationpolicies"),
        ("ledgers", "managednodes"),
    ],
)
async def test_controller_is_blind_when_one_dead_watch_hides_the_rules(feed: str, kind: str):
    """A pause, a hold or another run that we cannot see must not be granted past."""
    rig = Rig(playbooks=[hard("quarantine", "drain")])
    rig.break_node()
    rig.diagnose()
    rig.clock.stand_still(RULES_STALE_S + 1)
    for name, heard in rig.server.feeds.items():
        if name != feed:
            heard.store.prove(0)

    assert rig.health.blind() == f"nothing was heard about {kind} for 181 s"
    await rig.fleet_pass()
    assert rig.reasons() == ["Blind"]
    assert rig.runs() == {}
    assert not rig.quarantined("gpu-1")

    rig.server.feeds[feed].store.prove(0)
    await rig.fleet_pass()
    assert list(rig.runs()) == [RUN]


@pytest.mark.asyncio
@pytest.mark.parametrize(("late_s", "blind"), [(0, False), (1, True)], ids=["at", "after"])
async def test_controller_gives_quiet_kinds_three_bookmarks(late_s: int, blind: bool):
    """Nobody edits pools for days; only silence that no healthy watch can cause is blindness."""
    rig = Rig()
    rig.clock.stand_still(RULES_STALE_S + late_s)
    rig.server.feeds["nodes"].store.prove(0)

    assert bool(rig.health.blind()) is blind


@pytest.mark.asyncio
async def test_controller_does_not_take_the_node_it_runs_on():
    """We would end in the middle of our own work."""
    rig = Rig()
    rig.own_nodes = frozenset({"gpu-1"})
    rig.break_node("gpu-1", "gpu-2")
    async with alive(rig):
        rig.lease.elected.set()
        await rig.clock.advance(2)

        assert list(rig.runs()) == ["machine-gpu-2-1"]
        assert rig.reasons() == ["HostsUs"]


@pytest.mark.asyncio
async def test_controller_deletes_old_records_but_not_the_one_that_keeps_a_machine_out():
    """Seven days, and the record behind a quarantine for as long as it stands."""
    rig = Rig(playbooks=[hard("quarantine", "drain", "handoff"), hard("report", name="r", fault_class="x.y")])
    rig.break_node("gpu-1")
    await rig.play(8, seconds=1)
    reported = next(name for name, state in rig.runs().items() if state == "HandedOff")
    rig.server.put("runs", "old-1", a_custom("Remediation", rig.run(reported).spec, state="NotGranted"))
    rig.server.flush()
    rig.clock.stand_still(8 * 86_400)
    rig.fresh()
    async with alive(rig):
        rig.lease.elected.set()
        await rig.clock.advance(1)
        await rig.ticks.jobs["retention"]()
        rig.server.flush()

        assert reported in rig.runs()
        assert "old-1" not in rig.runs()
        assert rig.quarantined("gpu-1")


@pytest.mark.asyncio
async def test_controller_touches_nodes_in_flight_before_it_acts():
    """The old leader's quarantine may still be on its way: it must be stale before ours goes out."""
    rig = Rig(playbooks=[hard("quarantine", "swap", "drain", "handoff")])
    rig.break_node()
    await rig.fleet_pass()
    rig.again()
    async with alive(rig):
        rig.lease.elected.set()
        await rig.clock.advance(3)

        patched = [sent.by.step for sent in rig.server.sent if sent.kind == "PatchNode"]
        assert patched[:3] == ["takeover", "takeover", "fence"]
        assert rig.quarantined("gpu-1")


@pytest.mark.asyncio
async def test_controller_ends_when_a_newer_term_shows():
    """The server refuses all that we send: whoever wrote it, the way on is to begin anew, above it."""
    rig = Rig()
    async with alive(rig) as task:
        rig.lease.elected.set()
        await rig.clock.advance(2)
        assert rig.controller.leading
        rig.change("policies", "cluster", {"status": {"term": rig.controller.term + 40}})
        await rig.clock.advance(1)

        assert task.done()
        assert task.result() is False
        assert rig.lease.released


@pytest.mark.asyncio
@pytest.mark.parametrize("term", [1, None], ids=["its own", "emptied"])
async def test_controller_goes_on_when_the_term_is_not_newer(term: int | None):
    """A policy that was emptied is not a rival: the leader writes its term again."""
    rig = Rig()
    async with alive(rig) as task:
        rig.lease.elected.set()
        await rig.clock.advance(2)
        rig.change("policies", "cluster", {"status": {"term": term}})
        await rig.clock.advance(15)

        assert not task.done()
        assert rig.status().term == rig.controller.term == 1
