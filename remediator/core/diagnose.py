"""Turns what is known of one node into faults and suspicions. Pure; the clocks are ours.

Three-valued: a true signal runs its clock, a false one stops it, an unknown one does neither. So
blindness neither confirms nor cures. XIDs are events: they are faults from their edge on, until
the next boot or until the ledger calls them known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from remediator.core import conditions
from remediator.core.conditions import OUTLIVE_A_BOOT, Status
from remediator.core.edges import EdgesSeen, GpuMemory, Watch, edges, live_latches
from remediator.core.match import EVIDENCE_MAX, Book, CompiledMatcher, Finding, Pair, Scene
from remediator.model.instant import read_instant, write_instant
from remediator.model.ledger import Latch, ManagedNodeStatus, SuspicionRecord
from remediator.model.meta import LINE_MAX
from remediator.model.signal import Evidence, Fault, PageReading, Severity, Suspicion, Truth, XidEdge
from remediator.model.views import NodeView

PERSIST_AFTER_S: Final = 30
RECORDS_MAX: Final = 32
LINES_MAX: Final = 64

ClockKey = tuple[str, str]  # playbook, matcher


class Held(Struct, frozen=True):
    """One signal's clock. ``evidence`` is set once the fault was confirmed, and is its last one."""

    first_seen: datetime
    evidence: tuple[Evidence, ...] = ()


class FaultClock(Struct, frozen=True):
    """The clocks of one node, by (playbook, matcher). Empty: not seen by this process yet."""

    node_uid: str = ""
    boot_id: str = ""
    held: Mapping[ClockKey, Held] = {}


class DiagnoseInput(Struct, frozen=True, kw_only=True):
    """One node, as it is known at one instant.

    ``reading`` is the latest page if it is fresh and the node's own; else None, and ``no_reading``
    says why in a few words. ``clock`` and ``gpus`` are what the last call returned. ``baselined``
    are the XID codes whose first round of pages has been latched over the whole fleet; empty
    before the first such round. ``polarity`` is what the policy says of conditions' good status.
    ``explain`` asks for a line about every matcher.
    """

    machine: str
    node: NodeView
    book: Book
    now: datetime
    monotonic: float
    reading: PageReading | None = None
    no_reading: str = "no fresh exporter page"
    ledger: ManagedNodeStatus | None = None
    clock: FaultClock = FaultClock()
    gpus: GpuMemory = GpuMemory()
    baselined: frozenset[int] = frozenset()
    polarity: Mapping[str, Status] = {}
    explain: bool = False


class Diagnosis(Struct, frozen=True):
    """What the node has.

    ``faults`` by fault class, one each, sorted; ``suspicions`` in the order of their owners.
    ``signals`` are lines about what is true, confirmed or not, and about known conditions that are
    bad though no playbook reads them; ``unknown`` about what should be seen and is not. ``records``
    are the clocks that the ledger should hold, ``latches_to_add`` those it lacks: both are repeated
    until it shows them. ``next_due`` is when time alone changes the answer: a suspicion is confirmed, or
    a clock is old enough for the ledger.
    """

    faults: tuple[Fault, ...]
    suspicions: tuple[Suspicion, ...]
    edges: tuple[XidEdge, ...]
    latches_to_add: tuple[Latch, ...]
    missing: tuple[str, ...]
    records: tuple[SuspicionRecord, ...]
    signals: tuple[str, ...]
    unknown: tuple[str, ...]
    explanations: tuple[str, ...]
    next_due: datetime | None
    clock: FaultClock
    gpus: GpuMemory


class _Verdict(Struct, frozen=True):
    """One matcher's answer with its clock. ``held`` is None where no clock runs."""

    matcher: CompiledMatcher
    finding: Finding
    held: Held | None
    due: datetime | None

    @property
    def confirmed(self) -> bool:
        return self.held is not None and bool(self.held.evidence)


def diagnose(given: DiagnoseInput) -> Diagnosis:
    """Diagnose one node. Calling it twice with the same world gives the same answer."""
    clock = _bound(given)
    playbooks = {each.name for each in given.book.playbooks if each.selects(given.node.labels)}
    seen = _edges(given, playbooks)
    scene = _scene(given, seen)
    verdicts = [
        _verdict(matcher, matcher.judge(scene), clock.held.get(matcher.key), given.now)
        for playbook, matcher in _concerned(given, clock)
        if playbook.name in playbooks
    ]
    held = {each.matcher.key: each.held for each in verdicts if each.held is not None}
    suspected = [each for each in verdicts if each.held is not None and not each.confirmed]
    true = [each for each in verdicts if each.finding.truth is Truth.TRUE]
    dues = [each.due for each in suspected if each.finding.truth is Truth.TRUE and each.due is not None]
    dues += [at for at in map(_persisted_at, verdicts) if at is not None and at > given.now]
    return Diagnosis(
        faults=_faults(given, [each for each in verdicts if each.confirmed]),
        suspicions=tuple(_suspicion(given, each) for each in suspected),
        edges=seen.edges,
        latches_to_add=seen.latches_to_add,
        missing=seen.missing,
        records=_records(given, verdicts),
        signals=(*_lines(true), *_bad_conditions(given, {each.matcher.reads for each in true})),
        unknown=_lines(each for each in verdicts if _blind(each)),
        explanations=tuple(_explained(each, given.now) for each in verdicts[:LINES_MAX]),
        next_due=min(dues, default=None),
        clock=FaultClock(given.node.uid, given.node.boot_id, held) if held != clock.held else clock,
        gpus=seen.memory,
    )


def _bound(given: DiagnoseInput) -> FaultClock:
    """The clocks of this Node and boot; from the ledger where this process has none yet."""
    node, clock = given.node, given.clock
    if not clock.node_uid:
        records = given.ledger.suspicions if given.ledger is not None else ()
        found = (
            (record, read_instant(record.first_seen)) for record in records if record.node_uid == node.uid
        )
        held = {(record.playbook, record.matcher): Held(at) for record, at in found if at is not None}
        return FaultClock(node.uid, node.boot_id, held)
    if clock.node_uid != node.uid:
        return FaultClock(node.uid, node.boot_id)
    if clock.boot_id == node.boot_id:
        return clock
    # A new boot: what only one boot can say starts anew, a condition left over from the old one
    # included. A node that is not Ready over a chain of reboots has been so since the first.
    by_key = given.book.by_key
    kept = {
        key: held
        for key, held in clock.held.items()
        if key in by_key and by_key[key][1].source == "condition" and by_key[key][1].reads in OUTLIVE_A_BOOT
    }
    return FaultClock(node.uid, node.boot_id, kept)


def _edges(given: DiagnoseInput, playbooks: set[str]) -> EdgesSeen:
    chosen = (each.codes for each in given.book.playbooks if each.name in playbooks)
    codes = frozenset[int]().union(*chosen)
    watch = Watch(
        node_uid=given.node.uid,
        boot_id=given.node.boot_id,
        codes=codes,
        baselined=given.baselined,
        latches=given.ledger.latches if given.ledger is not None else (),
        now=given.now,
        monotonic=given.monotonic,
    )
    return edges(given.gpus, given.reading, watch)


def _scene(given: DiagnoseInput, seen: EdgesSeen) -> Scene:
    boot_id = given.node.boot_id
    stored = given.ledger.latches if given.ledger is not None else ()
    live = live_latches(stored + seen.memory.pending, boot_id) if boot_id else {}
    reading, no_reading = given.reading, given.no_reading
    if reading is not None and not boot_id:
        reading, no_reading = None, "the Node reports no bootID"
    elif reading is not None and reading.at_monotonic < seen.memory.since:
        reading, no_reading = None, "no exporter page of this boot yet"
    faults = (latch for latch in live.values() if latch.state == "Fault")
    return Scene(
        node=given.node,
        reading=reading,
        no_reading=no_reading,
        latches=tuple(sorted(faults, key=lambda latch: (latch.at, latch.gpu, latch.code))),
        missing=seen.missing,
    )


def _concerned(given: DiagnoseInput, clock: FaultClock) -> list[Pair]:
    """The matchers that can have an answer, or whose clock runs; all of them to explain."""
    book = given.book
    if given.explain:
        return list(book.by_key.values())
    found = {
        pair[1].key: pair
        for condition in given.node.conditions
        for pair in book.by_condition.get(condition.type, ())
    }
    found.update((pair[1].key, pair) for pair in book.by_page)
    found.update((key, book.by_key[key]) for key in clock.held if key in book.by_key)
    return sorted(found.values(), key=lambda pair: pair[1].rank)


def _verdict(matcher: CompiledMatcher, finding: Finding, held: Held | None, now: datetime) -> _Verdict:
    """Run one clock."""
    # An XID's truth is its latch: once that is settled there is nothing left to wait for.
    over = finding.truth is Truth.FALSE or not matcher.clears
    if finding.truth is not Truth.TRUE and (over or held is None):
        return _Verdict(matcher, finding, None, None)
    # An edge has a time of its own. A clock from the future (a clock was set back) starts now.
    first_seen = min(now, finding.since or (held.first_seen if held is not None else now))
    evidence = held.evidence if held is not None else ()
    due = first_seen + timedelta(seconds=matcher.for_s)
    if finding.truth is Truth.TRUE and (now >= due or evidence):
        evidence = finding.evidence
    return _Verdict(matcher, finding, Held(first_seen, evidence), due)


def _faults(given: DiagnoseInput, confirmed: list[_Verdict]) -> tuple[Fault, ...]:
    """One fault a class: the highest playbook owns it, the others add evidence and severity."""
    faults: dict[str, Fault] = {}
    for verdict in confirmed:
        fault = _fault(given, verdict)
        owned = faults.get(fault.fault_class)
        if owned is None:
            faults[fault.fault_class] = fault
            continue
        faults[fault.fault_class] = replace(
            owned,
            severity=Severity.HARD if Severity.HARD in (owned.severity, fault.severity) else Severity.SOFT,
            first_seen=min(owned.first_seen, fault.first_seen),
            confirmed_at=min(owned.confirmed_at, fault.confirmed_at),
            clears=owned.clears and fault.clears,
            known=owned.known or fault.known,
            evidence=tuple(dict.fromkeys(owned.evidence + fault.evidence))[:EVIDENCE_MAX],
        )
    return tuple(faults[name] for name in sorted(faults))


def _fault(given: DiagnoseInput, verdict: _Verdict) -> Fault:
    matcher, held = verdict.matcher, verdict.held
    if held is None or verdict.due is None:
        raise ValueError(f"{matcher.key}: a confirmed signal without a clock")
    return Fault(
        machine=given.machine,
        node=given.node.name,
        node_uid=given.node.uid,
        boot_id=given.node.boot_id,
        fault_class=matcher.fault_class,
        severity=Severity.HARD if matcher.hard else Severity.SOFT,
        playbook=matcher.playbook,
        matcher=matcher.id,
        first_seen=held.first_seen,
        confirmed_at=verdict.due,
        clears=matcher.clears,
        evidence=held.evidence,
        known=verdict.finding.truth is Truth.TRUE,
    )


def _suspicion(given: DiagnoseInput, verdict: _Verdict) -> Suspicion:
    matcher, held = verdict.matcher, verdict.held
    first_seen = held.first_seen if held is not None else given.now
    return Suspicion(
        machine=given.machine,
        node=given.node.name,
        playbook=matcher.playbook,
        matcher=matcher.id,
        fault_class=matcher.fault_class,
        first_seen=first_seen,
        due_at=first_seen + timedelta(seconds=matcher.for_s),
    )


def _records(given: DiagnoseInput, verdicts: list[_Verdict]) -> tuple[SuspicionRecord, ...]:
    """Clocks worth keeping over a restart; an XID's stands in its latch already."""
    old = [
        SuspicionRecord(
            playbook=each.matcher.playbook,
            matcher=each.matcher.id,
            node_uid=given.node.uid,
            first_seen=write_instant(each.held.first_seen),
        )
        for each in verdicts
        if each.held is not None and (at := _persisted_at(each)) is not None and at <= given.now
    ]
    return tuple(old[:RECORDS_MAX])


def _persisted_at(verdict: _Verdict) -> datetime | None:
    """From when on the ledger should hold this clock; None where it never does."""
    if verdict.held is None or not verdict.matcher.clears:
        return None
    return verdict.held.first_seen + timedelta(seconds=PERSIST_AFTER_S)


def _blind(verdict: _Verdict) -> bool:
    return verdict.finding.truth is Truth.UNKNOWN and not verdict.finding.unpublished


def _lines(verdicts: Iterable[_Verdict]) -> tuple[str, ...]:
    """One line each, none twice: several playbooks may read one signal."""
    return tuple(dict.fromkeys(each.finding.line for each in verdicts))[:LINES_MAX]


def _bad_conditions(given: DiagnoseInput, told: set[str]) -> list[str]:
    """Known conditions that are bad and that no true signal tells of; Ready is asked for by itself."""
    return [
        f"{each.type}={each.status}: {each.reason}"[:LINE_MAX]
        for each in given.node.conditions
        if each.type != "Ready"
        and each.type not in told
        and conditions.verdict(each.type, each.status, given.polarity) is Truth.TRUE
    ]


def _explained(verdict: _Verdict, now: datetime) -> str:
    playbook, matcher = verdict.matcher.key
    since = ""
    if verdict.held is not None and verdict.due is not None:
        state = "confirmed" if verdict.confirmed else f"due {write_instant(verdict.due)}"
        since = f", for {int((now - verdict.held.first_seen).total_seconds())} s, {state}"
    return f"{playbook}/{matcher}: {verdict.finding.truth.value}: {verdict.finding.line}{since}"
