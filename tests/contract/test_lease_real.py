"""The election against a real API server, with a short lease and real time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from remediator.adapters.clock import SystemClock
from remediator.adapters.kube.config import ConnectionSettings
from remediator.adapters.kube.lease import Election, LeaseSettings
from remediator.adapters.kube.server_clock import ServerClock
from remediator.adapters.kube.transport import TransportSettings, open_transport
from remediator.ports import Transport
from remediator.testbed.api import Api
from remediator.testbed.launcher import ControlPlane
from tests.contract.live import a_caller

pytestmark = [pytest.mark.asyncio, pytest.mark.real_server]

CLOCK = ServerClock(SystemClock())
LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
SHORT = LeaseSettings(lease_s=3, renew_deadline_s=2, retry_s=0.3, request_timeout_s=0.6)


class Candidate:
    def __init__(self, transport: Transport, lease: str, identity: str) -> None:
        self.losses: list[str] = []
        self.election = Election(
            transport=transport,
            clock=CLOCK,
            rng=Random(identity),
            identity=identity,
            namespace="default",
            name=lease,
            settings=SHORT,
            on_lost=self.losses.append,
        )
        self.task = asyncio.create_task(self.election.run())

    @property
    def leads(self) -> bool:
        return self.election.is_leader(CLOCK.monotonic())

    async def leave(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.election.release()


@asynccontextmanager
async def candidates(kubeconfig: Path, api: Api, lease: str) -> AsyncIterator[Callable[[str], Candidate]]:
    """Start candidates for a Lease that does not exist yet; all of them leave at the end."""
    path = f"{LEASES}/{lease}"
    api.remove(path)
    started: list[Candidate] = []
    settings = TransportSettings(connection=ConnectionSettings(kubeconfig=str(kubeconfig), environment={}))
    async with open_transport(settings, CLOCK, a_caller()) as transport:

        def start(identity: str) -> Candidate:
            started.append(Candidate(transport, lease, identity))
            return started[-1]

        try:
            yield start
        finally:
            for candidate in started:
                await candidate.leave()


async def until(fact: Callable[[], bool], *, timeout_s: float) -> float:
    """Wait for the fact and return how long it took."""
    start = CLOCK.monotonic()
    async with asyncio.timeout(timeout_s):
        while not fact():
            await CLOCK.sleep(0.02)
    return CLOCK.monotonic() - start


async def edit(api: Api, lease: str, body: dict[str, Any]) -> None:
    await asyncio.to_thread(api.merge_patch, f"{LEASES}/{lease}", body)


async def test_one_leads_and_hands_over_at_once_on_a_clean_stop(control_plane: ControlPlane, api: Api):
    """Create, renew, release and take over, as the server validates and stores them."""
    async with candidates(control_plane.kubeconfig, api, "hand-over") as start:
        first = start("first")
        await until(lambda: first.leads, timeout_s=5)
        second = start("second")
        await CLOCK.sleep(4)  # longer than the lease: only renewals can have kept it
        spec = api.get(f"{LEASES}/hand-over")["spec"]
        both = (first.leads, second.leads)
        await first.leave()
        took_s = await until(lambda: second.leads, timeout_s=5)
        after = api.get(f"{LEASES}/hand-over")["spec"]

    assert both == (True, False)
    assert (spec["holderIdentity"], spec["leaseDurationSeconds"], spec["leaseTransitions"]) == ("first", 3, 0)
    assert spec["renewTime"] > spec["acquireTime"]
    assert took_s < SHORT.lease_s, "it waited for the Lease to run out"
    assert (after["holderIdentity"], after["leaseTransitions"], second.election.transitions) == (
        "second",
        1,
        1,
    )
    assert first.losses == []


async def test_standby_takes_over_only_after_the_lease_of_a_dead_leader(
    control_plane: ControlPlane, api: Api
):
    """The dead leader released nothing; its successor waits the lease out, by its own clock."""
    async with candidates(control_plane.kubeconfig, api, "dead-leader") as start:
        dead, standby = start("dead"), None
        await until(lambda: dead.leads, timeout_s=5)
        standby = start("standby")
        await CLOCK.sleep(0.5)
        dead.task.cancel()
        led_until = dead.election.valid_until
        await until(lambda: standby.leads, timeout_s=10)
        now = CLOCK.monotonic()

    assert led_until is not None
    assert now > led_until, "the margin between deadline and lease"


async def test_edits_by_hand_are_survived_or_end_the_leadership(control_plane: ControlPlane, api: Api):
    """Labels, a deleted Lease, an emptied holder; then a foreign name."""
    lease = "by-hand"
    async with candidates(control_plane.kubeconfig, api, lease) as start:
        leader = start("leader")
        await until(lambda: leader.leads, timeout_s=5)
        await edit(api, lease, {"metadata": {"labels": {"team": "x"}}})
        await edit(api, lease, {"spec": {"holderIdentity": ""}})
        await until(lambda: api.get(f"{LEASES}/{lease}")["spec"]["holderIdentity"] == "leader", timeout_s=3)
        kept = api.get(f"{LEASES}/{lease}")["metadata"]["labels"]
        api.delete(f"{LEASES}/{lease}")
        await until(lambda: api.find(f"{LEASES}/{lease}") is not None, timeout_s=3)
        survived = leader.leads
        count = api.get(f"{LEASES}/{lease}")["spec"]["leaseTransitions"]
        await edit(api, lease, {"spec": {"holderIdentity": "somebody"}})
        await until(lambda: not leader.leads, timeout_s=3)
        await until(leader.task.done, timeout_s=1)

    assert kept == {"team": "x"}
    assert survived
    assert count == leader.election.transitions == 1
    assert len(leader.losses) == 1
    assert "held by 'somebody'" in leader.losses[0]


async def test_leader_of_a_server_that_stands_still_stops_in_time(
    quick_control_plane: ControlPlane,
):
    """Requests hang, nothing is refused: the case in which the official client leads on."""
    api = quick_control_plane.admin()
    async with candidates(quick_control_plane.kubeconfig, api, "frozen") as start:
        leader = start("leader")
        await until(lambda: leader.leads, timeout_s=5)
        quick_control_plane.pause_component("kube-apiserver")
        try:
            took_s = await until(leader.election.lost.is_set, timeout_s=5)
        finally:
            quick_control_plane.resume_component("kube-apiserver")
    api.close()

    assert took_s < SHORT.lease_s, "somebody else may lead by now"
    assert len(leader.losses) == 1
