"""One view of everything: our own writes before the watch shows them, and the indexes beside the caches."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace

from remediator.core.account import run_state
from remediator.model.remediation import Remediation, RemediationStatus, RunState
from remediator.ports import PolicyObject
from tests.unit.core.builders import a_run
from tests.unit.runtime.api_server import a_custom
from tests.unit.runtime.rig import Rig, hard, node_json

MACHINE = "machine-gpu-1"


def a_record(rig: Rig, name: str = "m-1", **status: object) -> None:
    """Somebody's run, seen by the watch."""
    rig.server.put("runs", name, a_custom("Remediation", a_run(name).spec, **status))
    rig.server.flush()


def newer(rig: Rig, name: str, version: int, *, state: str) -> Remediation:
    """The server's reply to a write of ours."""
    run = rig.run(name)
    meta = replace(run.metadata, resource_version=str(version))
    return replace(run, metadata=meta, status=RemediationStatus(state=state))


def test_world_shows_our_write_until_the_watch_does():
    """Read-your-writes: the next decision must know what the last one stored."""
    rig = Rig()
    a_record(rig)
    version = rig.server.version

    rig.world.wrote_run(newer(rig, "m-1", version + 1, state="Held"))
    assert run_state(rig.world.open_runs["m-1"]) is RunState.HELD
    rig.server.version += 1  # the same write arrives, and then somebody else's
    rig.change("runs", "m-1", {"status": {"state": "Cancelled"}})

    assert run_state(rig.world.ended_runs["m-1"]) is RunState.CANCELLED
    assert "m-1" not in rig.world.open_runs


def test_world_ignores_an_old_reply():
    """The watch may be ahead of the reply: the newer version counts."""
    rig = Rig()
    a_record(rig, state="Returned")

    rig.world.wrote_run(newer(rig, "m-1", 1, state="Verifying"))

    assert "m-1" in rig.world.ended_runs


def test_world_keeps_a_run_that_only_we_know_of():
    """Created a moment ago: it counts before the watch shows it, and not after the server denies it."""
    rig = Rig()
    run = replace(a_run("m-1"), metadata=replace(a_run("m-1").metadata, resource_version="900"))

    rig.world.wrote_run(run)
    assert list(rig.world.open_runs) == ["m-1"]
    assert rig.world.seen_run("m-1") is False
    rig.world.forget_run("m-1")

    assert not rig.world.open_runs


def test_world_deleting_an_open_run_is_a_veto():
    """Not again for the hold time, on the whole machine."""
    rig = Rig()
    a_record(rig)

    rig.delete("runs", "m-1")

    assert rig.world.veto_of("m") == ("2026-01-02T00:16:40Z", "somebody deleted m-1")
    assert rig.world.settled_ledgers()["m"].veto_until == "2026-01-02T00:16:40Z"


def test_world_deleting_an_ended_run_is_none():
    """Old records go; that says nothing about the machine."""
    rig = Rig()
    a_record(rig, state="Returned")

    rig.delete("runs", "m-1")

    assert rig.world.veto_of("m") is None
    assert rig.world.ended_of("m") == ()


def test_world_a_list_that_fails_deletes_nothing():
    """Only a complete list, or a DELETED event, is a deletion."""
    rig = Rig()
    a_record(rig)
    rig.server.feeds["runs"].store.synced = False

    assert list(rig.world.open_runs) == ["m-1"]
    assert rig.world.caches.missing() == ("remediations",)
    assert rig.world.veto_of("m") is None


def test_world_numbers_are_never_used_again():
    """Names of runs and of their Jobs are unique for ever: deleted runs count, and the ledger does."""
    rig = Rig()
    assert rig.world.next_number("m") == 1
    a_record(rig, "m-4", state="Returned")
    assert rig.world.next_number("m") == 5
    rig.delete("runs", "m-4")
    assert rig.world.next_number("m") == 5
    rig.server.put("ledgers", "m", a_custom("ManagedNode", {}, runs=9))
    rig.server.flush()

    assert rig.world.next_number("m") == 10


def test_world_names_follow_the_nodes():
    """Grants name Nodes by uid: the index must follow a Node that is made anew."""
    rig = Rig()
    assert rig.world.names["uid-gpu-1"] == "gpu-1"
    rig.delete("nodes", "gpu-1")
    assert "uid-gpu-1" not in rig.world.names
    other = node_json("gpu-1")
    other["metadata"]["uid"] = "uid-other"
    rig.server.put("nodes", "gpu-1", other)
    rig.server.flush()

    assert rig.world.names["uid-other"] == "gpu-1"
    assert [node.uid for node in rig.world.nodes_of(MACHINE)] == ["uid-other"]


def test_world_two_nodes_with_one_identity_are_in_conflict():
    """Neither may be touched until people say which machine is which; then both are free again."""
    rig = Rig()
    twin = {"status": {"nodeInfo": {"bootID": "b", "systemUUID": MACHINE}}}
    rig.change("nodes", "gpu-2", twin)
    assert rig.world.conflicted() == {"gpu-1", "gpu-2"}
    assert len(rig.world.nodes_of(MACHINE)) == 2

    rig.delete("nodes", "gpu-2")

    assert rig.world.conflicted() == frozenset()


@pytest.mark.asyncio
async def test_world_conflict_keeps_both_out():
    """Two live Nodes, one machine: the gate says so."""
    rig = Rig()
    rig.change("nodes", "gpu-2", {"status": {"nodeInfo": {"bootID": "b", "systemUUID": MACHINE}}})
    rig.break_node()

    await rig.fleet_pass()

    assert rig.reasons() == ["IdentityConflict"]


def test_world_identity_follows_the_policy():
    """A change of the identity rules files every node anew."""
    rig = Rig()
    rig.change("nodes", "gpu-1", {"metadata": {"labels": {"asset": "A-17"}}})
    rig.change("policies", "cluster", {"spec": {"identity": {"labels": ["asset"]}}})

    node = rig.world.node("gpu-1")
    assert node is not None
    assert rig.world.machine(node).startswith("a-17")
    assert rig.world.nodes_of(MACHINE) == ()


def test_world_pools_are_counted_anew_when_they_change():
    """Who is a member of what follows the pools' labels."""
    rig = Rig()
    assert rig.world.census.size("train") == 5
    rig.change("pools", "train", {"spec": {"membership": {"value": "other"}}})

    assert rig.world.census.size("train") == 0
    assert rig.world.spares() == {"spare-1", "spare-2"}


def test_world_status_of_our_own_objects_is_no_news():
    """Our own status writes must not judge ten thousand nodes anew."""
    rig = Rig()
    told: list[str] = []
    rig.world.on_rules = lambda: told.append("rules")

    rig.change("policies", "cluster", {"status": {"term": 3}})
    rig.change("playbooks", "p", {"status": {"active": 1}})
    assert told == []
    rig.change("playbooks", "p", {"spec": {"mode": "Audit"}})

    assert told == ["rules"]
    assert rig.world.playbooks[0].spec.mode == "Audit"


def test_world_follows_the_last_good_version_of_a_playbook():
    """A bad edit changes nothing; without a good version there is none to follow."""
    rig = Rig()
    good = rig.world.playbooks[0]
    bad = [{"id": "drain", "drain": {}}]
    rig.change("playbooks", "p", {"spec": {"steps": bad}})
    assert not rig.world.playbooks

    rig.change("playbooks", "p", {"status": {"inForce": good.text, "inForceGeneration": 1}})
    rig.change("playbooks", "p", {"spec": {"summary": "still bad"}})

    found = {each.generation: each.actions for each in rig.world.playbooks}
    assert found == {1: good.actions}


def test_world_last_good_version_that_does_not_read_is_none():
    """A status of an older program must not stop the fleet."""
    rig = Rig(playbooks=[hard(), hard("quarantine", name="q")])
    bad = [{"id": "drain", "drain": {}}]

    rig.change("playbooks", "p", {"spec": {"steps": bad}, "status": {"inForce": '{"summary": 1}'}})

    assert [each.name for each in rig.world.playbooks] == ["q"]


def test_world_newest_policy_counts_whoever_showed_it():
    """Our own PUT counts before the watch shows it, and a newer one of somebody else after that."""
    rig = Rig()
    rig.server.lag("policies")
    seen = rig.world.policy
    assert seen is not None
    meta = replace(seen.policy.metadata, resource_version=str(rig.server.version + 1))
    mine = replace(seen.policy, metadata=meta, status=msgspec.convert({"term": 5}, type(rig.status())))
    rig.world.wrote_policy(PolicyObject(policy=mine, raw=seen.raw))
    assert rig.world.policy_status.term == 5
    rig.server.version += 1
    rig.server.change("policies", "cluster", {"status": {"term": 6}})
    rig.server.catch_up()

    assert rig.world.policy_status.term == 6


def test_world_adopted_machines_count_until_their_date():
    """Known to be out, until then; a date that nobody can read adopts nothing and breaks nothing."""
    rig = Rig()
    for number, until in [(1, "2026-01-02T00:00:00Z"), (2, "2025-01-01T00:00:00Z"), (3, "next week")]:
        spec = {"adopt": {"until": until}}
        rig.server.put("ledgers", f"machine-gpu-{number}", a_custom("ManagedNode", spec))
    rig.server.flush()

    assert rig.world.adopted() == {"gpu-1"}


def test_world_one_machine_settles_like_all_of_them():
    """Both ways to ask give the same answer."""
    rig = Rig()
    steps = [{"id": "f", "action": "quarantine", "state": "Done", "startedAt": "2026-01-01T00:00:00Z"}]
    a_record(rig, state="HandedOff", steps=steps, finishedAt="2026-01-01T00:10:00Z")

    assert rig.world.settled_ledger("m").state == "Out"
    assert rig.world.settled_ledger("m") == rig.world.settled_ledgers()["m"]
