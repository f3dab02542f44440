"""Lays out why something, or nothing, is done about one node. Pure."""

from __future__ import annotations

from msgspec import UNSET

from remediator.app.explain import Answer, Judged
from remediator.cli.columns import clip, labelled, table
from remediator.cli.status_facts import fault_of, run_row
from remediator.core.account import run_state
from remediator.core.pages import spoken_trouble
from remediator.core.plan import Plan
from remediator.model.duration import spoken
from remediator.model.instant import read_instant
from remediator.model.remediation import RunState
from remediator.model.signal import Fault
from remediator.model.words import how_many, shortened

LINES_MAX = 12
UNJUDGED_MAX = 3


def render(answer: Answer, *, everything: bool = False) -> list[str]:
    """The whole screen. ``everything``: also each matcher that is false."""
    lines = [_title(answer), *labelled("", [headline(answer)], 0), ""]
    lines += labelled("SEEN", _seen(answer))
    lines += _standing(answer)
    if not answer.judged:
        lines += _matchers(answer, everything)
    for judged in answer.judged:
        lines += ["", *_judged(answer, judged)]
    if answer.judged and everything:
        lines += ["", *_matchers(answer, everything)]
    if answer.notes:
        lines += ["", *labelled("NOT SEEN", answer.notes)]
    hints = _hints(answer)
    if hints:
        lines += ["", *labelled("YOU CAN", hints)]
    return [clip(line) for line in lines]


def blocked(answer: Answer) -> bool:
    """Does a limit, hold, pause or breaker keep something from being done?"""
    if answer.run is not None:
        return run_state(answer.run) in (RunState.HELD, RunState.BLOCKED)
    return any(judged.stop is not None for judged in answer.judged)


def headline(answer: Answer) -> str:
    """One sentence: what is done, or why nothing is."""
    run = answer.run
    if run is not None:
        row = run_row(run, answer.now)
        waits = f"; waits for {row.waits_for}" if row.waits_for else ""
        until = f", until {row.until}" if row.until else ""
        return f"{run.metadata.name} is under way: {row.step} for {row.since or '0s'}{waits}{until}."
    if answer.ledger is not None and answer.ledger.out is not UNSET:
        out = answer.ledger.out
        back = f"remediator return {answer.node.name}"
        return f"Kept out since {out.since} by {out.run} ({out.reason}); people look, and then: {back}."
    if not answer.judged:
        return _nothing(answer)
    stops = [judged.stop for judged in answer.judged]
    if any(stop is None for stop in stops):
        if answer.leadership.vacant(answer.now):
            return "Every gate is open, but nobody leads: nothing is done until a controller runs."
        return "Every gate is open: the leader's next pass grants it."
    stop = stops[0]
    assert stop is not None
    words = f"Nothing is done: gate {stop.gate} stops it ({stop.stop}): {stop.numbers}."
    further = [each.gate for each in answer.judged[0].verdicts if not each.ok and each is not stop]
    return words + (f" Then so would: {', '.join(further)}." if further else "")


def gate_rows(judged: Judged) -> list[tuple[str, str, str, str, str]]:
    """(number, gate, verdict, reason code, numbers); the first that stops is marked ``STOP <``."""
    rows = []
    for number, verdict in enumerate(judged.verdicts, start=1):
        unjudged = judged.unjudged.get(verdict.gate)
        if unjudged is not None:
            rows.append((str(number), verdict.gate, "?", "", unjudged))
            continue
        first = judged.stop is verdict
        said = "ok" if verdict.ok else "STOP <" if first else "STOP"
        rows.append((str(number), verdict.gate, said, verdict.stop, verdict.numbers))
    return rows


def _title(answer: Answer) -> str:
    parts = [answer.node.name, f"pool {answer.pool or '(none)'}", f"machine {answer.machine}"]
    return "   ".join([*parts, f"{answer.now:%Y-%m-%d %H:%M:%S} UTC, term {answer.term}"])


def _nothing(answer: Answer) -> str:
    suspicions = answer.diagnosis.suspicions
    if suspicions:
        due = min(suspicions, key=lambda each: each.due_at)
        left = max(0.0, (due.due_at - answer.now).total_seconds())
        return f"Nothing yet: {due.fault_class} is suspected, and confirmed if it lasts {spoken(left)} more."
    return "Nothing is wrong that a playbook looks for."


def _seen(answer: Answer) -> list[str]:
    node, found = answer.node, answer.diagnosis
    lines = [f"true: {line}" for line in found.signals[:LINES_MAX]]
    ready = node.condition("Ready")
    state = "Ready" if node.ready else f"Ready={ready.status if ready is not None else 'absent'}"
    taints = [f"{taint.key}={taint.value}:{taint.effect}" for taint in node.taints]
    cordon = "cordoned" if node.unschedulable else "not cordoned"
    lines.append(f"{state}, {cordon}, {node.gpus} GPUs, taints: {shortened(taints) or 'none'}")
    lines += [f"unknown: {line}" for line in found.unknown[:3]]
    if len(found.unknown) > 3:
        lines.append(f"and {len(found.unknown) - 3} more unknown")
    if answer.page is not None:
        lines.append(f"page: {spoken_trouble(answer.page)}")
    if answer.unjudged:
        names = shortened([f"{each.type}={each.status}" for each in answer.unjudged], UNJUDGED_MAX)
        fix = "give the good status in RemediationPolicy/cluster spec.conditions"
        lines.append(f"not judged: {names}; {fix}")
    return lines


def _standing(answer: Answer) -> list[str]:
    lines: list[str] = []
    if answer.run is not None and answer.run.status is not UNSET:
        steps = [f"{step.id} {step.state.lower()}" for step in answer.run.status.steps]
        lines += labelled("RUN", [f"{answer.run.metadata.name}: {fault_of(answer.run)}", ", ".join(steps)])
    ledger = answer.ledger
    if ledger is not None and ledger.request is not UNSET:
        waiting = ledger.request
        since = read_instant(waiting.since) or answer.now
        waited = spoken((answer.now - since).total_seconds())
        said = f"{waiting.playbook} waits {waited} at {waiting.blocked_by}: {waiting.numbers}"
        lines += labelled("LEADER", [said])
    if ledger is not None and ledger.history:
        last = [f"{each.run} {each.outcome} {each.at}" for each in ledger.history[-3:]]
        lines += labelled("HISTORY", last)
    if answer.recorded is not None:
        record = answer.recorded
        what = f"{record.metadata.name} {run_state(record).value}, plan {record.spec.plan_hash}"
        lines += labelled("RECORDED", [f"{what}; no second record until the fault clears"])
    return lines


def _judged(answer: Answer, judged: Judged) -> list[str]:
    lines = []
    if judged.fault is not None:
        lines += labelled("FAULT", fault_lines(judged.fault))
    else:
        lines += labelled("FAULT", ["none that this playbook looks for"])
    others = [each.playbook.name for each in answer.judged if each is not judged]
    also = f"; also {', '.join(others)}" if others else ""
    summary = judged.playbook.spec.summary
    head = f"{judged.playbook.name} generation {judged.playbook.generation}: {summary}{also}"
    lines += labelled("PLAYBOOK", [head, f"plan {judged.plan.hash}: {_steps(judged.plan)}"])
    lines.append("")
    return lines + table(("", "GATE", "VERDICT", "REASON", "NUMBERS"), gate_rows(judged), right=(0,))


def _steps(plan: Plan) -> str:
    return ", ".join(line.split(":", 1)[0].split(" ", 1)[1] for line in plan.lines)


def fault_lines(fault: Fault) -> list[str]:
    """What the fault is, and why we believe in it."""
    clears = "ends with its signal" if fault.clears else "does not clear by itself"
    known = "" if fault.known else ", its signal can't be seen now"
    confirmed = f"confirmed {fault.confirmed_at:%m-%d %H:%M:%S}"
    head = f"{fault.fault_class}, {fault.severity.value}, {confirmed}; {clears}"
    return [f"{head}{known}", *(each.text for each in fault.evidence[:4])]


def _matchers(answer: Answer, everything: bool) -> list[str]:
    """What the matchers say. Those that can't see stand together by their reason; false ones are counted."""
    if not answer.explanations:
        return labelled("LOOKED", ["no playbook selects this node"])
    if everything:
        return labelled("LOOKED", answer.explanations)
    told = [line.split(": ", 2) for line in answer.explanations]
    lines = [": ".join(parts) for parts in told if parts[1] == "true"][:LINES_MAX]
    blind: dict[str, list[str]] = {}
    for matcher, truth, reason in (parts for parts in told if len(parts) == 3):
        if truth == "unknown" and not reason.startswith("no condition "):
            blind.setdefault(reason, []).append(matcher)
    lines += [f"can't see, {reason}: {shortened(names)}" for reason, names in blind.items()][:LINES_MAX]
    rest = len(told) - len([parts for parts in told if parts[1] == "true"]) - sum(map(len, blind.values()))
    return labelled("LOOKED", [*lines, f"nothing seen by {how_many(rest, 'matcher')} (--all)"])


def _hints(answer: Answer) -> list[str]:
    name = answer.node.name
    if answer.run is not None:
        return [f"remediator show {name}", f"remediator cancel {name} --reason TEXT"]
    if not answer.judged:
        return []
    first = answer.judged[0]
    hints = [f"remediator plan {name}"]
    if first.stop is not None and first.stop.stop == "ModeAudit":
        hints.append(f"remediator remediate {name} --plan {first.plan.hash}     passes the mode gate only")
    return [*hints, f"remediator hold {name} --for 12h --reason TEXT"]
