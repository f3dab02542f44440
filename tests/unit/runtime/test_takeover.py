"""Between the term and the first pass: what an older leader has on its way must come to nothing."""

from __future__ import annotations

import pytest

from remediator.errors import PermanentError
from remediator.ports import Refusal
from remediator.runtime.takeover import PROPAGATION_S, TOUCH_WITHIN_S
from tests.unit.runtime.fates import Fails, Fate, First, Lost, Refused
from tests.unit.runtime.rig import Rig, hard

RUN = "machine-gpu-1-1"
TERM = "remediator.dev/term"


async def in_flight() -> Rig:
    """A leader died right after its grant: gpu-1 is to be quarantined, a spare is claimed."""
    rig = Rig(playbooks=[hard("quarantine", "swap", "drain", "handoff")])
    rig.break_node()
    await rig.fleet_pass()
    rig.again()
    rig.takeover.term = 7
    return rig


def touched(rig: Rig) -> dict[str, str]:
    nodes = {name: rig.server.get("nodes", name) for name in rig.server.names("nodes")}
    return {
        name: node["metadata"]["annotations"][TERM]
        for name, node in nodes.items()
        if node["metadata"].get("annotations", {}).get(TERM)
    }


def version(rig: Rig, name: str) -> str:
    return str(rig.server.get("nodes", name)["metadata"]["resourceVersion"])


def patches(rig: Rig) -> int:
    return sum(sent.kind == "PatchNode" for sent in rig.server.sent)


@pytest.mark.asyncio
async def test_takeover_touches_leaver_and_claimed_spare():
    """Only these two could an older leader patch: the versions that its patches name are gone."""
    rig = await in_flight()
    (grant,) = rig.status().grants
    before = {
        name: rig.server.get("nodes", name)["metadata"]["resourceVersion"] for name in ("gpu-1", grant.spare)
    }

    await rig.finish(rig.takeover.settle())

    assert touched(rig) == {"gpu-1": "7", grant.spare: "7"}
    for name, version in before.items():
        assert rig.server.get("nodes", name)["metadata"]["resourceVersion"] != version


@pytest.mark.asyncio
async def test_takeover_waits_before_it_touches():
    """An older patch that lands before the server knows the term must land before the touch, not after."""
    rig = await in_flight()
    task = rig.background(rig.takeover.settle())
    await rig.clock.advance(PROPAGATION_S - 0.01)
    early = touched(rig)
    await rig.clock.advance(0.02)
    await rig.settle(20)

    assert early == {}
    assert "gpu-1" in touched(rig)
    await task


@pytest.mark.asyncio
async def test_takeover_of_an_idle_fleet_neither_waits_nor_writes():
    """A start must not cost a moment, nor a write, where nobody can have anything on its way."""
    rig = Rig()
    began = rig.clock.monotonic()

    await rig.takeover.settle()

    assert (rig.clock.monotonic(), rig.server.sent) == (began, [])


@pytest.mark.asyncio
async def test_takeover_touches_the_newer_version_after_a_conflict():
    """A conflict says that somebody wrote, and that may have been the older leader."""
    rig = await in_flight()
    rig.server.fate(
        "PatchNode", First(lambda: rig.change("nodes", "gpu-1", {"metadata": {"labels": {"x": "y"}}}))
    )

    await rig.finish(rig.takeover.settle())

    assert touched(rig)["gpu-1"] == "7"
    assert patches(rig) == 3


@pytest.mark.asyncio
@pytest.mark.parametrize(("committed", "sent"), [(True, 2), (False, 3)])
async def test_takeover_asks_again_after_a_lost_reply_unless_it_sees_that_it_was_done(
    committed: bool, sent: int
):
    """Found by seed 69: a second touch of the same term changes nothing, and was sent all the same."""
    rig = await in_flight()
    rig.server.fate("PatchNode", Lost(committed=committed))

    await rig.finish(rig.takeover.settle())

    assert touched(rig)["gpu-1"] == "7"
    assert patches(rig) == sent


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("fate", "sent"),
    [
        (Fails(PermanentError("patch nodes is forbidden")), 2),
        (Refused(Refusal.FENCED), 2),
        (Refused(Refusal.GONE), 2),
    ],
    ids=["no right", "fenced", "gone"],
)
async def test_takeover_leaves_a_node_that_it_cannot_touch(fate: Fate, sent: int):
    """One bad node, or a right that was taken away, must not keep the fleet without a leader."""
    rig = await in_flight()
    rig.server.fate("PatchNode", fate)

    await rig.finish(rig.takeover.settle())

    assert len(touched(rig)) == 1
    assert patches(rig) == sent


@pytest.mark.asyncio
async def test_takeover_gives_up_in_bounded_time():
    """An overloaded server refuses for minutes: the fleet must not be without a leader for as long."""
    rig = await in_flight()
    rig.server.fate("PatchNode", *([Refused(Refusal.OVERLOAD)] * 1_000))
    began = rig.clock.monotonic()

    await rig.finish(rig.takeover.settle())

    assert touched(rig) == {}
    assert TOUCH_WITHIN_S <= rig.clock.monotonic() - began < 2 * TOUCH_WITHIN_S


@pytest.mark.asyncio
async def test_takeover_behind_a_cache_that_hangs_sends_no_stream_of_touches():
    """Found by seed 1354: other nodes had brought the cache past this version, and a 409 followed a 409."""
    rig = await in_flight()
    other = next(name for name in rig.server.names("nodes") if name != "gpu-1")
    rig.change("nodes", other, {"metadata": {"labels": {"x": "y"}}})
    await rig.settle(20)
    rig.server.lag("nodes")
    rig.change("nodes", "gpu-1", {"metadata": {"labels": {"x": "y"}}})
    before = patches(rig)

    await rig.finish(rig.takeover.settle())

    assert "gpu-1" not in touched(rig)
    assert 4 <= patches(rig) - before <= 12


@pytest.mark.asyncio
async def test_takeover_skips_a_node_that_is_gone():
    """Deleted in mid-run: there is nothing that an older patch could hit."""
    rig = await in_flight()
    rig.delete("nodes", "gpu-1")

    await rig.finish(rig.takeover.settle())

    assert "gpu-1" not in touched(rig)
