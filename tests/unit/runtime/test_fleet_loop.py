"""The fleet pass at work: grant and record go out together, and neither survives the loss of the other."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from remediator.errors import PermanentError, TransientError
from remediator.model.instant import write_instant
from remediator.ports import Refusal
from remediator.runtime.fleet_loop import AFTER_ERROR_S, IDLE_S, STANDING_S, WAITING_S
from tests.unit.core.builders import text
from tests.unit.runtime.api_server import a_custom
from tests.unit.runtime.fates import Fails, Held, Lost, Refused
from tests.unit.runtime.rig import Rig, broken, hard, roomy

RUN = "machine-gpu-1-1"


@pytest.mark.asyncio
async def test_fleet_sends_record_and_grant_together():
    """Neither waits for the other: the taint comes one round trip earlier."""
    rig = await broken()
    gate = asyncio.Event()
    rig.server.fate("CreateRun", Held(gate))
    rig.server.fate("SavePolicy", Held(gate))
    one = asyncio.ensure_future(rig.fleet.one_pass())
    await rig.settle()

    assert sorted(sent.kind for sent in rig.server.sent) == ["CreateRun", "SavePolicy"]
    gate.set()
    await one
    assert rig.granted() == [RUN]
    assert [grant.spare for grant in rig.status().grants] == ["spare-1"]


@pytest.mark.asyncio
async def test_fleet_refused_grant_ends_the_record_as_not_granted():
    """A record alone permits nothing: the next pass says so, and asks again."""
    rig = await broken()
    rig.server.fate("SavePolicy", Refused(Refusal.CONFLICT))

    await rig.fleet_pass()
    assert rig.runs() == {RUN: "Granted"}
    assert rig.granted() == []
    await rig.fleet_pass()

    assert rig.state(RUN) == "NotGranted"
    await rig.fleet_pass()
    assert rig.granted() == ["machine-gpu-1-2"]
    assert not rig.quarantined("gpu-1")


@pytest.mark.asyncio
@pytest.mark.parametrize("committed", [False, True])
async def test_fleet_unanswered_grant_is_read_again(committed):
    """Whatever the reply, what counts is what stands in the policy."""
    rig = await broken()
    rig.server.lag("policies")
    rig.server.fate("SavePolicy", Lost(committed))

    await rig.fleet_pass()

    assert "policy" in rig.server.reads
    assert [grant.run for grant in rig.world.policy_status.grants] == ([RUN] if committed else [])


@pytest.mark.asyncio
async def test_fleet_waits_for_the_policy_when_an_unanswered_grant_can_not_be_read():
    """Not known is not refused: a record is not closed while its grant may stand."""
    rig = await broken()
    rig.server.lag("policies")
    rig.server.fate("SavePolicy", Lost(committed=True))
    rig.server.read_errors.extend([TransientError("reset")] * 2)

    assert await rig.fleet_pass() == AFTER_ERROR_S
    assert await rig.fleet_pass() == 2 * AFTER_ERROR_S
    assert rig.runs() == {RUN: "Granted"}
    await rig.fleet_pass()

    assert rig.runs() == {RUN: "Granted"}
    assert rig.granted() == [RUN]


@pytest.mark.asyncio
async def test_fleet_grants_that_are_not_seen_yet_count():
    """The watch may be slow: what was granted a moment ago fills the budget all the same."""
    rig = Rig(policy=roomy(max_concurrent=1))
    rig.server.lag("runs", "policies", "nodes")
    rig.server.catch_up("nodes")
    rig.server.fate("CreateRun", Lost(committed=True))
    rig.break_node("gpu-1")
    await rig.fleet_pass()
    rig.break_node("gpu-2")
    await rig.fleet_pass()

    assert rig.granted() == [RUN]
    assert sorted(rig.reasons()) == ["ConcurrencyReached", "RunOpen"]


@pytest.mark.asyncio
async def test_fleet_two_faults_and_one_spare_end_in_one_grant():
    """A spare is promised once."""
    rig = await broken("gpu-1", "gpu-2", spares=1)

    await rig.fleet_pass()

    assert len(rig.granted()) == 1
    assert rig.reasons() == ["NoSpareReady"]
    assert [grant.spare for grant in rig.status().grants] == ["spare-1"]


@pytest.mark.asyncio
async def test_fleet_second_process_can_not_promise_the_same_spare():
    """Two leaders at once: the compare-and-swap lets one of them through."""
    rig = await broken("gpu-1", spares=1)
    grant = {"run": "other-1", "uid": "uid-gpu-2", "pool": "train", "spare": "spare-1"}
    rig.server.lag("policies")
    rig.server.change("policies", "cluster", {"status": {"grants": [grant]}})

    await rig.fleet_pass()
    rig.server.catch_up()
    await rig.fleet_pass()

    assert [each.spare for each in rig.status().grants if each.spare] in (["spare-1"], [])
    assert rig.state(RUN) == "NotGranted"


@pytest.mark.asyncio
async def test_fleet_does_not_end_a_run_whose_grant_landed_meanwhile():
    """A PUT that was given up may be stored late; then the run may act, and its record must stay open."""
    rig = await broken("gpu-1")
    rig.server.fate("SavePolicy", Refused(Refusal.CONFLICT))
    await rig.fleet_pass()
    grant = {"run": RUN, "uid": "uid-gpu-1", "pool": "train", "spare": "spare-1"}
    gate = asyncio.Event()
    rig.break_node("gpu-2")
    rig.diagnose()
    rig.server.fate("CreateRun", Held(gate))
    one = asyncio.ensure_future(rig.fleet.one_pass())
    await rig.settle(20)
    rig.change("policies", "cluster", {"status": {"grants": [grant]}})
    gate.set()
    await one

    assert rig.state(RUN) == "Granted"


@pytest.mark.asyncio
async def test_fleet_news_during_a_pass_begins_the_next_one_at_once():
    """A fault that is confirmed while a pass writes does not wait for ten seconds."""
    rig = Rig()
    gate = asyncio.Event()
    rig.break_node("gpu-1")
    rig.diagnose()
    rig.server.fate("SavePolicy", Held(gate))
    loop = asyncio.ensure_future(rig.fleet.run())
    await rig.settle(20)
    rig.break_node("gpu-2")
    rig.diagnose()
    gate.set()
    await rig.clock.settle()
    await rig.clock.advance(0.001)
    await rig.clock.settle()
    loop.cancel()

    assert len(rig.granted()) == 2


@pytest.mark.asyncio
async def test_fleet_makes_one_pass_of_the_news_of_many_nodes():
    """At the start each page of 10,000 is news; a pass for each of them would take minutes."""
    rig = Rig()
    passes: list[float] = []
    rig.fleet.on_passed = lambda _, pause_s: passes.append(pause_s)
    loop = asyncio.ensure_future(rig.fleet.run())
    await rig.settle(20)
    assert len(passes) == 1
    for _ in range(50):
        rig.fleet.wake()
        await rig.settle(4)
    await rig.clock.advance(0.001)
    await rig.settle(20)
    loop.cancel()

    assert len(passes) == 2


@pytest.mark.asyncio
async def test_fleet_without_policy_only_watches():
    """No envelope, no harm: everything is Audit, and nothing tries to write what is not there."""
    rig = Rig()
    rig.delete("policies", "cluster")
    rig.break_node()

    await rig.fleet_pass()

    assert rig.runs() == {RUN: "WouldAct"}
    assert [sent.kind for sent in rig.server.sent] == ["CreateRun", "SaveRun"]


@pytest.mark.asyncio
async def test_fleet_one_bad_record_stops_no_other():
    """A record that the server will not take is one machine's misfortune."""
    rig = Rig(playbooks=[hard(mode="Audit")])
    rig.break_node("gpu-1", "gpu-2")
    rig.server.fate("CreateRun", Fails(PermanentError("422", status=422)))

    await rig.fleet_pass()

    assert list(rig.runs().values()) == ["WouldAct"]


@pytest.mark.asyncio
async def test_fleet_report_playbook_ends_at_birth():
    """To tell people needs no grant and touches nothing."""
    rig = Rig(playbooks=[hard("report")])
    rig.break_node()

    await rig.fleet_pass()
    await rig.fleet_pass()

    assert rig.runs() == {RUN: "Reported"}
    assert rig.granted() == []
    conditions = rig.run_status(RUN).conditions
    assert [(each.type, each.status) for each in conditions] == [("Succeeded", "True")]
    assert "FaultConfirmed" in rig.told()


@pytest.mark.asyncio
async def test_fleet_next_pass_is_due_when_something_waits():
    """Idle it looks every ten seconds; while somebody waits, every second."""
    rig = Rig(policy=roomy(max_concurrent=1))
    assert await rig.fleet_pass() == IDLE_S
    rig.break_node("gpu-1", "gpu-2")
    assert await rig.fleet_pass() == WAITING_S


@pytest.mark.asyncio
async def test_fleet_does_not_act_on_a_fault_that_is_gone_already():
    """Found by the demo: the event that ended the fault woke the pass, and the pass came first."""
    rig = Rig()
    rig.break_node()
    rig.diagnose()
    assert [fault.node for fault in rig.diagnoses.faults()] == ["gpu-1"]
    rig.heal_node()
    await rig.finish(rig.fleet.one_pass())
    assert rig.runs() == {}


@pytest.mark.asyncio
async def test_fleet_that_waits_for_a_clock_looks_less_and_less_often():
    """A storm guard is quiet for a quarter of an hour: the same answer each second is work for nobody."""
    rig = Rig(policy=roomy(max_concurrent=1))
    rig.break_node("gpu-1", "gpu-2")
    assert await rig.fleet_pass() == WAITING_S
    assert [await rig.fleet_pass() for _ in range(4)] == [2.0, 4.0, STANDING_S, STANDING_S]
    rig.break_node("gpu-3")
    assert await rig.fleet_pass() == WAITING_S, "somebody else waits as well"


@pytest.mark.asyncio
async def test_fleet_oldest_undecided_fault_has_an_age():
    """A stalled pass shows as the age of the fault that it has not looked at."""
    rig = await broken()
    rig.clock.stand_still(40)

    assert rig.fleet.oldest_undecided_s() == 40
    await rig.fleet_pass()
    assert rig.fleet.oldest_undecided_s() == 0


@pytest.mark.asyncio
async def test_fleet_writes_our_term_into_a_policy_that_was_created_late():
    """The fencing rule reads the term there: a policy of today must not carry none."""
    rig = Rig()
    rig.parts.set_term(7)
    rig.delete("policies", "cluster")
    await rig.fleet_pass()
    rig.server.put("policies", "cluster", a_custom("RemediationPolicy", roomy()))
    rig.server.flush()

    await rig.fleet_pass()

    assert rig.status().term == 7


@pytest.mark.asyncio
async def test_fleet_never_lowers_the_term():
    """A leader of yesterday gives no grants and writes no older term."""
    rig = Rig()
    rig.change("policies", "cluster", {"status": {"term": 9}})
    rig.break_node()

    await rig.fleet_pass()

    assert rig.status().term == 9
    assert rig.granted() == []
    assert rig.reasons() == ["OldTerm"]


@pytest.mark.asyncio
async def test_fleet_keeps_what_others_wrote_into_the_policy():
    """Keys that we do not know survive our PUT."""
    rig = await broken()
    rig.change("policies", "cluster", {"status": {"fromTheFuture": {"a": 1}}})

    await rig.fleet_pass()

    assert rig.server.get("policies", "cluster")["status"]["fromTheFuture"] == {"a": 1}
    assert rig.granted() == [RUN]


@pytest.mark.asyncio
async def test_fleet_says_once_why_a_request_waits():
    """One Event and one count per reason, not one per second."""
    rig = Rig(policy=roomy(max_concurrent=1))
    rig.break_node("gpu-1", "gpu-2")

    for _ in range(3):
        await rig.fleet_pass()

    assert rig.told().count("ConcurrencyReached") == 1
    assert rig.metrics.gauges["remediator_requests_waiting"] == 1
    assert rig.metrics.gauges["remediator_grants"] == 1


@pytest.mark.asyncio
async def test_fleet_records_over_the_policy_that_it_was_decided_on():
    """Another leader's grant came in between: written over, its spare would be promised twice."""
    rig = await broken()
    theirs = {"run": "other-1", "uid": "uid-gpu-9", "pool": "train", "spare": "spare-2", "at": text(0)}

    def meanwhile() -> tuple[int, ...]:
        """Asked for after the decision and before its writes."""
        if not rig.granted():
            rig.change("policies", "cluster", {"status": {"grants": [theirs], "term": 1}})
        return ()

    rig.fleet.baselined = meanwhile
    await rig.fleet_pass()

    assert rig.granted() == ["other-1"]


@pytest.mark.asyncio
async def test_fleet_writes_the_policys_conditions_once():
    """`kubectl get rpol` is true, and a quiet fleet writes nothing."""
    rig = Rig(policy=roomy(max_mode="Enforce"))

    await rig.fleet_pass()
    assert [(each.type, each.status) for each in rig.status().conditions] == [
        ("Ready", "True"),
    ]
    writes = len(rig.server.sent)
    for _ in range(3):
        rig.clock.stand_still(60)
        rig.fresh()
        await rig.fleet_pass()
    assert len(rig.server.sent) == writes

    rig.change("policies", "cluster", {"spec": {"pause": {"by": "ann"}}})
    await rig.fleet_pass()
    await rig.fleet_pass()

    ready = rig.status().conditions[0]
    assert (ready.status, ready.reason, ready.observed_generation) == ("False", "Paused", 2)
    assert len(rig.server.sent) == writes + 1


@pytest.mark.asyncio
async def test_fleet_conditions_take_no_grant_with_them():
    """News for people must not cost another leader's grant: over an older policy it is refused whole."""
    rig = Rig(policy=roomy(max_mode="Enforce"))
    until = write_instant(rig.clock.now() + timedelta(seconds=60))
    rig.change("policies", "cluster", {"spec": {"pause": {"by": "ann", "until": until}}})
    await rig.fleet_pass()
    assert rig.status().conditions[0].reason == "Paused"
    rig.server.lag("policies")
    rig.server.change("policies", "cluster", {"status": {"grants": [{"run": "m-1", "uid": "uid-gpu-5"}]}})
    writes = len(rig.server.sent)

    rig.clock.stand_still(3_600)
    rig.fresh()
    await rig.fleet_pass()

    assert [sent.kind for sent in rig.server.sent[writes:]] == ["SavePolicy"]
    assert rig.granted() == ["m-1"]
    assert rig.status().conditions[0].reason == "Paused"
