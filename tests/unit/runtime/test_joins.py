"""The loop at the join gate: what it writes, what it waits for, and what it does when writes go wrong."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import UNSET

from remediator.errors import PermanentError
from remediator.model.joins import GATE_KEY, JoinsSpec, JoinsStatus
from remediator.model.keys import ANNOTATION_JOINED
from remediator.ports import Refusal
from tests.unit.runtime.fates import Fails, Lost, Refused
from tests.unit.runtime.rig import GPU_TAINT, Rig, node_json, roomy

pytestmark = pytest.mark.asyncio

GATE = {"key": GATE_KEY, "effect": "NoSchedule"}


async def a_rig(**joins: Any) -> Rig:
    """With the gate in force, and none but old nodes."""
    rig = Rig(policy=roomy(joins=JoinsSpec(**({"mode": "Enforce"} | joins))))
    rig.server.pods.clear()
    rig.clock.stand_still(5)
    rig.fresh()
    await rig.fleet_pass()
    rig.clock.stand_still(5)
    rig.fresh()
    return rig


def books(rig: Rig) -> JoinsStatus:
    found = rig.status().joins
    assert found is not UNSET
    return found


def arrive(rig: Rig, name: str, *, gated: bool = True, **more: Any) -> None:
    """A new node registers."""
    rig.server.put("nodes", name, node_json(name, taints=[GPU_TAINT, *([GATE] if gated else [])], **more))


async def look(rig: Rig) -> None:
    """One look, one pass, and one look at what the pass has paid."""
    await rig.finish(rig.joins.once())
    await rig.fleet_pass()
    await rig.finish(rig.joins.once())
    await rig.fleet_pass()


def is_in(rig: Rig, name: str) -> bool:
    node = rig.server.feeds["nodes"].objects[name]
    return ANNOTATION_JOINED in node["metadata"]["annotations"] and GATE_KEY not in rig.taints(name)


def kinds(rig: Rig) -> list[str]:
    return [sent.kind for sent in rig.server.sent if sent.by.step.startswith("join")]


async def test_a_new_node_is_proved_paid_for_and_let_in():
    """One write for the proof, one of the books, one for the gate."""
    rig = await a_rig()
    arrive(rig, "new")
    await look(rig)

    assert is_in(rig, "new")
    assert kinds(rig) == ["SetCondition", "PatchNode"]
    assert books(rig).releasing == ()
    assert books(rig).rates[0].tokens == 9.0


async def test_nothing_opens_before_the_books_are_stored():
    """A pass that lost its compare-and-swap has paid nothing."""
    rig = await a_rig()
    arrive(rig, "new")
    await rig.finish(rig.joins.once())
    rig.server.fate("SavePolicy", Refused(Refusal.CONFLICT))
    await rig.fleet_pass()
    await rig.finish(rig.joins.once())
    assert not is_in(rig, "new")

    await look(rig)

    assert is_in(rig, "new")


async def test_a_patch_whose_reply_is_lost_is_found_by_looking():
    """It landed: it is not sent again, and its token is not paid again."""
    rig = await a_rig()
    arrive(rig, "new")
    await rig.finish(rig.joins.once())
    await rig.fleet_pass()
    rig.server.fate("PatchNode", Lost(committed=True))
    await rig.finish(rig.joins.once())
    await look(rig)

    assert is_in(rig, "new")
    assert kinds(rig).count("PatchNode") == 1
    assert books(rig).rates[0].tokens == 9.0


async def test_nothing_opens_while_we_are_blind():
    """Also not what is paid: the node may be another one by now."""
    rig = await a_rig()
    arrive(rig, "new")
    await rig.finish(rig.joins.once())
    await rig.fleet_pass()
    rig.clock.stand_still(200)
    assert rig.health.blind()
    await look(rig)
    assert not is_in(rig, "new")

    rig.fresh()
    await look(rig)

    assert is_in(rig, "new")


async def test_a_node_that_turns_bad_after_it_was_paid_stays_shut():
    """Its token is lost, and the next one goes in."""
    rig = await a_rig()
    arrive(rig, "new")
    arrive(rig, "next")
    await rig.finish(rig.joins.once())
    await rig.fleet_pass()
    assert [each.node for each in books(rig).releasing] == ["new", "next"]
    rig.break_node("new")
    rig.diagnose()
    rig.clock.stand_still(60)
    rig.fresh()
    rig.diagnose()
    await look(rig)

    assert not is_in(rig, "new")
    assert is_in(rig, "next")
    assert books(rig).releasing == ()
    assert "PreflightFailed" in rig.told()


async def test_a_gate_that_was_missing_is_shut_and_told():
    """The remedy is the kubelet's own taint."""
    rig = await a_rig()
    arrive(rig, "new", gated=False)
    await rig.finish(rig.joins.once())

    assert GATE_KEY in rig.taints("new")
    assert "JoinGateMissing" in rig.told()


async def test_old_nodes_are_left_as_they_are():
    """Nor does a change of theirs make them new."""
    rig = await a_rig()
    rig.change("nodes", "gpu-1", {"metadata": {"labels": {"team": "other"}}})
    await look(rig)

    assert kinds(rig) == []


async def test_a_right_that_is_missing_is_told_once_and_asked_for_less_and_less():
    """Whoever reads the log at night needs one line, and the server no stream of refusals."""
    rig = await a_rig()
    arrive(rig, "new")
    rig.server.fate(
        "SetCondition", *[Fails(PermanentError("403: cannot patch nodes/status", status=403))] * 6
    )

    pauses = [await rig.finish(rig.joins._turn()) for _ in range(6)]
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0]

    await rig.finish(rig.joins._turn())
    await look(rig)
    assert is_in(rig, "new")


async def test_whoever_was_let_in_is_forgotten_once_it_has_settled():
    """An index that keeps every node that ever joined would be the whole fleet in a year."""
    rig = await a_rig()
    arrive(rig, "new")
    await look(rig)
    assert rig.newcomers
    rig.clock.stand_still(601)
    rig.fresh()
    await look(rig)

    assert not rig.newcomers


async def test_without_joins_nothing_is_gated():
    """Nobody has asked for it."""
    rig = Rig(policy=roomy())
    await rig.fleet_pass()
    arrive(rig, "new", gated=False)
    arrive(rig, "gated")
    await look(rig)

    assert kinds(rig) == []
    assert GATE_KEY in rig.taints("gated")


async def test_limits_that_can_not_be_followed_let_nobody_in():
    """The condition says why."""
    rig = await a_rig(deadline="0s")
    arrive(rig, "new")
    await look(rig)

    assert not is_in(rig, "new")
    (joins,) = [each for each in rig.status().conditions if each.type == "JoinsReady"]
    assert (joins.status, joins.reason) == ("False", "InvalidSpec")
    assert "spec.joins.deadline is zero" in joins.message
