"""What one run is shown: what is known now, and unknown where nobody has looked since the pause."""

from __future__ import annotations

from typing import Any

import pytest

from remediator.model.decision import Look
from remediator.model.policy import ConditionPolarity
from remediator.model.views import PodView
from remediator.ports import Refusal
from tests.unit.core.builders import a_pod
from tests.unit.runtime.api_server import a_custom
from tests.unit.runtime.fates import Lost, Refused
from tests.unit.runtime.rig import Rig, hard, node_json, roomy, soft, with_exporter, xid_book

RUN = "machine-gpu-1-1"


async def granted(**fields: Any) -> Rig:
    rig = Rig(**({"playbooks": [hard("quarantine", "drain", "handoff")]} | fields))
    rig.break_node()
    await rig.fleet_pass()
    return rig


def pods_of(rig: Rig) -> tuple[PodView, ...] | None:
    return rig.observer.run_view(rig.run(RUN)).pods


@pytest.mark.asyncio
async def test_observer_pods_are_unknown_until_they_are_read():
    """Unknown is not empty."""
    rig = await granted()
    assert pods_of(rig) is None

    await rig.observer.look(Look.PODS, rig.observer.run_view(rig.run(RUN)))
    assert [pod.name for pod in pods_of(rig) or ()] == ["a", "b"]
    rig.observer.begin_turn(RUN)

    assert pods_of(rig) is None


@pytest.mark.asyncio
async def test_observer_empty_counts_only_after_our_taint_was_seen():
    """A pod that was bound before the taint may be missing from an earlier list."""
    rig = await granted()
    await rig.observer.look(Look.PODS, rig.observer.run_view(rig.run(RUN)))
    assert rig.observer.run_view(rig.run(RUN)).pods_confirmed is False

    rig.server.blocked_pods = {"team/a"}
    await rig.turn(RUN)
    assert rig.quarantined("gpu-1")
    await rig.observer.look(Look.PODS, rig.observer.run_view(rig.run(RUN)))

    assert rig.observer.run_view(rig.run(RUN)).pods_confirmed is True


@pytest.mark.asyncio
async def test_observer_pods_of_a_namesake_are_not_ours():
    """Pods older than the Node belonged to another machine of that name."""
    rig = await granted()
    rig.server.pods["team/old"] = a_pod("old", created_at="2020-01-01T00:00:00Z")

    await rig.observer.look(Look.PODS, rig.observer.run_view(rig.run(RUN)))

    assert [pod.name for pod in pods_of(rig) or ()] == ["a", "b"]


@pytest.mark.asyncio
async def test_observer_node_of_another_uid_is_none():
    """A new Node of that name is not the one the run is about."""
    rig = await granted()
    rig.change("nodes", "gpu-1", {"metadata": {"uid": "uid-new"}})

    assert rig.observer.run_view(rig.run(RUN)).node is None
    await rig.turn(RUN)
    assert rig.state(RUN) == "NodeGone"
    assert not rig.quarantined("gpu-1")


@pytest.mark.asyncio
async def test_observer_refused_eviction_is_left_alone_for_a_while():
    """Other pods go meanwhile; after a few seconds the server is asked again."""
    rig = await granted()
    rig.observer.refuse(RUN, "team/a", "budget", 5.0)
    assert rig.observer.run_view(rig.run(RUN)).refused_evictions == {"team/a": "budget"}

    rig.clock.stand_still(5)

    assert rig.observer.run_view(rig.run(RUN)).refused_evictions == {}


@pytest.mark.asyncio
async def test_observer_forgets_a_run_that_ended():
    """Looks are kept for open runs only."""
    rig = await granted()

    await rig.turn(RUN)

    assert rig.state(RUN) == "HandedOff"
    await rig.turn(RUN)
    assert RUN not in rig.observer._memory


@pytest.mark.asyncio
@pytest.mark.parametrize(("kind", "name"), [("policies", "cluster"), ("pools", "train"), ("playbooks", "p")])
async def test_observer_shows_a_pause_of_any_scope(kind, name):
    """Whoever pauses, the run waits before its next step and says for whom."""
    rig = await granted()
    rig.change(kind, name, {"spec": {"pause": {"by": "ann", "reason": "audit"}}})

    await rig.turn(RUN)
    assert not rig.quarantined("gpu-1")
    assert "paused by ann" in rig.run_status(RUN).waits_for
    rig.change(kind, name, {"spec": {"pause": None}})
    await rig.turn(RUN)

    assert rig.quarantined("gpu-1")


@pytest.mark.asyncio
async def test_observer_two_soft_runs_do_not_move_one_gang():
    """Pods of one job on two nodes: one run evicts, the other waits for it."""
    gang = {"jobset.sigs.k8s.io/jobset-name": "big"}
    rig = Rig(playbooks=[soft("quarantine", "drain", "handoff")])
    rig.server.pods = {
        "team/a": a_pod("a", labels=gang),
        "team/b": a_pod("b", node="gpu-2", labels=gang),
    }
    rig.server.fate("EvictPod", Refused(Refusal.OVERLOAD, retry_after_s=30.0))
    rig.break_node("gpu-1", "gpu-2")
    await rig.fleet_pass()

    await rig.turn(RUN)
    await rig.turn("machine-gpu-2-1")
    assert "gang" in rig.run_status("machine-gpu-2-1").waits_for
    assert "evict team/b" not in rig.server.effects
    await rig.turn(RUN)
    await rig.turn("machine-gpu-2-1")

    assert rig.server.effects["evict team/b"] == 1


@pytest.mark.asyncio
async def test_observer_blind_exporter_is_no_good_signal():
    """Without a fresh page a playbook that reads pages can't call the machine well."""
    rig = Rig(playbooks=[xid_book(79, steps=hard("quarantine", "drain").spec.steps)], policy=with_exporter())
    rig.change("policies", "cluster", {"status": {"baselined": [79]}})
    for number in range(1, 6):
        rig.page(f"gpu-{number}")
    rig.page("gpu-1", 79)
    await rig.fleet_pass()
    assert rig.observer.run_view(rig.run(RUN)).signals_unknown == ""

    rig.clock.stand_still(60)

    assert rig.observer.run_view(rig.run(RUN)).signals_unknown != ""


@pytest.mark.asyncio
async def test_observer_sick_and_blind_spares_are_known():
    """A spare with a fault of its own, or that nobody sees, is none."""
    rig = Rig(playbooks=[hard(), xid_book(79, name="x")], policy=with_exporter())
    rig.page("spare-2")
    rig.break_node("spare-1")
    rig.diagnose()

    found = rig.observer.fleetwide(rig.world.spares())

    assert set(found.sick) == {"spare-1"}
    assert found.blind == {"spare-1"}


@pytest.mark.asyncio
async def test_observer_machine_just_returned_is_no_spare_before_its_run_has_ended():
    """Handed over at once, it would look to its own run as if a person had lifted the quarantine."""
    rig = Rig(spares=1, policy=roomy())
    rig.break_node("gpu-1")
    await rig.fleet_pass()
    for _ in range(20):
        await rig.turn(RUN)
        if rig.server.get("nodes", "gpu-1")["metadata"]["labels"].get("example.com/pool") == "buffer":
            break
        rig.clock.stand_still(2)
        rig.fresh()
        rig.diagnose()
        if rig.run_status(RUN).quiet_since and not rig.server.fates.get("SaveRun"):
            rig.server.skip("SaveRun", 1, Lost(committed=False))
    assert rig.state(RUN) == "Verifying"
    rig.break_node("gpu-2")

    await rig.fleet_pass()
    assert rig.reasons() == ["NoSpareReady"]
    await rig.turn(RUN)
    assert rig.state(RUN) == "Returned"
    await rig.fleet_pass()

    assert [grant.spare for grant in rig.status().grants] == ["gpu-1"]


@pytest.mark.asyncio
async def test_observer_counts_repairs_that_came_first():
    """maxRepairs: who stored the intent first goes first, and a paused one is not overtaken by itself."""
    rig = Rig(policy=roomy(max_repairs=1), spares=3)
    rig.server.on_job = lambda _: None
    rig.break_node("gpu-1", "gpu-2")
    await rig.fleet_pass()
    for name in (RUN, "machine-gpu-2-1"):
        await rig.turn(name)
        rig.clock.stand_still(1)

    assert rig.observer.run_view(rig.run(RUN)).repairs_before == 0
    assert rig.observer.run_view(rig.run("machine-gpu-2-1")).repairs_before == 1
    assert list(rig.server.jobs) == [f"{RUN}-reboot-1"]


@pytest.mark.asyncio
async def test_observer_spare_that_people_or_a_namesake_claim_is_none():
    """A machine that is known out, or that two Nodes say they are, must not take a place."""
    rig = Rig(spares=3)
    rig.server.put("nodes", "twin", node_json("twin", pool="buffer", system_uuid="machine-spare-2"))
    adopt = {"by": "ann", "until": "2027-01-01T00:00:00Z", "reason": "at the vendor's"}
    rig.server.put("ledgers", "machine-spare-3", a_custom("ManagedNode", {"adopt": adopt}))
    rig.server.flush()

    assert set(rig.observer.fleetwide(rig.world.spares()).sick) == {"spare-2", "spare-3", "twin"}


@pytest.mark.asyncio
async def test_observer_spare_with_a_bad_condition_that_no_playbook_reads_is_none():
    """What GKE or AKS say of a GPU counts without a playbook for it, and people may say otherwise."""
    polarity = (ConditionPolarity(type="FansQuiet", good="True"),)
    rig = Rig(spares=4, policy=roomy(conditions=polarity))
    ready = {"type": "Ready", "status": "True"}
    told = {"spare-1": ("GPUMissing", "True"), "spare-2": ("GPUMissing", "Unknown")}
    told |= {"spare-3": ("FansQuiet", "False"), "spare-4": ("VendorSays", "True")}
    for name, (type_, status) in told.items():
        conditions = [ready, {"type": type_, "status": status, "reason": "R"}]
        rig.change("nodes", name, {"status": {"conditions": conditions}})
    rig.diagnose()

    assert dict(rig.observer.fleetwide(rig.world.spares()).sick) == {
        "spare-1": "GPUMissing=True: R",
        "spare-3": "FansQuiet=False: R",
    }
