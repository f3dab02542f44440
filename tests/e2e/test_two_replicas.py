"""Two live replicas: one stands still, has a wrong clock, leaves, or loses its Lease in the middle of a run.

Whoever leads, the story ends as it does with one replica, and nothing of an old term lands.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Final

import pytest

from remediator.adapters.audit import AuditRecord, writes
from remediator.testbed.audit import Mark
from remediator.testbed.binaries import Binaries
from remediator.testbed.pipe import Pipe
from remediator.testbed.replica import Replica
from remediator.testbed.stage import GROUP, PRODUCT, USER, Stage
from remediator.testbed.waiting import wait_until
from remediator.testbed.write_faults import Fate, read_journal
from tests.e2e import verdict
from tests.e2e.crash_scene import HARD, LEASE_S, CrashScene, Ending, assert_as_without_a_fault
from tests.e2e.small_world import BAD, SETTLE_S, SmallWorld, effects, open_fleet, workload

LEASE: Final = "/apis/coordination.k8s.io/v1/namespaces/remediator/leases/remediator"
PLAYBOOK: Final = f"{GROUP}/playbooks/gpu-off-bus"
TERM: Final = re.compile(r"\(term=(\d+)")
# What the two policies judge by its term; the rest is held by versions (docs/fencing.md).
FENCED: Final = frozenset({("nodes", ""), ("pods", "eviction"), ("jobs", ""), ("remediations", "")})
HOUR_S: Final = 3_600
SOAK_S: Final = 8
LOST_LEADERSHIP: Final = 1
CLOCK_DIFFERS: Final = "the API server's clock differs; its time counts from now on"


@dataclass(frozen=True)
class Duo:
    """A leader, a standby that is ready to follow, and the world that they look after."""

    world: SmallWorld
    first: Replica
    second: Replica
    journal: Path
    mark: Mark

    @property
    def stage(self) -> Stage:
        return self.world.stage

    def await_leader(self, replica: Replica) -> None:
        wait_until(replica.leads_since, timeout_s=SETTLE_S, what="it to lead", detail=replica.log_tail)

    def await_step(self, step: str) -> None:
        """Wait until this step of the run has its end."""

        def done() -> bool:
            runs = [run for run in self.world.runs() if run["node"] == BAD]
            return any((step, "Done") == (name, state) for run in runs for name, _, state in run["steps"])

        wait_until(done, timeout_s=SETTLE_S, what=f"the end of {step}", detail=self.detail)

    def await_end(self) -> None:
        """Wait until the story is over. A replica that ends is started again, as a kubelet does."""

        def over() -> bool:
            for replica in (self.first, self.second):
                if not replica.alive:
                    replica.start()
            return self.world.settled()

        wait_until(over, timeout_s=SETTLE_S, what="the end of the story", detail=self.detail, every_s=0.2)

    def detail(self) -> str:
        logs = f"{self.first.log_tail()}\n--\n{self.second.log_tail()}"
        return f"\njournal: {read_journal(self.journal)[-9:]}\nruns: {self.world.runs()}\nlogs:\n{logs}"


class Replicas:
    """Plays the hard fault with two replicas, again and again on one small world."""

    def __init__(self, scene: CrashScene) -> None:
        self.world = scene.world
        self._played = 0

    @contextmanager
    def both(self, *words: str, server: str = "") -> Iterator[Duo]:
        """A clean world, a leader that is told ``words``, and a standby. They are stopped at the end.

        Args:
            words: for the first one's program.
            server: what the first one talks to instead of the API server itself.
        """
        stage = self.world.stage
        self._played += 1
        name = f"duo-{self._played}"
        journal = stage.directory / f"{name}.journal"
        program = ("remediator.testbed.faulty_controller", "--journal", str(journal), *words)
        first = stage.replica(f"{name}-first", lease_seconds=LEASE_S, program=program, server=server)
        second = stage.replica(f"{name}-second", lease_seconds=LEASE_S, program=PRODUCT)
        self.world.reset()
        duo = Duo(self.world, first, second, journal, stage.audit.mark())
        try:
            first.start()
            duo.await_leader(first)
            second.start()
            wait_until(
                lambda: second.ask("/readyz")[0] == HTTPStatus.OK,
                timeout_s=SETTLE_S,
                what="the standby to know the cluster",
                detail=duo.detail,
            )
            yield duo
        finally:
            first.stop()
            second.stop()


@pytest.fixture(scope="module")
def scene(control_plane_binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrashScene]:
    directory = tmp_path_factory.mktemp("replicas") / "stage"
    with Stage(directory, control_plane_binaries, workload=workload(), specs=open_fleet()) as stage:
        yield CrashScene(stage)
        verdict.assert_custody(stage)
        verdict.assert_rules(stage)


@pytest.fixture(scope="module")
def reference(scene: CrashScene) -> Ending:
    """The same fault with one replica and no trouble."""
    return scene.play(HARD)


@pytest.fixture(scope="module")
def replicas(scene: CrashScene, reference: Ending) -> Replicas:
    del reference  # it is played first
    return Replicas(scene)


def assert_one_story(duo: Duo, reference: Ending, *, leaders: int = 2) -> None:
    """Call it when both are stopped: no write of an old term landed, and the end is that of good times."""
    records = list(duo.stage.audit.since(duo.mark))
    taken = terms_taken(records)
    assert len(taken) >= leaders, f"only {taken} led, so nothing was shown\n{duo.detail()}"
    assert old_terms_landed(records, taken) == []
    strike = [("both", "led")]
    assert_as_without_a_fault(Ending(duo.world.state(), effects(records), strike), reference)


def terms_taken(records: Iterable[AuditRecord]) -> dict[int, datetime]:
    """When the API server had stored each term, by term."""
    taken: dict[int, datetime] = {}
    for record in verdict.landed(writes(records, users=[USER], resource="remediationpolicies")):
        term = verdict.patch_of(record)["status"].get("term", 0)
        taken.setdefault(term, record.staged_at)
    return taken


def old_terms_landed(records: Iterable[AuditRecord], taken: dict[int, datetime]) -> list[str]:
    """Fenced writes that came in when a newer term was stored already, and were accepted."""
    return [
        f"{record.verb} {record.request_uri} of term {term} at {record.received_at}"
        for record in verdict.landed(writes(records, users=[USER]))
        if (record.object_ref.resource, record.object_ref.subresource) in FENCED
        for term in [term_of(record)]
        if any(newer > term and record.received_at > since for newer, since in taken.items())
    ]


def term_of(record: AuditRecord) -> int:
    found = TERM.search(record.user_agent)
    assert found is not None, f"{record.request_uri} names no term: {record.user_agent}"
    return int(found[1])


FROZEN: Final = (
    "PUT remediationpolicies/status with 1 grants",
    "PATCH nodes of fence",
    "POST pods/eviction of drain",
    "POST jobs of reboot",
)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("point", FROZEN)
def test_leader_that_stood_still_before_a_write_does_no_harm(
    replicas: Replicas, reference: Ending, point: str
) -> None:
    """Suspended between its last check and the request, and back when another one leads: the worst case."""
    with replicas.both("--point", point, "--fate", Fate.FROZEN.value) as duo:
        HARD.inject(duo.stage.exporters)
        wait_until(
            lambda: (point, Fate.FROZEN.value) in read_journal(duo.journal),
            timeout_s=SETTLE_S,
            what="the first replica to stand still",
            detail=duo.detail,
        )
        duo.await_leader(duo.second)
        duo.first.thaw()
        assert duo.first.await_end(SETTLE_S) == LOST_LEADERSHIP
        duo.await_end()

    assert not any(what.startswith(f"{Fate.FROZEN.value}: 2") for _, what in read_journal(duo.journal))
    assert_one_story(duo, reference)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("point", ["PATCH nodes of fence", "POST pods/eviction of drain"])
def test_request_held_in_the_network_past_a_takeover_lands_nowhere(
    replicas: Replicas, reference: Ending, point: str
) -> None:
    """It was sent while its sender led, which has ended since; it arrives when another one leads."""
    stage = replicas.world.stage
    frozen = ("--point", point, "--fate", Fate.FROZEN.value)
    with Pipe(stage.cluster.layout.api) as pipe, replicas.both(*frozen, server=pipe.url) as duo:
        HARD.inject(stage.exporters)
        wait_until(
            lambda: (point, Fate.FROZEN.value) in read_journal(duo.journal),
            timeout_s=SETTLE_S,
            what="the first replica to stand still",
            detail=duo.detail,
        )
        pipe.accept_only()
        assert pipe.hold_requests()
        duo.first.thaw()
        assert duo.first.await_end(SETTLE_S) == LOST_LEADERSHIP
        duo.await_leader(duo.second)
        pipe.resume()
        late = wait_until(
            lambda: late_writes(stage.audit.since(duo.mark), point),
            timeout_s=SETTLE_S,
            what="the held request to arrive",
            detail=duo.detail,
        )
        duo.await_end()

    assert verdict.landed(late) == []
    assert_one_story(duo, reference)


def late_writes(records: Iterable[AuditRecord], point: str) -> list[AuditRecord]:
    """Requests of this kind that came in under a term when the server had stored a newer one."""
    seen = list(records)
    taken = terms_taken(seen)
    verb, _, resource = point.partition(" of ")[0].lower().partition(" ")
    verbs = {"post": "create"}
    return [
        record
        for record in writes(seen, users=[USER])
        if "/".join(filter(None, (record.object_ref.resource, record.object_ref.subresource))) == resource
        and record.verb == verbs.get(verb, verb)
        and any(newer > term_of(record) and record.received_at > since for newer, since in taken.items())
    ]


@pytest.fixture
def soak(replicas: Replicas) -> Iterator[None]:
    """A soak that is long enough to be cut short."""
    stage = replicas.world.stage
    before = stage.api.get(PLAYBOOK)["spec"]["steps"]
    steps = [
        step | {"verify": step["verify"] | {"quietFor": f"{SOAK_S}s"}} if "verify" in step else step
        for step in before
    ]
    stage.patch_playbook("gpu-off-bus", {"steps": steps})
    yield
    stage.patch_playbook("gpu-off-bus", {"steps": before})


@pytest.mark.timeout(240)
@pytest.mark.usefixtures("soak")
@pytest.mark.parametrize("offset_s", [-HOUR_S, HOUR_S], ids=["behind", "ahead"])
def test_successor_of_a_wrong_clock_soaks_for_the_whole_time(replicas: Replicas, offset_s: int) -> None:
    """Since when it is quiet stands in the record: an hour's error would end the soak at once, or never."""
    with replicas.both("--clock-offset", str(offset_s)) as duo:
        HARD.inject(duo.stage.exporters)
        duo.await_step("reboot")
        wait_until(lambda: soaks(duo.stage), timeout_s=SETTLE_S, what="the soak to begin", detail=duo.detail)
        duo.first.stop(crash=True)
        duo.await_leader(duo.second)
        wait_until(duo.world.settled, timeout_s=SETTLE_S, what="the end", detail=duo.detail)

    records = list(duo.stage.audit.since(duo.mark))
    began = max(record.received_at for record in written(records, "remediations") if says_quiet(record))
    (returned,) = [each for each in written(records, "nodes") if "step=return" in each.user_agent]
    assert (returned.received_at - began).total_seconds() >= SOAK_S - 1, "times are kept in whole seconds"
    assert old_terms_landed(records, terms_taken(records)) == []
    assert duo.first.lines(CLOCK_DIFFERS), "the replica says that its machine's clock is wrong"


def soaks(stage: Stage) -> bool:
    return any(run.get("status", {}).get("quietSince") for run in stage.runs(BAD))


def written(records: Iterable[AuditRecord], resource: str) -> list[AuditRecord]:
    return verdict.landed(writes(records, users=[USER], resource=resource))


def says_quiet(record: AuditRecord) -> bool:
    return bool(verdict.patch_of(record).get("status", {}).get("quietSince"))


@pytest.mark.timeout(240)
def test_clean_exit_hands_over_without_waiting_for_the_lease(replicas: Replicas, reference: Ending) -> None:
    """A rolling update in the middle of a run: the Lease is given back, and the standby goes on."""
    with replicas.both() as duo:
        HARD.inject(duo.stage.exporters)
        duo.await_step("fence")
        duo.first.stop()
        holder = duo.stage.api.get(LEASE)["spec"]["holderIdentity"]
        duo.await_leader(duo.second)
        duo.await_end()

    assert holder != duo.first.lines("starting")[0]["identity"], "the Lease was not given back"
    assert_one_story(duo, reference)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("trouble", ["deleted", "dead name"])
def test_lease_that_somebody_meddles_with_makes_no_two_leaders(
    replicas: Replicas, reference: Ending, trouble: str
) -> None:
    """Who leads may change, or nobody leads for a Lease's time; what is done is done once."""
    with replicas.both() as duo:
        HARD.inject(duo.stage.exporters)
        duo.await_step("fence")
        if trouble == "deleted":
            duo.stage.api.remove(LEASE)
        else:
            duo.stage.api.merge_patch(LEASE, {"spec": {"holderIdentity": "nobody-we-know"}})
            duo.await_leader(duo.second)
        duo.await_end()

    # Who finds a Lease gone makes it anew: the standby, or the leader itself.
    assert_one_story(duo, reference, leaders=1 if trouble == "deleted" else 2)
