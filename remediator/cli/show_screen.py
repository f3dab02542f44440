"""Lays the record of one run out, as text and as Markdown for a ticket. Pure."""

from __future__ import annotations

from datetime import datetime

from msgspec import UNSET

from remediator.cli.columns import clip, labelled, table
from remediator.cli.status_facts import clock_time, fault_of, run_row
from remediator.core.account import run_state
from remediator.core.lifecycle import ended
from remediator.model.duration import spoken
from remediator.model.instant import read_instant
from remediator.model.remediation import Remediation, RemediationStatus, StepStatus
from remediator.model.words import how_many

EVIDENCE_LINES_MAX = 40


def render(run: Remediation, now: datetime) -> list[str]:
    """The record as a person on call reads it."""
    spec, status = run.spec, _status(run)
    title = f"{run.metadata.name}   {run_state(run).value}   {fault_of(run)}   plan {spec.plan_hash or '-'}"
    lines = [title]
    lines += labelled("node", [f"{spec.node.name}   pool {spec.pool or '(none)'}   machine {spec.machine}"])
    by = f" by {spec.by}" if spec.by else ""
    lines += labelled(
        "why", [f"{spec.trigger}{by}, {spec.mode}, {_severity(run)}, seen {spec.first_seen or '-'}"]
    )
    lines += labelled("", [each.text for each in spec.evidence])
    lines += labelled("playbook", [f"{spec.playbook.name} generation {spec.playbook.generation}"])
    if not ended(run_state(run)):
        row = run_row(run, now)
        until = f", until {row.until}" if row.until else ""
        lines += labelled("now", [f"{row.step} for {row.since or '0s'}: {row.waits_for or 'at work'}{until}"])
    if status.message or status.reason:
        lines += labelled("said", [_said(status)])
    if spec.cancel is not UNSET:
        lines += labelled("cancel", [f"by {spec.cancel.by}: {spec.cancel.reason or 'no reason given'}"])
    if status.steps:
        lines += ["", *table(("STEP", "ACTION", "STATE", "AT", "TOOK", "NOTE"), _steps(status), right=(3, 4))]
    else:
        lines += ["", *spec.plan]
    lines += ["", _sums(run, now)]
    if status.evidence:
        lines += ["", "EVIDENCE", *(f"  {line}" for line in _evidence(status))]
    return [clip(line) for line in lines]


def _severity(run: Remediation) -> str:
    raised = _status(run).raised_by
    return f"{run.spec.severity}, Hard since {raised}" if raised else run.spec.severity


def as_markdown(run: Remediation, now: datetime) -> list[str]:
    """The record fit for a ticket: what, why, evidence, what was done."""
    spec, status = run.spec, _status(run)
    lines = [
        f"# {run.metadata.name}: {run_state(run).value}",
        "",
        f"- node: `{spec.node.name}` (uid `{spec.node.uid}`), pool `{spec.pool or '-'}`",
        f"- machine: `{spec.machine}`, bootID `{spec.boot_id or '-'}`",
        f"- fault: `{fault_of(run)}`, {_severity(run)}, first seen {spec.first_seen or '-'}",
        f"- trigger: {spec.trigger}{f' by {spec.by}' if spec.by else ''}; mode {spec.mode}; term {spec.term}",
        f"- playbook: `{spec.playbook.name}` generation {spec.playbook.generation}, plan `{spec.plan_hash}`",
    ]
    if status.message or status.reason:
        lines.append(f"- result: {_said(status)}")
    lines += ["", "## Evidence", "", *(f"- {each.text}" for each in spec.evidence)]
    if status.evidence:
        lines += ["", "```text", *status.evidence.replace("```", "'''").splitlines(), "```"]
    lines += ["", "## Steps", "", "| step | action | state | at | took | note |", "|---|---|---|---|---|---|"]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in _steps(status)]
    return [*lines, "", _sums(run, now)]


def _said(status: RemediationStatus) -> str:
    return ": ".join(filter(None, (status.reason, status.message)))


def _status(run: Remediation) -> RemediationStatus:
    return run.status if run.status is not UNSET else RemediationStatus()


def _steps(status: RemediationStatus) -> list[tuple[str, str, str, str, str, str]]:
    first = read_instant(status.steps[0].started_at) if status.steps else None
    return [_step(step, first) for step in status.steps]


def _step(step: StepStatus, first: datetime | None) -> tuple[str, str, str, str, str, str]:
    began, end = read_instant(step.started_at), read_instant(step.finished_at)
    at = f"+{spoken((began - first).total_seconds())}" if began is not None and first is not None else "-"
    took = _precise((end - began).total_seconds()) if began is not None and end is not None else "-"
    note = step.note or (how_many(step.evictions, "eviction") if step.evictions else "-")
    return step.id, step.action, step.state, at, took, note


def _precise(seconds: float) -> str:
    return f"{seconds:.1f}s" if seconds < 60 else spoken(seconds)


def _sums(run: Remediation, now: datetime) -> str:
    status = _status(run)
    began = read_instant(status.started_at or run.metadata.creation_timestamp)
    end = read_instant(status.finished_at) or (now if not ended(run_state(run)) else None)
    words = []
    if began is not None and end is not None:
        words.append(f"machine time {spoken((end - began).total_seconds())}")
    words.append(f"evictions {sum(step.evictions for step in status.steps)}")
    if status.spare is not UNSET:
        words.append(f"spare {status.spare.name}")
    if status.finished_at:
        words.append(f"ended {clock_time(status.finished_at, now)} UTC")
    return "   ".join(words)


def _evidence(status: RemediationStatus) -> list[str]:
    lines = status.evidence.splitlines()
    more = (
        [f"and {how_many(len(lines) - EVIDENCE_LINES_MAX, 'line')} more (-o md)"]
        if len(lines) > EVIDENCE_LINES_MAX
        else []
    )
    return lines[:EVIDENCE_LINES_MAX] + more
