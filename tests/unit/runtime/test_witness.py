"""The second witness is asked before the grant, about silent nodes only, and believed for a short while."""

from __future__ import annotations

import pytest

from remediator.errors import PermanentError
from remediator.model.playbook import Match, Matcher, NodeConditionMatch
from remediator.model.views import LeaseView
from tests.unit.runtime.rig import Rig, hard

RUN = "machine-gpu-1-1"
SILENCE = Match(
    any_of=(Matcher(id="silent", node_condition=NodeConditionMatch(type="Ready", status="Unknown")),)
)
DEAD = LeaseView(age_s=300.0, duration_s=40.0)
ALIVE = LeaseView(age_s=4.0, duration_s=40.0)


def a_rig(lease: LeaseView | None) -> Rig:
    rig = Rig(playbooks=[hard(match=SILENCE)])
    if lease is not None:
        rig.server.heartbeats["gpu-1"] = lease
    return rig


def go_silent(rig: Rig) -> None:
    say_ready(rig, "Unknown", "gpu-1")


def say_ready(rig: Rig, status: str, *names: str) -> None:
    for name in names:
        rig.change("nodes", name, {"status": {"conditions": [{"type": "Ready", "status": status}]}})


def asked(rig: Rig) -> int:
    return rig.server.reads.count("heartbeat of gpu-1")


@pytest.mark.asyncio
async def test_silent_node_is_granted_once_its_lease_has_run_out_too():
    """Two witnesses, one GET."""
    rig = a_rig(DEAD)
    go_silent(rig)

    await rig.fleet_pass()

    assert rig.granted() == [RUN]
    assert asked(rig) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("lease", [ALIVE, None], ids=["renewed", "missing"])
async def test_silent_node_is_left_alone_while_its_lease_says_otherwise(lease):
    """A controller-manager that lags must not cost a machine."""
    rig = a_rig(lease)
    go_silent(rig)

    await rig.fleet_pass()

    assert rig.granted() == []
    assert rig.reasons() == ["LeaseFresh"]


@pytest.mark.asyncio
async def test_lease_is_asked_again_after_ten_seconds_and_not_before():
    """A kubelet that comes back must be noticed; a storm must not become reads."""
    rig = a_rig(ALIVE)
    go_silent(rig)
    await rig.fleet_pass()
    await rig.fleet_pass()
    assert asked(rig) == 1

    rig.clock.stand_still(11.0)
    rig.fresh()
    rig.server.heartbeats["gpu-1"] = DEAD
    await rig.fleet_pass()

    assert asked(rig) == 2
    assert rig.granted() == [RUN]


@pytest.mark.asyncio
async def test_lease_that_cannot_be_read_is_no_witness():
    """Without the right to look there is no second witness, and the reason says so."""
    rig = a_rig(DEAD)
    go_silent(rig)
    rig.server.read_errors.append(PermanentError("403 forbidden"))

    await rig.fleet_pass()

    (refused,) = rig.fleet.refused.values()
    assert "403 forbidden" in refused.blocked_by.numbers
    assert rig.granted() == []


@pytest.mark.asyncio
async def test_lease_is_not_asked_about_other_faults():
    """A hard fault waits for no look that it does not need."""
    rig = Rig()
    rig.break_node()

    await rig.fleet_pass()

    assert rig.granted() == [RUN]
    assert asked(rig) == 0


@pytest.mark.asyncio
async def test_last_machine_of_a_rack_that_comes_back_is_not_taken_for_dead():
    """Found by the demo without limits: four of eight machines were fenced while they booted."""
    rig = a_rig(DEAD)
    rack = [f"gpu-{number}" for number in range(1, 5)]
    say_ready(rig, "Unknown", *rack)
    await rig.fleet_pass()
    await rig.clock.advance(60)
    rig.fresh()
    say_ready(rig, "True", *rack[1:])
    await rig.fleet_pass()
    assert (rig.runs(), asked(rig)) == ({}, 0)
    assert rig.fleet.refused["machine-gpu-1"].blocked_by.stop == "ZoneSilent"

    for _ in range(10):
        await rig.clock.advance(30)
        rig.fresh()
        await rig.fleet_pass()
    assert RUN in rig.runs(), "it is dead after all"
