"""Plays two faults on a small world while something is wrong with the API server or the way to it.

Verdicts come from objects and the audit log; only how often something is told comes from the log.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from time import sleep as pause
from typing import Final

from remediator.adapters.audit import AuditRecord, writes
from remediator.testbed.audit import Mark
from remediator.testbed.binaries import Binaries
from remediator.testbed.components import Options
from remediator.testbed.pipe import UNASKED_AFTER_S, Link, Pipe
from remediator.testbed.stage import PRODUCT, RUNS, USER, Connect, Stage
from remediator.testbed.waiting import monotonic, wait_until
from tests.e2e import verdict
from tests.e2e.small_world import JOBS, SmallWorld, effects, open_fleet, workload

VICTIMS: Final = ("gpu-a-01", "gpu-a-02")  # with one more out than the budget lets go at once
OUT_MAX: Final = 1
WINDOW: Final = timedelta(seconds=5)
REST_S: Final = 4.0
RENEWED_WITHIN_S: Final = 2.8  # the Lease is renewed every 2 to 2.4 s
RESTART_PAUSE_S: Final = 1.0
REQUESTS_MAX: Final = 1.1
# A process that starts asks for each of its rights, and reads everything once; it takes a second at least.
START_REQUESTS: Final = 80
STARTS_MAX: Final = 5  # within the window
# Of one kind of news, beyond what good times bring: some trouble is told per object, none per try.
LINES_MORE_MAX: Final = 10


@dataclass(frozen=True, slots=True)
class Story:
    """What came of both faults. ``lines`` counts what the controller told, by event."""

    records: list[AuditRecord]
    lines: Counter[str]
    took_s: float
    connections: int
    restarts: int

    def requests(self) -> list[datetime]:
        """When the controller asked for something, in order, watches included."""
        return _times(self.records)

    def busiest(self, *, leading: bool) -> int:
        """The most requests of a leader, or of one that does not lead yet, within five seconds."""
        times = _times(each for each in self.records if ("(term=" in each.user_agent) is leading)
        counts = (bisect_left(times, start + WINDOW) - index for index, start in enumerate(times))
        return max(counts, default=0)


def _times(records: Iterable[AuditRecord]) -> list[datetime]:
    return sorted({each.audit_id: each.received_at for each in records if _ours(each)}.values())


@contextmanager
def open_scene(binaries: Binaries, directory: Path, options: Options | None = None) -> Iterator[StressScene]:
    """A small fleet, and a pipe between the controller and the API server."""
    with (
        Stage(directory, binaries, workload=workload(), specs=open_fleet(), options=options) as stage,
        Pipe(stage.cluster.layout.api) as pipe,
    ):
        yield StressScene(SmallWorld(stage), pipe)


class StressScene:
    """The controller behind a pipe, on a small world that is reset for each story."""

    def __init__(self, world: SmallWorld, pipe: Pipe) -> None:
        self.world = world
        self.stage: Stage = world.stage
        self.pipe = pipe
        self._restarts = 0
        self._mark: Mark | None = None
        self._log = 0
        self._began = 0.0
        self._connections = 0
        self._lease_link = 0

    def begin(self, program: Sequence[str] = PRODUCT, *, access: Connect | None = None) -> None:
        """Make the world new, start the controller behind the pipe, and begin to count."""
        self.pipe.resume()
        self.stage.stop_controller()  # of a story that failed
        self.world.reset()
        self.stage.start_controller(server=self.pipe.url, program=program, access=access)
        self._restarts = 0
        self._mark = self.stage.audit.mark()
        self._log = self.stage.log_size()
        self._began = monotonic()
        self._connections = self.pipe.accepted

    def inject(self, *nodes: str) -> None:
        """Let these nodes, or both victims, lose a GPU each."""
        for node in nodes or VICTIMS:
            self.stage.exporters.inject_xid(node, 5, 79)

    def wait_for(self, step: str, *, timeout_s: float = 30.0) -> None:
        """Wait until some run has done this step."""
        self.wait_until(
            lambda: any((step, "Done") in [each[::2] for each in run["steps"]] for run in self.world.runs()),
            f"a run to have done {step}",
            timeout_s,
        )

    def good_times(self) -> Story:
        """Both faults with nothing in the way: what every other story is measured by."""
        self.begin()
        self.inject()
        story = self.end()
        assert_no_harm(self.stage, story)
        return story

    def end(self, *, within_s: float = 150.0) -> Story:
        """Wait until both faults are repaired, stop the controller, and hand over what there is to judge."""
        self.wait_until(lambda: self.world.settled(len(VICTIMS)), "both runs to end", within_s)
        story = Story(
            records=self.records(),
            lines=self.lines(),
            took_s=monotonic() - self._began,
            connections=self.pipe.accepted - self._connections,
            restarts=self._restarts,
        )
        self.pipe.resume()
        self.stage.stop_controller()
        return story

    def wait_until(self, condition: Callable[[], bool], what: str, timeout_s: float) -> None:
        """Wait, and start the controller again when it ends, as a kubelet does."""

        def look() -> bool:
            self._restart()
            return condition()

        def detail() -> str:
            return f"\nruns: {self.world.runs()}\nlog:\n{self.stage.log_tail()}"

        wait_until(look, timeout_s=timeout_s, what=what, detail=detail, every_s=0.1)

    def watch_over(self, seconds: float) -> None:
        """Let time pass, and start the controller again whenever it ends; the server is not asked."""
        until = monotonic() + seconds
        while monotonic() < until:
            self._restart()
            pause(RESTART_PAUSE_S)

    def _restart(self) -> None:
        if not self.stage.controller_alive:
            self._restarts += 1
            self.stage.controller.start()

    # -- which connection is which

    def find_the_lease(self) -> None:
        """Wait until only the Lease is still renewed: its connection is the one that is not silent."""
        pause(REST_S)
        busy = [link.number for link in self.pipe.links() if link.silent_up_s < RENEWED_WITHIN_S]
        assert len(busy) == 1, f"{busy} are busy, and only the Lease's should be: {self.pipe.links()}"
        self._lease_link = busy[0]

    def is_pooled(self, link: Link) -> bool:
        """A connection for requests, and not the one that renews the Lease."""
        return link.number != self._lease_link and not link.spoke_unasked

    def show_watches(self) -> None:
        """Let every watch of a kind that has objects speak, so that the pipe can tell them."""
        pause(2 * UNASKED_AFTER_S)
        for path in WATCHED:
            for found in self.stage.api.list(path)[:1]:
                name = found["metadata"]["name"]
                seen = {"metadata": {"annotations": {"example.com/seen": str(monotonic())}}}
                self.stage.api.merge_patch(f"{path}/{name}", seen)
        wait_until(
            lambda: sum(link.spoke_unasked for link in self.pipe.links()) >= len(WATCHED),
            timeout_s=40.0,
            what="every watch to speak",
            detail=lambda: str(self.pipe.links()),
        )

    # -- what was said since the beginning

    def lines(self) -> Counter[str]:
        """How often the controller's log told each event since this story began."""
        log = self.stage.log.read_bytes()[self._log :]
        return Counter(_events(log[: log.rfind(b"\n") + 1]))  # the last line may still be on its way

    def records(self) -> list[AuditRecord]:
        """All that was asked since this story began."""
        return list(self.stage.audit.since(self._mark))

    def node_writes(self) -> list[AuditRecord]:
        """The controller's own writes of nodes, accepted or refused."""
        return list(writes(self.records(), users=[USER], resource="nodes", subresource=""))


WATCHED: Final = (
    "/api/v1/nodes",
    *(f"{RUNS.rpartition('/')[0]}/{kind}" for kind in ("playbooks", "resourcepools", "remediationpolicies")),
)


def _ours(record: AuditRecord) -> bool:
    return record.username == USER


def _events(log: bytes) -> Iterable[str]:
    for line in log.splitlines():
        yield json.loads(line)["event"] if line.startswith(b"{") else line.decode(errors="replace")


def assert_calm(story: Story, normal: Story) -> None:
    """The server was asked no more than in good times, and no news was told over and over.

    In good times nearly all requests of both runs fall within five seconds; on a slow machine they
    spread, so that the busiest five seconds of one story are no measure for those of another. What the
    process asked before it led, its watches among them, may end in the story: one start more than counted.
    """
    assert story.busiest(leading=True) <= REQUESTS_MAX * len(normal.requests())
    assert story.busiest(leading=False) <= START_REQUESTS * min(1 + story.restarts, STARTS_MAX)
    more = story.lines - normal.lines
    assert not {event: count for event, count in more.items() if count > LINES_MORE_MAX}, story.lines


def assert_no_harm(stage: Stage, story: Story, *, whole: bool = True) -> None:
    """Never more out than the budget; nobody evicted before our taint; no effect twice.

    Args:
        whole: does the audit log hold every write? A killed API server may have committed one that it
            did not get to log; each write that it did log is judged all the same.
    """
    assert verdict.out_max(story.records) <= OUT_MAX
    found = effects(story.records)
    for name, counts in found.items():
        assert set(counts.values()) == {1}, f"{name}: {counts}"
    assert set(found["quarantined"]) <= set(VICTIMS)
    assert not whole or set(found["quarantined"]) == set(VICTIMS)
    assert not whole or len(found["jobs"]) == len(VICTIMS)
    assert {job["metadata"]["name"] for job in stage.api.list(JOBS)} >= set(found["jobs"])
    assert len(stage.api.list(JOBS)) == len(VICTIMS)
    homes = {
        record.object_ref.name: verdict.patch_of(record)["target"]["name"]
        for record in stage.audit.since()
        if record.object_ref.subresource == "binding"
    }
    for record in verdict.landed(
        writes(story.records, users=[USER], resource="pods", subresource="eviction")
    ):
        node = homes[record.object_ref.name]
        # Of a server that was killed the fence itself may be missing: what carries it on proves nothing.
        tainted = [
            each
            for each in _node_patches(story.records, node)
            if verdict.adds_quarantine(each) and (whole or "step=fence;" in each.user_agent)
        ]
        assert tainted or not whole, f"{record.object_ref.name} was evicted from {node} without our taint"
        assert not tainted or tainted[0].staged_at <= record.received_at


def _node_patches(records: Iterable[AuditRecord], node: str) -> list[AuditRecord]:
    found = verdict.landed(writes(records, users=[USER], resource="nodes", subresource=""))
    return [record for record in found if record.object_ref.name == node]
