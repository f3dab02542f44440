"""One run's turns: what came of a write is learnt by looking, and looked at before anything is repeated."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from remediator.errors import PermanentError, TransientError
from remediator.model.action import EvictPod
from remediator.ports import Refusal
from remediator.runtime.run_pass import ERROR_PAUSE_FIRST_S, ERROR_PAUSE_MAX_S, SEEN_WITHIN_S, UNKNOWN_PAUSE_S
from tests.unit.runtime.fates import Fails, Fate, First, Held, Late, Lost, Refused
from tests.unit.runtime.rig import Rig, hard

RUN = "machine-gpu-1-1"
FATES: dict[str, Fate] = {
    "conflict": Refused(Refusal.CONFLICT),
    "gone": Refused(Refusal.GONE),
    "exists": Refused(Refusal.EXISTS),
    "budget": Refused(Refusal.BUDGET),
    "overload": Refused(Refusal.OVERLOAD, retry_after_s=3.0),
    "fenced": Refused(Refusal.FENCED),
    "lost": Lost(committed=False),
    "lost-but-stored": Lost(committed=True),
    "permanent": Fails(PermanentError("no permission", status=403)),
    "transient": Fails(TransientError("reset")),
}


async def granted(*actions: str, **fields: Any) -> Rig:
    """A rig with one granted run that has not had a turn."""
    rig = Rig(playbooks=[hard(*actions, **fields)])
    rig.break_node()
    await rig.fleet_pass()
    assert rig.granted() == [RUN]
    return rig


async def turn_for(rig: Rig, seconds: float) -> float | None:
    """One turn that waits for something; time passes until it ends."""
    turn = asyncio.ensure_future(rig.run_pass.turn(RUN))
    await rig.clock.advance(seconds)
    assert turn.done(), f"the turn takes longer than {seconds} s"
    return await turn


@pytest.mark.asyncio
@pytest.mark.parametrize("fate", FATES)
@pytest.mark.parametrize("kind", ["PatchNode", "EvictPod", "CreateJob", "SaveRun"])
async def test_run_survives_any_answer_to_any_write(kind, fate):
    """No answer may end the run, repeat an effect, or skip one."""
    rig = Rig()
    rig.server.fate(kind, FATES[fate])
    rig.break_node()

    await rig.play()

    assert rig.runs() == {RUN: "Returned"}
    outside = {name: count for name, count in rig.server.effects.items() if name[0].islower()}
    assert set(outside.values()) == {1}
    assert len(outside) == 8


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("fate", "pause_s"),
    [
        ("lost", UNKNOWN_PAUSE_S),
        ("overload", UNKNOWN_PAUSE_S),
        ("fenced", UNKNOWN_PAUSE_S),
        ("permanent", ERROR_PAUSE_FIRST_S),
        ("transient", UNKNOWN_PAUSE_S),
    ],
)
async def test_run_pauses_after_a_patch_that_is_not_confirmed(fate, pause_s):
    """Every wait has an end, and the turn says when."""
    rig = await granted("quarantine")
    rig.server.fate("PatchNode", FATES[fate])

    assert await rig.turn(RUN) == pause_s


@pytest.mark.asyncio
async def test_run_that_is_refused_again_and_again_asks_ever_more_rarely():
    """A server that has just started says 403 for a moment; a role that is missing says it for days."""
    rig = await granted("quarantine")
    rig.server.fate("PatchNode", *[FATES["permanent"]] * 6, FATES["lost"], FATES["permanent"])

    pauses = [await rig.turn(RUN) for _ in range(8)]

    assert pauses == [1.0, 2.0, 4.0, 8.0, ERROR_PAUSE_MAX_S, ERROR_PAUSE_MAX_S, UNKNOWN_PAUSE_S, 1.0]


@pytest.mark.asyncio
async def test_run_goes_on_only_when_the_cache_shows_our_patch():
    """The reply is not the base of the next write: the watch is."""
    rig = await granted("quarantine", "drain")
    rig.server.lag("nodes")
    turn = asyncio.ensure_future(rig.run_pass.turn(RUN))
    await rig.clock.advance(1)
    assert [sent.kind for sent in rig.server.sent][-1] == "PatchNode"

    rig.server.catch_up("nodes")
    await rig.clock.settle()

    assert turn.done()
    assert rig.server.effects["evict team/a"] == 1


@pytest.mark.asyncio
async def test_run_patches_once_however_late_the_watch_is():
    """With a watch that hangs, the precondition refuses what was done already."""
    rig = await granted("quarantine", "drain")
    rig.server.lag("nodes")

    for _ in range(4):
        pause_s = await turn_for(rig, SEEN_WITHIN_S * 2)
        assert pause_s is not None
        assert pause_s > 0
    assert rig.server.effects[f"patch gpu-1 {RUN}/fence"] == 1
    assert rig.server.pods

    rig.server.catch_up("nodes")
    await rig.turn(RUN)
    assert rig.server.effects[f"patch gpu-1 {RUN}/fence"] == 1
    assert not rig.server.pods


@pytest.mark.asyncio
async def test_run_keeps_what_a_foreign_writer_put_there():
    """Somebody writes right before us: we read again and decide again, and theirs stays."""
    rig = await granted("quarantine")
    label = {"metadata": {"labels": {"who": "else"}}}
    rig.server.fate("PatchNode", First(lambda: rig.server.change("nodes", "gpu-1", label)))

    first = await rig.turn(RUN)
    assert first is not None
    assert first < UNKNOWN_PAUSE_S
    await rig.turn(RUN)

    assert rig.quarantined("gpu-1")
    assert rig.server.get("nodes", "gpu-1")["metadata"]["labels"]["who"] == "else"


@pytest.mark.asyncio
async def test_run_waits_while_a_budget_refuses_and_then_goes_on():
    """A PodDisruptionBudget is asked again every few seconds, not in a loop."""
    rig = await granted("quarantine", "drain", "detach")
    rig.server.blocked_pods = {"team/a"}

    for _ in range(12):
        await rig.turn(RUN)
        rig.clock.stand_still(1)
    tries = [sent.action for sent in rig.server.sent if isinstance(sent.action, EvictPod)]
    assert rig.state(RUN) == "Blocked"
    assert "team/a" in rig.run_status(RUN).waits_for
    assert 2 <= sum(action.name == "a" for action in tries) <= 4

    rig.server.blocked_pods = set()
    for _ in range(8):
        await rig.turn(RUN)
        rig.clock.stand_still(1)
    assert rig.state(RUN) == "HandedOff"
    assert rig.server.effects["evict team/a"] == 1
    assert rig.server.effects["evict team/b"] == 1


@pytest.mark.asyncio
async def test_run_obeys_retry_after_of_an_overloaded_server():
    """The server says how long it wants to be left alone."""
    rig = await granted("quarantine", "drain")
    rig.server.fate("EvictPod", Refused(Refusal.OVERLOAD, retry_after_s=7.0))

    assert await rig.turn(RUN) == 7.0


@pytest.mark.asyncio
async def test_run_that_was_deleted_in_mid_turn_writes_nothing_more():
    """Who deletes the record says stop, and the next write does not happen."""
    rig = await granted("quarantine", "drain")
    patch = asyncio.Event()
    rig.server.fate("PatchNode", Held(patch))
    turn = asyncio.ensure_future(rig.run_pass.turn(RUN))
    await rig.clock.settle()
    rig.delete("runs", RUN)
    patch.set()
    await rig.clock.settle()

    assert await turn is None
    assert [sent.kind for sent in rig.server.sent][-1] == "PatchNode"
    assert rig.server.pods
    assert RUN not in rig.observer._memory


@pytest.mark.asyncio
async def test_run_deleted_before_our_reply_arrives_stays_deleted():
    """The watch may be faster than the reply: our own old write must not bring the record back."""
    rig = await granted("quarantine", "drain")
    reply = asyncio.Event()
    rig.server.fate("SaveRun", Late(reply))
    turn = asyncio.ensure_future(rig.run_pass.turn(RUN))
    await rig.clock.settle()
    assert rig.state(RUN) == "Draining"  # stored, but not answered yet
    rig.delete("runs", RUN)
    reply.set()
    await rig.clock.settle()

    assert await turn is None
    assert RUN not in rig.world.open_runs
    assert rig.server.pods


@pytest.mark.asyncio
async def test_run_of_an_unanswered_status_write_is_looked_up():
    """The record may have been deleted meanwhile: only the server knows."""
    rig = await granted("quarantine")
    rig.server.lag("runs")
    rig.server.fate("SaveRun", Lost(committed=False))

    await rig.turn(RUN)

    assert f"run {RUN}" in rig.server.reads


@pytest.mark.asyncio
async def test_run_with_a_lagging_record_does_not_hammer_the_server():
    """While our view of the record is old each write is refused; a few a minute are enough."""
    rig = await granted("quarantine", "drain")
    rig.server.lag("runs")
    rig.server.change("runs", RUN, {"metadata": {"labels": {"who": "else"}}})
    before = len(rig.server.sent)
    spent_s = 0.0
    while spent_s < 30:
        began = rig.clock.monotonic()
        pause_s = await rig.turn(RUN)
        assert pause_s
        spent_s += pause_s + rig.clock.monotonic() - began

    assert len(rig.server.sent) - before <= 20
    rig.server.catch_up("runs")
    await rig.turn(RUN)
    assert rig.state(RUN) == "Draining" or not rig.server.pods


@pytest.mark.asyncio
async def test_run_says_to_people_what_it_can_not_do():
    """A 403 needs a person: the node's Events name it."""
    rig = await granted("quarantine")
    rig.server.fate("PatchNode", FATES["permanent"])

    await rig.turn(RUN)

    assert "RunStuck" in rig.told()


@pytest.mark.asyncio
async def test_run_without_grant_does_nothing():
    """No grant, no harm: the record alone permits nothing."""
    rig = await granted("quarantine")
    rig.change("policies", "cluster", {"status": {"grants": None}})
    before = len(rig.server.sent)

    pause_s = await rig.turn(RUN)

    assert pause_s
    assert len(rig.server.sent) == before


@pytest.mark.asyncio
async def test_run_counts_every_write_by_its_outcome():
    """Metrics tell refused from unknown."""
    rig = await granted("quarantine", "drain")
    rig.server.blocked_pods = {"team/a"}

    await rig.turn(RUN)

    assert rig.metrics.counts["remediator_writes_total"] == 3
    assert rig.metrics.counts["remediator_evictions_total"] == 2


@pytest.mark.asyncio
async def test_run_ended_by_somebody_else_is_over():
    """The fleet pass may end a run; its worker learns that by looking."""
    rig = await granted("quarantine")
    rig.change("runs", RUN, {"status": {"state": "NotGranted"}})

    assert await rig.turn(RUN) is None
    assert not rig.quarantined("gpu-1")
