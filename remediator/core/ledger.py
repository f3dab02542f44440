"""What the ledger remembers of a machine: settled from ended runs, again and again, to the same end.

Pure. ``settle`` is level-triggered: a crash between a run's end and the ledger's write loses
nothing, because every look at an ended run that the history does not name settles it.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from msgspec import UNSET
from msgspec.structs import replace

from remediator.core.account import handed_over, run_state
from remediator.core.lifecycle import FAULT_OVER, ended
from remediator.model.duration import seconds
from remediator.model.instant import read_instant, write_instant
from remediator.model.ledger import HISTORY_MAX, HistoryEntry, ManagedNodeStatus, Out, Strike
from remediator.model.policy import PolicySpec
from remediator.model.remediation import Remediation, RunState

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_OUT_AFTER: Final = (RunState.HANDED_OFF, RunState.FAILED, RunState.NODE_GONE)
_NO_STORY: Final = (RunState.WOULD_ACT, RunState.NOT_GRANTED, RunState.REPORTED)


def settle(ledger: ManagedNodeStatus, run: Remediation, policy: PolicySpec) -> ManagedNodeStatus:
    """The ledger after this run's end; unchanged when the run is open, known, or left no story."""
    state = run_state(run)
    number = number_of(run.metadata.name)
    known = _settled(ledger, run.metadata.name)
    if not ended(state) or known or state in _NO_STORY or run.status is UNSET:
        return ledger
    at = run.status.finished_at or run.metadata.creation_timestamp
    entry = HistoryEntry(run=run.metadata.name, fault_class=run.spec.fault_class, outcome=state.value, at=at)
    settled = replace(
        ledger,
        node=run.spec.node.name,
        node_uid=run.spec.node.uid,
        runs=max(ledger.runs, number),
        history=tuple(sorted((*ledger.history, entry), key=lambda each: each.at))[-HISTORY_MAX:],
        request=UNSET,
    )
    settled = _with_strike(settled, run, at)
    return _with_end(settled, run, state, at, policy)


def _settled(ledger: ManagedNodeStatus, run: str) -> bool:
    """Is this run in the books? One that a full history has dropped was in them once."""
    numbers = [number_of(entry.run) for entry in ledger.history]
    dropped = len(numbers) >= HISTORY_MAX and number_of(run) < min(numbers)
    return dropped or any(entry.run == run for entry in ledger.history)


def _with_strike(ledger: ManagedNodeStatus, run: Remediation, at: str) -> ManagedNodeStatus:
    repaired = run.status is not UNSET and any(
        step.action == "repair" and step.state == "Done" and "->" in step.note for step in run.status.steps
    )
    if not repaired:
        return ledger
    strike = Strike(fault_class=run.spec.fault_class, at=at, repair="Job")
    return replace(ledger, strikes=(*ledger.strikes, strike)[-HISTORY_MAX:])


def _with_end(
    ledger: ManagedNodeStatus, run: Remediation, state: RunState, at: str, policy: PolicySpec
) -> ManagedNodeStatus:
    assert run.status is not UNSET
    # When the Node is gone nobody can tell any more whether a quarantine that was begun had landed.
    quarantine = ("Done", "Intent") if state is RunState.NODE_GONE else ("Done",)
    touched = any(step.action == "quarantine" and step.state in quarantine for step in run.status.steps)
    if state in _OUT_AFTER and touched:
        out = Out(
            run=run.metadata.name,
            since=at,
            fault_class=run.spec.fault_class,
            reason=run.status.reason,
            pool=_empty_place(ledger, run),
        )
        return replace(ledger, state="Out", out=out)
    if state is RunState.RETURNED:
        return replace(ledger, state="Probation", out=UNSET)
    undone = any(step.action == "undo" for step in run.status.steps)
    if state is RunState.CANCELLED and run.spec.trigger == "Return" and not undone:
        return ledger  # stopped, and out as before
    if state is RunState.CANCELLED and run.status.reason == FAULT_OVER:
        return replace(ledger, state="Active", out=UNSET)
    if state is RunState.CANCELLED:
        ended_at = read_instant(at) or EPOCH
        until = ended_at + timedelta(seconds=seconds(policy.hold_after_veto))
        return replace(
            ledger,
            state="Active",
            out=UNSET,
            veto_until=write_instant(until.replace(microsecond=0)),
            veto_by=f"{run.status.reason} in {run.metadata.name}"[:256],
        )
    return ledger


def _empty_place(ledger: ManagedNodeStatus, run: Remediation) -> str:
    """The pool in which the machine is missing; empty where a spare took its place."""
    if handed_over(run):
        return ""
    # What began on a machine that was out did not take it from where it happened to be.
    return ledger.out.pool if ledger.out is not UNSET else run.spec.pool


def overlay(
    ledgers: dict[str, ManagedNodeStatus], runs: Iterable[Remediation], policy: PolicySpec
) -> dict[str, ManagedNodeStatus]:
    """The ledgers as they will be once every ended run is settled; what decisions look at."""
    found = dict(ledgers)
    for run in sorted(runs, key=lambda each: (each.spec.machine, number_of(each.metadata.name))):
        before = found.get(run.spec.machine, ManagedNodeStatus())
        after = settle(before, run, policy)
        if after is not before:
            found[run.spec.machine] = after
    return found


def number_of(run: str) -> int:
    """The n of ``<machine>-<n>``; zero for a name that is not ours."""
    tail = run.rpartition("-")[2]
    return int(tail) if tail.isdigit() else 0


def strikes_of(ledger: ManagedNodeStatus, fault_class: str, memory_s: int, now: datetime) -> int:
    """Repairs of this class that the playbook still remembers."""
    horizon = now - timedelta(seconds=memory_s)
    return sum(
        strike.fault_class == fault_class and (read_instant(strike.at) or now) >= horizon
        for strike in ledger.strikes
    )
