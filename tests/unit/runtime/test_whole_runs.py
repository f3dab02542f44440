"""Whole runs on the in-memory server: to the end, and through a crash at every single write."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from remediator.model.playbook import PlaybookInForce
from tests.unit.core.builders import BUFFER, REPAIR, TRAIN
from tests.unit.runtime.fates import Crash, Lost
from tests.unit.runtime.rig import Rig, hard, soft

RUN = "machine-gpu-1-1"
KINDS: dict[str, Callable[[], PlaybookInForce]] = {"hard": hard, "soft": soft}
# What happens outside, each of which may happen once and no more.
EFFECTS = {
    f"run {RUN}",
    f"patch gpu-1 {RUN}/fence",
    "patch spare-1",
    "evict team/a",
    "evict team/b",
    f"patch gpu-1 {RUN}/detach",
    f"job {RUN}-reboot-1",
    "patch gpu-1 None",
}


def effects(rig: Rig) -> dict[str, int]:
    """How often each thing happened that is more than our own bookkeeping."""
    return {name: count for name, count in rig.server.effects.items() if name[0].islower()}


def end_of(rig: Rig) -> dict[str, object]:
    """What stands on the server when all is over, times aside."""
    ledger = rig.ledger("machine-gpu-1")
    node = rig.server.get("nodes", "gpu-1")
    return {
        "runs": rig.runs(),
        "spare": rig.server.get("nodes", "spare-1")["metadata"]["labels"],
        "labels": node["metadata"]["labels"],
        "taints": rig.taints("gpu-1"),
        "cordoned": node["spec"].get("unschedulable", False),
        "marks": sorted(node["metadata"]["annotations"]),
        "grants": rig.granted(),
        "pods": sorted(rig.server.pods),
        "jobs": sorted(rig.server.jobs),
        "ledger": (ledger.state, ledger.runs, len(ledger.strikes), [each.outcome for each in ledger.history]),
    }


async def undisturbed(kind: str) -> Rig:
    rig = Rig(playbooks=[KINDS[kind]()])
    rig.break_node()
    await rig.play()
    return rig


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pools", [(TRAIN, BUFFER), (TRAIN, BUFFER, REPAIR)], ids=["plain", "repair-pool"])
async def test_run_is_carried_to_its_end(kind, pools):
    """A broken machine is replaced, repaired, proved and returned, each thing once."""
    rig = Rig(playbooks=[KINDS[kind]()], pools=pools)
    rig.break_node()

    await rig.play()

    assert rig.runs() == {RUN: "Returned"}
    assert effects(rig) == dict.fromkeys(EFFECTS, 1)
    assert rig.server.get("nodes", "gpu-1")["metadata"]["labels"]["example.com/pool"] == "buffer"
    assert rig.server.get("nodes", "spare-1")["metadata"]["labels"]["example.com/pool"] == "train"
    assert rig.granted() == []


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("committed", [False, True], ids=["not-stored", "stored"])
async def test_crash_at_any_write_changes_nothing_in_the_end(kind, committed):
    """The process may die around any write: the next one finds out, and does nothing twice."""
    reference = await undisturbed(kind)
    expected, writes = end_of(reference), len(reference.server.sent)

    for at in range(1, writes + 1):
        rig = Rig(playbooks=[KINDS[kind]()])
        rig.server.crash_at, rig.server.commit_before_crash = at, committed
        rig.break_node()
        with pytest.raises(Crash):
            await rig.play()
        rig.again()
        await rig.play(200)

        found = end_of(rig)
        if rig.runs().get(RUN) == "NotGranted":  # the crash fell between the record and its grant
            assert at <= 2
            assert list(rig.runs().values()) == ["NotGranted", "Returned"]
            assert {count for name, count in effects(rig).items()} == {1}
        else:
            assert found == expected, f"crash at write {at}"
            assert effects(rig) == dict.fromkeys(EFFECTS, 1), f"crash at write {at}"


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("committed", [False, True], ids=["not-stored", "stored"])
async def test_lost_reply_at_any_write_changes_nothing_in_the_end(kind, committed):
    """A reply that never came says nothing: what counts is what stands on the server."""
    reference = await undisturbed(kind)
    expected = end_of(reference)
    counts: dict[str, int] = {}
    for sent in reference.server.sent:
        counts[sent.kind] = counts.get(sent.kind, 0) + 1

    for what, number in counts.items():
        for at in range(number):
            rig = Rig(playbooks=[KINDS[kind]()])
            rig.server.skip(what, at, Lost(committed))
            rig.break_node()
            await rig.play(200)

            if rig.runs().get(RUN) == "NotGranted":
                assert list(rig.runs().values()) == ["NotGranted", "Returned"]
                assert set(effects(rig).values()) == {1}
            else:
                assert end_of(rig) == expected, f"lost reply to {what} {at}"
                assert effects(rig) == dict.fromkeys(EFFECTS, 1), f"lost reply to {what} {at}"


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", KINDS)
async def test_crash_after_every_turn_changes_nothing_in_the_end(kind):
    """Nothing that a run needs lives only in memory."""
    expected = end_of(await undisturbed(kind))
    rig = Rig(playbooks=[KINDS[kind]()])
    rig.break_node()

    for _ in range(60):
        await rig.round(5)
        rig.again()

    assert end_of(rig) == expected
    assert effects(rig) == dict.fromkeys(EFFECTS, 1)
