"""Keeps every node's diagnosis current: which nodes to look at, and when again. The looking is core's.

A watch event or a page only marks a name; the diagnosis reads everything again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import structlog
from msgspec import UNSET

from remediator.core.conditions import Status, overrides
from remediator.core.coverage import STALE_PERIODS, is_fresh, wrong_host
from remediator.core.diagnose import DiagnoseInput, Diagnosis, FaultClock, diagnose
from remediator.core.edges import GpuMemory
from remediator.core.match import Book, bind, compile_playbooks
from remediator.core.pages import FIXES
from remediator.model.duration import seconds
from remediator.model.signal import Fault, PageReading, PageTrouble
from remediator.model.views import NodeView
from remediator.ports import Clock, Telemetry
from remediator.runtime.due import DueHeap
from remediator.runtime.world import World

STALE_SLACK_S: Final = 1.0
SLICE: Final = 64  # nodes diagnosed before the loop gets its turn

_log = structlog.get_logger(__name__)


class Diagnoses:
    """The newest diagnosis of every node, by node name.

    ``on_change`` is called when a fault appeared or went, or a suspicion or latch is news.
    """

    def __init__(self, *, world: World, clock: Clock, telemetry: Telemetry) -> None:
        self._world = world
        self._clock = clock
        self._telemetry = telemetry
        self._due = DueHeap(clock)
        self._book: Book = bind(())
        self._expects: dict[str, tuple[NodeView, bool]] = {}
        self._polarity: Mapping[str, Status] = {}
        self._readings: dict[str, PageReading] = {}
        self._counted: dict[str, PageReading] = {}  # the page that the last diagnosis rests on
        self._looked_at: dict[str, NodeView] = {}  # the Node that the last diagnosis rests on
        self._failures: dict[str, PageTrouble] = {}
        self._garbled: set[str] = set()  # nodes whose newest page had lines that can't be read
        self._found: dict[str, Diagnosis] = {}
        self.on_change: Callable[[str], None] = lambda _: None

    # -- what others read

    @property
    def fields(self) -> frozenset[str]:
        """DCGM fields that the playbooks in force read."""
        return self._book.fields

    @property
    def codes(self) -> frozenset[int]:
        """XID codes that the playbooks in force read."""
        return self._book.codes

    @property
    def readings(self) -> Mapping[str, PageReading]:
        return self._readings

    def of(self, node: str) -> Diagnosis | None:
        return self._found.get(node)

    def faults(self) -> tuple[Fault, ...]:
        """Every confirmed fault of every node."""
        return tuple(fault for found in self._found.values() for fault in found.faults)

    def catch_up(self) -> None:
        """Look again at every faulty node that has changed since; for whoever is about to act on faults.

        A change wakes the looking and the deciding at once, and either may come first.
        """
        for name in [name for name, found in self._found.items() if found.faults and self._behind(name)]:
            self.look(name)

    def _behind(self, name: str) -> bool:
        newest, counted = self._readings.get(name), self._counted.get(name)
        unread = newest is not None and newest is not counted and self._tells_more(newest)
        return unread or self._looked_at.get(name) is not self._world.node(name)

    def is_over(self, node: str, fault_class: str) -> bool:
        """Is it known that the node has no fault of this class, and none that may become one?

        What can't be seen is not over.
        """
        if self._behind(node):
            self.look(node)
        found = self._found.get(node)
        if found is None or found.unknown:
            return False
        classes = {fault.fault_class for fault in found.faults}
        classes |= {suspicion.fault_class for suspicion in found.suspicions}
        return fault_class not in classes

    def signals_of(self, node: str) -> tuple[str, ...]:
        """Lines about what is true of a node, confirmed or not."""
        found = self._found.get(node)
        return found.signals if found is not None else ()

    def is_blind(self, node: str) -> bool:
        """Should the node have an exporter page, and has no fresh one?"""
        return self.expects_page(node) and self.reading(node) is None

    def expects_page(self, node: str) -> bool:
        """Would a playbook read it? Remembered until node or playbooks change: spares are asked each pass."""
        view = self._world.node(node)
        if view is None:
            return False
        known = self._expects.get(node)
        if known is None or known[0] is not view:
            books = self._book.playbooks
            wanted = any(each.uses_exporter and each.selects(view.labels) for each in books)
            known = self._expects[node] = (view, wanted)
        return known[1]

    def reading(self, node: str) -> PageReading | None:
        """The node's page when it is fresh and its own."""
        found = self._readings.get(node)
        return found if found is not None and self._why_not(node, found) is None else None

    def why_no_page(self, node: str) -> str:
        """In a few words why there is no fresh page; empty when there is one."""
        why_not = self._why_not(node, self._readings.get(node))
        return why_not.text if why_not is not None else ""

    def page_trouble(self, node: str) -> PageTrouble | None:
        """What is wrong with the page of a node that should have one; also with a page that counts."""
        found = self._readings.get(node)
        why_not = self._why_not(node, found)
        if why_not is not None or found is None:
            return why_not
        if not found.gpus:
            return PageTrouble("NoGpus", "the page names no GPU")
        if found.bad_lines:
            return PageTrouble("BadLines", "lines of the page can't be read and are skipped")
        return None

    def page_states(self) -> Mapping[str, int]:
        """How many of the pages that playbooks need are fresh, stale, or were never read."""
        expected = [name for name in self._world.nodes if self.expects_page(name)]
        fresh = sum(self.reading(name) is not None for name in expected)
        seen = sum(name in self._readings for name in expected)
        return {"fresh": fresh, "stale": seen - fresh, "waiting": len(expected) - seen}

    # -- what wakes it

    def node_changed(self, name: str, after: NodeView | None) -> None:
        if after is None:
            self._found.pop(name, None)
            self._readings.pop(name, None)
            self._counted.pop(name, None)
            self._looked_at.pop(name, None)
            self._failures.pop(name, None)
            self._expects.pop(name, None)
            self._garbled.discard(name)
            self._due.discard(name)
            self.on_change(name)
        else:
            self._due.add(name)

    def page_read(self, reading: PageReading) -> None:
        self._readings[reading.node] = reading
        self._failures.pop(reading.node, None)
        self._note_skipped(reading)
        if self._tells_more(reading):
            self._due.add(reading.node)

    def _tells_more(self, reading: PageReading) -> bool:
        """Does a page say anything else than the one that the last diagnosis rests on?"""
        counted = self._counted.get(reading.node)
        if counted is None:
            return True
        return (counted.gpus, counted.driver, counted.host) != (reading.gpus, reading.driver, reading.host)

    def _note_skipped(self, reading: PageReading) -> None:
        """A page of which a part can't be read is told once; the rest of it counts."""
        if not reading.bad_lines:
            self._garbled.discard(reading.node)
            return
        if reading.node not in self._garbled:
            self._garbled.add(reading.node)
            _log.warning("page lines skipped", node=reading.node, lines=reading.bad_lines)
        self._telemetry.count("remediator_page_lines_skipped_total", {}, reading.bad_lines)

    def page_failed(self, node: str, trouble: PageTrouble) -> None:
        if node not in self._failures:
            _log.info("page not read", node=node, reason=trouble.text, fix=FIXES[trouble.kind])
        self._failures[node] = trouble
        self._telemetry.count("remediator_page_failures_total", {"reason": trouble.kind})

    def rules_changed(self) -> None:
        """Playbooks or policy changed: judge every node anew."""
        self._book = bind(compile_playbooks(self._world.playbooks))
        self._expects.clear()
        self._polarity = overrides(self._world.policy_spec.conditions)
        for name in self._world.caches.nodes.views():
            self._due.add(name)

    # -- the work

    async def run(self) -> None:
        """Diagnose whatever is due, until cancelled."""
        done = 0
        while True:
            name = await self._due.take()
            self.look(name)
            done += 1
            if done % SLICE == 0:
                await self._clock.sleep(0)

    def look(self, name: str) -> None:
        """Diagnose one node now."""
        node = self._world.node(name)
        if node is None:
            return
        before = self._found.get(name)
        given = self._given(node, before)
        found = diagnose(given)
        self._found[name] = found
        self._looked_at[name] = node
        self._note_counted(name, given.reading, found)
        if found.next_due is not None:
            self._due.add(name, max(0.0, (found.next_due - self._clock.now()).total_seconds()))
        if given.reading is not None and self.expects_page(name):
            age_s = self._clock.monotonic() - given.reading.at_monotonic
            self._due.add(name, max(0.0, STALE_PERIODS * self._period_s() - age_s) + STALE_SLACK_S)
        if before is None or _news(before, found):
            self._count_new(before, found)
            self.on_change(name)

    def _note_counted(self, name: str, reading: PageReading | None, found: Diagnosis) -> None:
        """Remember on which page the diagnosis rests: one that says the same brings no other.

        A page from before the boot rests in no diagnosis, and the first one after it is always looked at.
        """
        if reading is None or reading.at_monotonic < found.gpus.since:
            self._counted.pop(name, None)
        else:
            self._counted[name] = reading

    def explain(self, name: str) -> tuple[str, ...]:
        """One line about every matcher that concerns the node."""
        node = self._world.node(name)
        if node is None:
            return ()
        return diagnose(self._given(node, self._found.get(name), explain=True)).explanations

    def _given(self, node: NodeView, before: Diagnosis | None, *, explain: bool = False) -> DiagnoseInput:
        machine = self._world.machine(node)
        ledger = self._world.ledger(machine)
        reading = self._readings.get(node.name)
        why_not = self._why_not(node.name, reading)
        return DiagnoseInput(
            machine=machine,
            node=node,
            book=self._book,
            now=self._clock.now(),
            monotonic=self._clock.monotonic(),
            reading=reading if why_not is None else None,
            no_reading=why_not.text if why_not is not None else "",
            ledger=ledger.status if ledger is not None and ledger.status is not UNSET else None,
            clock=before.clock if before is not None else FaultClock(),
            gpus=before.gpus if before is not None else GpuMemory(),
            baselined=frozenset(self._world.policy_status.baselined),
            polarity=self._polarity,
            explain=explain,
        )

    def _why_not(self, node: str, reading: PageReading | None) -> PageTrouble | None:
        failed = self._failures.get(node)
        if reading is None:
            return failed or PageTrouble("NotFetched", "no exporter page yet")
        if not self._was_fresh(reading):
            last = failed or PageTrouble("NotFetched", "not fetched for three periods")
            return PageTrouble(last.kind, f"exporter page stale: {last.text}")
        view = self._world.node(node)
        wrong = wrong_host(reading, view, self._world.caches.nodes) if view is not None else None
        return PageTrouble("OtherNode", wrong) if wrong else None

    def _was_fresh(self, reading: PageReading) -> bool:
        return is_fresh(reading, now_monotonic=self._clock.monotonic(), period_s=self._period_s())

    def _period_s(self) -> float:
        spec = self._world.policy_spec.exporter
        return float(seconds(spec.period)) if spec is not UNSET else 15.0

    def _count_new(self, before: Diagnosis | None, found: Diagnosis) -> None:
        known = {fault.key for fault in before.faults} if before is not None else set()
        for fault in found.faults:
            if fault.key not in known:
                _log.warning(
                    "fault confirmed",
                    node=fault.node,
                    machine=fault.machine,
                    fault_class=fault.fault_class,
                    playbook=fault.playbook,
                    evidence=[each.text for each in fault.evidence],
                )
                self._telemetry.count("remediator_faults_total", {"fault_class": fault.fault_class})


def _news(before: Diagnosis, found: Diagnosis) -> bool:
    return (
        [fault.key for fault in before.faults] != [fault.key for fault in found.faults]
        or before.records != found.records
        or before.latches_to_add != found.latches_to_add
        or before.signals != found.signals
        or before.unknown != found.unknown
    )
