"""The way back of a machine that is out: retry and return, end to end over a small API server."""

from __future__ import annotations

import pytest
from msgspec import UNSET

from tests.unit.runtime.rig import Rig, hard
from tests.unit.runtime.test_scout import ask

FIRST, SECOND = "machine-gpu-1-1", "machine-gpu-1-2"
MACHINE = "machine-gpu-1"

pytestmark = pytest.mark.asyncio


async def handed_off(*actions: str) -> Rig:
    """A rig whose gpu-1 was handed to people, and has been mended since."""
    rig = Rig(playbooks=[hard(*actions or ("quarantine", "swap", "drain", "detach", "handoff"))])
    rig.break_node()
    await rig.play(20, seconds=2)
    assert rig.runs() == {FIRST: "HandedOff"}
    rig.heal_node()
    await rig.round(1)
    return rig


def pool_of(rig: Rig, node: str) -> str:
    return rig.world.census.home(node) or ""


def spares(rig: Rig) -> int:
    return len(rig.world.census.members("buffer"))


async def test_return_proves_the_machine_and_puts_it_into_the_named_pool():
    rig = await handed_off()
    ask(rig, returnTo="buffer")

    await rig.play(40, seconds=60)

    run = rig.run(SECOND)
    assert (run.spec.trigger, run.spec.by, run.spec.return_to) == ("Return", "ann", "buffer")
    assert rig.state(SECOND) == "Returned"
    assert (rig.quarantined("gpu-1"), pool_of(rig, "gpu-1")) == (False, "buffer")
    assert rig.ledger(MACHINE).out is UNSET


async def test_return_of_a_machine_that_is_not_well_leaves_it_out():
    """A person's word is no proof; the place that was filled is not counted as missing."""
    rig = await handed_off()
    rig.break_node()
    ask(rig, returnTo="train")

    await rig.play(60, seconds=180)

    assert rig.state(SECOND) == "Failed"
    assert rig.quarantined("gpu-1")
    kept = rig.ledger(MACHINE).out
    assert kept is not UNSET
    assert (kept.run, kept.pool) == (SECOND, "")


async def test_return_that_is_cancelled_leaves_the_machine_out_as_it_was():
    """Who stops the way back does not say that the machine is well."""
    rig = await handed_off()
    ask(rig, returnTo="buffer")
    await rig.play(4, seconds=2)
    assert rig.state(SECOND) == "Verifying"

    rig.change("runs", SECOND, {"spec": {"cancel": {"by": "ann", "reason": "not yet"}}})
    await rig.play(10, seconds=2)

    assert rig.state(SECOND) == "Cancelled"
    assert rig.quarantined("gpu-1")
    kept = rig.ledger(MACHINE).out
    assert kept is not UNSET
    assert kept.run == FIRST
    assert rig.ledger(MACHINE).veto_until == ""


async def test_return_ends_when_somebody_lifts_the_quarantine_meanwhile():
    """That is a decision: the machine is theirs, and nothing of ours is left on it."""
    rig = await handed_off()
    ask(rig, returnTo="buffer")
    await rig.play(4, seconds=2)

    rig.change("nodes", "gpu-1", {"spec": {"taints": [], "unschedulable": None}})
    await rig.play(10, seconds=2)

    assert rig.state(SECOND) == "Cancelled"
    assert not rig.quarantined("gpu-1")
    left = rig.world.nodes["gpu-1"].annotations.keys() - {"remediator.dev/term"}
    assert not [key for key in left if key.startswith("remediator.dev/")]
    assert rig.ledger(MACHINE).out is UNSET


async def test_retry_takes_no_second_spare_and_hands_off_again():
    """The whole playbook, but the place has its spare."""
    rig = await handed_off()
    before = spares(rig)
    ask(rig)

    await rig.play(30, seconds=5)

    assert rig.state(SECOND) == "HandedOff"
    assert [step.action for step in rig.run_status(SECOND).steps] == [
        "quarantine", "drain", "detach", "repair",
    ]  # fmt: skip
    assert spares(rig) == before
    kept = rig.ledger(MACHINE).out
    assert kept is not UNSET
    assert (kept.run, kept.pool) == (SECOND, "")


async def test_return_waits_where_the_pool_does_not_exist():
    """A typo holds the request up, with its name, and nothing is touched."""
    rig = await handed_off()
    ask(rig, returnTo="trian")
    await rig.play(3, seconds=2)

    assert rig.runs() == {FIRST: "HandedOff"}
    assert rig.reasons() == ["NoSuchPool"]


async def test_return_of_a_machine_that_serves_is_nothing_to_do():
    """Only what is out can come back."""
    rig = Rig(playbooks=[hard("quarantine", "drain", "handoff")])
    ask(rig, returnTo="buffer")
    await rig.play(3, seconds=2)

    assert rig.runs() == {}


async def test_request_is_answered_once_by_its_way_back():
    """The same request must not begin a third run after the second has ended."""
    rig = await handed_off()
    ask(rig)
    await rig.play(60, seconds=30)

    assert sorted(rig.runs()) == [FIRST, SECOND]
    assert rig.ledger(MACHINE).request_done == rig.run(SECOND).spec.first_seen
