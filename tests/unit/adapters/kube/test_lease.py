"""The election against a Lease server that hangs, loses replies and is edited by hand, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

import pytest

from remediator.adapters.kube.lease import Election, LeaseSettings
from remediator.errors import ContractError
from remediator.ports import Lane
from tests.unit.adapters.kube.lease_server import (
    ERROR,
    FORBIDDEN,
    HANG,
    LOST_REPLY,
    OK,
    STUCK,
    LeaseServer,
    Wire,
)
from tests.unit.adapters.kube.manual_clock import ManualClock

pytestmark = pytest.mark.asyncio

SETTINGS = LeaseSettings()


def always(fault: str) -> Callable[[str], str]:
    return lambda _: fault


class Candidate:
    def __init__(self, server: LeaseServer, clock: ManualClock, name: str = "a", seed: int = 1) -> None:
        self.clock = clock
        self.wire = Wire(server, clock)
        self.losses: list[str] = []
        self.election = Election(
            transport=self.wire,
            clock=clock,
            rng=Random(seed),
            identity=name,
            namespace="remediator",
            name="leader",
            settings=SETTINGS,
            on_lost=self.losses.append,
        )
        self.task = asyncio.create_task(self.election.run())

    @property
    def leads(self) -> bool:
        return self.election.is_leader(self.clock.monotonic())

    async def leave(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.election.release()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def server() -> LeaseServer:
    return LeaseServer()


async def a_leader(server: LeaseServer, clock: ManualClock) -> Candidate:
    candidate = Candidate(server, clock)
    await clock.advance(0.1)
    assert candidate.leads
    return candidate


async def test_first_candidate_creates_the_lease_and_leads(server, clock):
    """The official client crashed here."""
    leader = await a_leader(server, clock)

    assert leader.election.elected.is_set()
    assert (leader.election.transitions, leader.election.holder) == (0, "a")
    assert server.spec["holderIdentity"] == "a"
    assert server.spec["leaseDurationSeconds"] == 15
    assert server.spec["renewTime"] == server.spec["acquireTime"] == "2026-01-01T00:16:40.000000Z"


async def test_leader_renews_with_one_put_per_period_on_the_lease_lane(server, clock):
    """The whole program may send one request a second when idle."""
    leader = await a_leader(server, clock)
    start = len(leader.wire.calls)
    await clock.advance(1000)

    calls = leader.wire.calls[start:]
    assert leader.leads
    assert {call.method for call in calls} == {"PUT"}
    assert {call.lane for call in calls} == {Lane.LEASE}
    assert 400 <= len(calls) <= 500
    assert server.spec["leaseTransitions"] == 0


@pytest.mark.parametrize("renewed", ["1999-01-01T00:00:00.000000Z", "2999-01-01T00:00:00.000000Z", None])
async def test_standby_judges_expiry_by_its_own_observation_only(server, clock, renewed):
    """Wall clocks differ between machines, and a client once wrote times nine hours ahead."""
    server.edit(holderIdentity="dead", leaseDurationSeconds=15, renewTime=renewed, leaseTransitions=4)
    standby = Candidate(server, clock)
    await clock.advance(14.9)
    early = standby.leads
    await clock.advance(2.6)

    assert not early
    assert standby.leads
    assert (standby.election.transitions, server.spec["leaseTransitions"]) == (5, 5)


async def test_standby_waits_as_long_as_the_holder_renews(server, clock):
    """A healthy leader is never replaced, however small its changes are."""
    standby = Candidate(server, clock)
    server.edit(holderIdentity="b", leaseDurationSeconds=15, renewTime="2026-01-01T00:00:00.000000Z")
    for second in range(1, 61):
        await clock.advance(10)
        server.edit(renewTime=f"2026-01-01T00:00:00.0000{second:02}Z")

    assert not standby.election.elected.is_set()
    assert {call.method for call in standby.wire.calls} == {"GET"}
    assert len(standby.wire.calls) <= 601


async def test_standby_is_not_held_up_by_edits_of_labels(server, clock):
    """Only a change of the spec is a sign of life."""
    server.edit(holderIdentity="dead", leaseDurationSeconds=15)
    standby = Candidate(server, clock)
    for _ in range(20):
        await clock.advance(1)
        server.edit()

    assert standby.leads


@pytest.mark.parametrize(
    ("written_s", "waits_s"), [(1, 15), (60, 60), (10_000_000, 600)], ids=["short", "longer", "absurd"]
)
async def test_duration_written_by_hand_is_kept_within_bounds(server, clock, written_s, waits_s):
    """One second would make two leaders, four months would make none."""
    server.edit(holderIdentity="dead", leaseDurationSeconds=written_s)
    standby = Candidate(server, clock)
    await clock.advance(waits_s - 0.1)
    early = standby.leads
    await clock.advance(2.6)

    assert (early, standby.leads) == (False, True)


@pytest.mark.parametrize("fault", [HANG, STUCK, ERROR, FORBIDDEN, LOST_REPLY])
async def test_leader_stops_by_the_deadline_counted_from_before_the_request(server, clock, fault):
    """With the official client a hung renewal left two leaders for minutes."""
    leader = await a_leader(server, clock)
    await clock.advance(20)
    sent_at = leader.wire.calls[-1].at
    # A lost GET as well, or the committed renewals would be found.
    leader.wire.fault = lambda _: fault
    await clock.advance(sent_at + 9.99 - clock.monotonic())
    before = leader.leads
    await clock.advance(0.02)

    assert (before, leader.leads) == (True, False)
    assert leader.election.lost.is_set()
    assert leader.task.done()
    assert len(leader.losses) == 1
    await clock.advance(100)
    assert len(leader.losses) == 1


async def test_every_time_out_is_below_the_time_left(server, clock):
    """A request must not be able to outlive the leadership."""
    leader = await a_leader(server, clock)
    until = leader.election.valid_until
    assert until is not None
    leader.wire.fault = lambda _: HANG
    await clock.advance(11)

    assert all(call.at + call.timeout_s < until for call in leader.wire.calls[2:])
    assert len(leader.wire.calls) >= 4


@pytest.mark.parametrize("fault", [HANG, ERROR, FORBIDDEN, LOST_REPLY])
async def test_leader_survives_a_fault_shorter_than_the_deadline(server, clock, fault):
    """An API server restarts in a few seconds."""
    leader = await a_leader(server, clock)
    leader.wire.fault = lambda _: fault
    await clock.advance(6)
    leader.wire.fault = lambda _: OK
    await clock.advance(20)

    assert leader.leads
    assert (leader.losses, leader.election.last_error) == ([], "")
    assert server.spec["leaseTransitions"] == 0


async def test_paused_process_is_not_leader_when_it_wakes_up(server, clock):
    """SIGSTOP, a swapping host: the first question after it must already be answered no."""
    leader = await a_leader(server, clock)
    clock.stand_still(11)
    asked_first = leader.leads
    await clock.advance(0)

    assert not asked_first
    assert leader.election.lost.is_set()


async def test_leader_keeps_leading_when_labels_are_edited(server, clock):
    """The 409 is nobody's claim, and what the person wrote must stay."""
    leader = await a_leader(server, clock)
    assert server.lease is not None
    server.lease["metadata"]["labels"] = {"team": "x"}
    server.lease["spec"]["strategy"] = "OldestEmulationVersion"
    server.edit()
    await clock.advance(20)

    assert leader.leads
    assert server.lease["metadata"]["labels"] == {"team": "x"}
    assert server.spec["strategy"] == "OldestEmulationVersion"


async def test_leader_stops_at_once_when_another_name_is_in_the_lease(server, clock):
    """Whoever wrote it, it may be leading now."""
    leader = await a_leader(server, clock)
    server.edit(holderIdentity="b")
    await clock.advance(2.5)

    assert not leader.leads
    assert len(leader.losses) == 1
    assert "held by 'b'" in leader.losses[0]
    assert server.spec["holderIdentity"] == "b"


async def test_deleted_lease_is_written_again_and_its_count_goes_on(server, clock):
    """Terms must not repeat after `kubectl delete lease`."""
    server.edit(holderIdentity="", leaseTransitions=7)
    leader = await a_leader(server, clock)
    server.lease = None
    await clock.advance(2.5)

    assert leader.leads
    assert (server.spec["holderIdentity"], server.spec["leaseTransitions"]) == ("a", 8)


async def test_lease_deleted_under_a_standby_goes_on_counting(server, clock):
    """The standby saw the old count, so it is the one who knows."""
    server.edit(holderIdentity="b", leaseDurationSeconds=15, leaseTransitions=7)
    standby = Candidate(server, clock)
    await clock.advance(1)
    server.lease = None
    await clock.advance(2.5)

    assert standby.leads
    assert standby.election.transitions == 8


async def test_emptied_holder_is_taken_back(server, clock):
    """An empty name is nobody; the leader is still the best candidate."""
    leader = await a_leader(server, clock)
    server.edit(holderIdentity="")
    await clock.advance(2.5)

    assert leader.leads
    assert server.spec["holderIdentity"] == "a"


@pytest.mark.parametrize("spec", [{}, {"holderIdentity": None, "leaseDurationSeconds": None}])
async def test_lease_without_content_is_taken(server, clock, spec):
    """`kubectl create` of a bare Lease, or somebody's clean-up, must not block the election."""
    server.edit(**spec)
    leader = await a_leader(server, clock)

    assert leader.election.transitions == 1


async def test_count_at_its_limit_does_not_block_the_election(server, clock):
    """One more would be refused by the API server for ever."""
    server.edit(holderIdentity="", leaseTransitions=2**31 - 1)
    leader = await a_leader(server, clock)

    assert leader.election.transitions == 2**31 - 1


async def test_release_lets_the_next_one_in_at_once(server, clock):
    """A rolling update should not stop the work for fifteen seconds."""
    leader = await a_leader(server, clock)
    await leader.leave()
    released = server.spec
    successor = Candidate(server, clock, name="b")
    await clock.advance(0.1)

    assert (released["holderIdentity"], released["leaseDurationSeconds"]) == ("", 1)
    assert not leader.leads
    assert leader.losses == []
    assert not leader.election.lost.is_set()
    assert successor.leads
    assert successor.election.transitions == 1


@pytest.mark.parametrize("seed", range(5))
async def test_standby_leads_soon_after_a_release(server, clock, seed):
    """A fault meets somebody within two seconds of a rolling update, with the term to write yet."""
    leader = await a_leader(server, clock)
    standby = Candidate(server, clock, name="b", seed=seed)
    await clock.advance(31.4)
    await leader.leave()
    await clock.advance(1.25)

    assert standby.leads


@pytest.mark.parametrize("seed", range(5))
async def test_standby_leads_one_look_after_a_dead_holder_s_time(server, clock, seed):
    """It looks when the Lease runs out, not at the next look after that."""
    leader = await a_leader(server, clock)
    standby = Candidate(server, clock, name="b", seed=seed)
    await clock.advance(31.4)
    leader.task.cancel()
    renewed = max(call.at for call in leader.wire.calls if call.method in {"POST", "PUT"})
    await clock.advance(renewed + SETTINGS.lease_s - clock.monotonic() - 0.01)
    assert not standby.leads
    await clock.advance(1.25)

    assert standby.leads


@pytest.mark.parametrize("fault", [HANG, ERROR, FORBIDDEN])
async def test_failed_release_is_bounded_and_leaves_no_leader(server, clock, fault):
    """A stop must end in time even if the server is away."""
    leader = await a_leader(server, clock)
    leader.wire.fault = lambda _: fault
    leaving = asyncio.create_task(leader.leave())
    await clock.advance(3.1)

    assert leaving.done()
    assert not leader.leads
    assert leader.election.last_error


async def test_release_that_worked_has_no_error_of_an_earlier_renewal(server, clock):
    """Whoever reads it afterwards would wait for a Lease that was given back."""
    leader = await a_leader(server, clock)
    leader.wire.fault = lambda _: ERROR
    await clock.advance(3)
    failed = leader.election.last_error
    leader.wire.fault = lambda _: OK
    await leader.leave()

    assert failed
    assert leader.election.last_error == ""
    assert server.spec["holderIdentity"] == ""


async def test_release_after_a_renewal_that_was_cancelled_and_landed(server, clock):
    """A stop may come while a renewal is on its way: the Lease has another version then, and is ours."""
    leader = await a_leader(server, clock)
    leader.wire.fault = lambda method: LOST_REPLY if method == "PUT" else OK
    await clock.advance(3)
    leader.task.cancel()
    leader.wire.fault = lambda _: OK
    await leader.leave()

    assert server.spec["holderIdentity"] == ""
    assert leader.election.last_error == ""


async def test_release_leaves_a_lease_that_somebody_else_holds(server, clock):
    """Whoever has taken it meanwhile keeps it."""
    leader = await a_leader(server, clock)
    server.edit(holderIdentity="b")
    await leader.leave()

    assert server.spec["holderIdentity"] == "b"


async def test_release_of_a_standby_writes_nothing(server, clock):
    """It has nothing to give back."""
    server.edit(holderIdentity="b", leaseDurationSeconds=15)
    standby = Candidate(server, clock)
    await clock.advance(1)
    await standby.leave()

    assert server.spec["holderIdentity"] == "b"


async def test_standby_without_permission_keeps_trying_and_says_what_is_missing(server, clock):
    """Right after its start an API server refuses everybody for a moment."""
    candidate = Candidate(server, clock)
    candidate.wire.fault = lambda _: FORBIDDEN
    await clock.advance(30)
    complaint = candidate.election.last_error
    candidate.wire.fault = lambda _: OK
    await clock.advance(2.5)

    assert "missing RBAC rule: get leases coordination.k8s.io" in complaint
    assert candidate.leads
    assert candidate.election.last_error == ""


async def test_take_over_whose_reply_was_lost_is_found_again(server, clock):
    """The Lease already bears our name: nobody else can take it, so we must."""
    server.edit(holderIdentity="", leaseTransitions=3)
    candidate = Candidate(server, clock)
    candidate.wire.fault = lambda method: LOST_REPLY if method == "PUT" else OK
    await clock.advance(3.05)
    lost = candidate.leads
    candidate.wire.fault = lambda _: OK
    await clock.advance(2.5)

    assert not lost
    assert candidate.leads
    assert candidate.election.transitions == 4


@pytest.mark.parametrize("seed", range(10))
async def test_two_candidates_never_lead_at_the_same_time(server, clock, seed):
    """Whatever the network does, short of deleting the Lease, the Lease alone already excludes it."""
    rng = Random(seed)
    candidates = [Candidate(server, clock, name, seed) for seed, name in enumerate("ab")]
    elections = 0
    for _ in range(2000):
        if rng.random() < 0.01:
            fault = rng.choice([OK, OK, HANG, LOST_REPLY, ERROR, STUCK])
            rng.choice(candidates).wire.fault = always(fault)
        for index, candidate in enumerate(candidates):
            if candidate.task.done():
                elections += 1
                candidates[index] = Candidate(server, clock, f"{index}-{elections}", elections)
        await clock.advance(0.1)

        assert sum(candidate.leads for candidate in candidates) <= 1, f"seed {seed}"
    assert elections > 0, f"seed {seed}: no leadership was ever lost, the faults did nothing"
    for candidate in candidates:
        candidate.task.cancel()


async def test_election_is_run_once(server, clock):
    """A lost leader must end, not come back with memories of its last term."""
    leader = await a_leader(server, clock)
    with pytest.raises(ContractError, match="run once"):
        await leader.election.run()


@pytest.mark.parametrize(
    "wrong",
    [
        {"lease_s": 10.0},
        {"renew_deadline_s": 2.0},
        {"retry_s": 0.0},
        {"request_timeout_s": 10.0},
        {"jitter": -1.0},
    ],
)
async def test_settings_that_allow_two_leaders_are_refused(wrong):
    """The margins are what makes it safe."""
    with pytest.raises(ValueError, match="must hold"):
        LeaseSettings(**wrong)
