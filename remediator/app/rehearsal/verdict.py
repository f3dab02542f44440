"""Holds what came of a story against what was expected of it. Pure.

A mismatch is a field below ``expect`` and the words for it: expected, and what came instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec
from msgspec import UNSET

from remediator.adapters.files.testfile import (
    Expectation,
    ExpectedNodes,
    ExpectedPlan,
    ExpectedRun,
    Never,
)
from remediator.app.rehearsal.play import Told
from remediator.model.duration import seconds, spoken
from remediator.model.instant import read_instant
from remediator.model.keys import ANNOTATION_PROBATION, GROUP, TAINT_QUARANTINE
from remediator.model.playbook import PlaybookSpec
from remediator.model.remediation import Remediation, RemediationStatus
from remediator.model.views import NodeView

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One expectation that was not met. ``field`` leads to it from ``expect``."""

    field: Path
    message: str


def judge(expect: Expectation, told: Told) -> tuple[Mismatch, ...]:
    """Every expectation that the story did not meet, in the order of the file's keys."""
    return tuple(_judge(expect, told))


def _judge(expect: Expectation, told: Told) -> Iterator[Mismatch]:
    if expect.faults is not UNSET:
        wanted = [f"{each.fault_class} on {each.node}" for each in expect.faults]
        came = [f"{fault_class} on {node}" for node, fault_class in told.faults]
        yield from _lists(("faults",), sorted(wanted), sorted(came))
    if expect.plan is not UNSET:
        yield from _plan(expect.plan, told)
    if expect.runs is not UNSET:
        yield from _runs(expect.runs, told)
    if expect.blocked is not UNSET:
        blocked = sorted(f"{each.node} by {each.by}" for each in expect.blocked)
        yield from _lists(("blocked",), blocked, [f"{node} by {reason}" for node, reason in told.blocked])
    if expect.writes is not UNSET:
        yield from _lists(("writes",), list(expect.writes), told.books.lines)
    for index, each in enumerate(expect.nodes):
        yield from _nodes(("nodes", index), each, told)
    if expect.never is not UNSET:
        yield from _never(expect.never, told)


def _lists(at: Path, wanted: Sequence[str], came: Sequence[str]) -> Iterator[Mismatch]:
    """Two lists that must be equal: say all that came, and point at the first difference."""
    if list(wanted) == list(came):
        return
    index = next(
        (i for i, (a, b) in enumerate(zip(wanted, came, strict=False)) if a != b), min(len(wanted), len(came))
    )
    expected = repr(wanted[index]) if index < len(wanted) else "nothing more"
    actual = repr(came[index]) if index < len(came) else "nothing more"
    listed = "".join(f"\n    - {each}" for each in came) or " none"
    yield Mismatch((*at, index), f"expected {expected}, came {actual}; all that came:{listed}")


def steps_of(run: Remediation) -> tuple[str, ...]:
    """Ids of the steps of the playbook that the run carries."""
    return tuple(step.id for step in msgspec.json.decode(run.spec.playbook.text, type=PlaybookSpec).steps)


def _plan(expect: ExpectedPlan, told: Told) -> Iterator[Mismatch]:
    run = next((each for each in told.runs if each.spec.node.name == expect.node), None)
    if run is None:
        yield Mismatch(("plan", "node"), f"expected a plan for {expect.node}, came no run")
        return
    if expect.steps is not UNSET and expect.steps != steps_of(run):
        yield from _lists(("plan", "steps"), expect.steps, steps_of(run))
    spare = run.spec.spare.name if run.spec.spare is not UNSET else ""
    if expect.spare is not UNSET and expect.spare != spare:
        yield Mismatch(("plan", "spare"), f"expected {expect.spare or 'no spare'}, came {spare or 'none'}")
    for index, piece in enumerate(expect.contains):
        if not any(piece in line for line in run.spec.plan):
            lines = "".join(f"\n    {line}" for line in run.spec.plan)
            yield Mismatch(("plan", "contains", index), f"expected {piece!r} in a line of the plan:{lines}")


def _status(run: Remediation) -> RemediationStatus:
    return RemediationStatus() if run.status is UNSET else run.status


def say_run(run: Remediation) -> str:
    """One run in a line, for people."""
    status = _status(run)
    reason = f" ({status.reason})" if status.reason and status.reason != status.state else ""
    return f"{run.metadata.name} of {run.spec.playbook.name}: {status.state or 'Granted'}{reason}"


def _runs(expected: tuple[ExpectedRun, ...], told: Told) -> Iterator[Mismatch]:
    listed = "".join(f"\n    - {say_run(run)}: {_status(run).message}" for run in told.runs) or " none"
    if [each.node for each in expected] != [run.spec.node.name for run in told.runs]:
        wanted = ", ".join(each.node for each in expected) or "no run"
        yield Mismatch(("runs",), f"expected runs on {wanted}; all that came:{listed}")
        return
    for index, (wanted_run, run) in enumerate(zip(expected, told.runs, strict=True)):
        for field, message in _run(wanted_run, run):
            yield Mismatch(("runs", index, field), f"{message}; it is {say_run(run)}: {_status(run).message}")


def _run(expect: ExpectedRun, run: Remediation) -> Iterator[tuple[str, str]]:
    status = _status(run)
    came = {
        "state": status.state or "Granted",
        "reason": status.reason,
        "playbook": run.spec.playbook.name,
    }
    for field, value in came.items():
        wanted = str(getattr(expect, field))
        if wanted and wanted != value:
            yield field, f"expected {wanted}, came {value or 'none'}"
    done = tuple(each.id for each in status.steps if each.state == "Done")
    if expect.done is not UNSET and expect.done != done:
        yield "done", f"expected {', '.join(expect.done) or 'none'}, came {', '.join(done) or 'none'}"
    spare = status.spare.name if status.spare is not UNSET else ""
    if expect.spare is not UNSET and expect.spare != spare:
        yield "spare", f"expected {expect.spare or 'none'}, came {spare or 'none'}"
    if expect.says and expect.says not in f"{status.message}\n{status.waits_for}":
        yield "says", f"expected {expect.says!r} in what it says"
    if expect.within is not UNSET:
        yield from _within(expect.within, run)


def _within(within: str, run: Remediation) -> Iterator[tuple[str, str]]:
    born, ended = read_instant(run.metadata.creation_timestamp), read_instant(_status(run).finished_at)
    if born is None or ended is None:
        yield "within", f"expected an end within {within}, came none"
    elif (ended - born).total_seconds() > seconds(within):
        yield (
            "within",
            f"expected an end within {within}, came one after {spoken((ended - born).total_seconds())}",
        )


def _nodes(at: Path, expect: ExpectedNodes, told: Told) -> Iterator[Mismatch]:
    for name in expect.names:
        node = told.nodes.get(name)
        if node is None:
            yield Mismatch((*at, "names"), f"expected a node {name}, came none")
            continue
        home = told.homes.get(name, "")
        if expect.pool is not UNSET and expect.pool != home:
            yield Mismatch(
                (*at, "pool"), f"expected {name} in {expect.pool or 'no pool'}, came {home or 'none'}"
            )
        for field, came in _looks_of(node).items():
            wanted = getattr(expect, field)
            if wanted is not UNSET and wanted != came:
                said = f"expected {field}: {str(wanted).lower()} on {name}, came {str(came).lower()}"
                yield Mismatch((*at, field), said)


def _looks_of(node: NodeView) -> dict[str, bool]:
    ours = [key for key in (*node.labels, *node.annotations) if key.startswith(f"{GROUP}/")]
    ours += [taint.key for taint in node.taints if taint.key.startswith(f"{GROUP}/")]
    return {
        "quarantined": node.taint(TAINT_QUARANTINE) is not None,
        "cordoned": node.unschedulable,
        "probation": ANNOTATION_PROBATION in node.annotations,
        "clean": not ours,
    }


def _never(never: Never, told: Told) -> Iterator[Mismatch]:
    peaks = told.peaks
    for field, limit, came in (
        ("notServingAbove", never.not_serving_above, peaks.not_serving),
        ("runsAbove", never.runs_above, peaks.runs),
        ("rebootsAbove", never.reboots_above, peaks.reboots),
    ):
        if limit is not UNSET and came > limit:
            yield Mismatch(("never", field), f"expected never above {limit}, came {came}")
    for index, name in enumerate(never.writes_to):
        if name in told.books.touched:
            yield Mismatch(("never", "writesTo", index), f"expected no write to {name}, came one")
    if never.evicts and told.books.evicted:
        yield Mismatch(("never", "evicts"), f"expected no eviction, came {', '.join(told.books.evicted)}")
