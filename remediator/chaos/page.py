"""One history as a page that needs nothing else: a picture of its time, its verdict, and the proof."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Final

from remediator.chaos.check import Finding, Verdict
from remediator.chaos.history import SETTLE_S, Outcome
from remediator.chaos.schedule import Event, Fault
from remediator.chaos.timeline import Mark, Span, Timeline

Scale = Callable[[float], float]  # seconds to a place from the left

LEFT, ROW, WIDTH = 190, 16, 1_000
RECORD_CHARS_MAX: Final = 4_000
COLOURS: Final[Mapping[str, str]] = {
    "faulty": "#d9534f",
    "not ready": "#b0a8b9",
    "fenced": "#e8a33d",
    "gone": "#333333",
    "API": "#5b8bd0",
}
_STYLE: Final = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 1200px; color: #222; }
h1, h2 { font-weight: 600; } table { border-collapse: collapse; }
td, th { padding: .2rem .7rem; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top; }
pre { background: #f5f5f5; padding: .7rem; overflow-x: auto; font-size: 12px; }
.broken { color: #b52b27; font-weight: 600; } .held { color: #2d7d46; } .quiet { color: #777; }
svg text { font: 11px system-ui, sans-serif; fill: #333; }
"""


def page(outcome: Outcome, timeline: Timeline, lines: Sequence[bytes], again: str) -> str:
    """The whole page as HTML.

    Args:
        outcome: what came of the history.
        timeline: of the same history.
        lines: all audit records, of which the findings' are shown.
        again: the command that plays it once more.
    """
    schedule = outcome.schedule
    bugs = f", with {', '.join(schedule.bugs)}" if schedule.bugs else ""
    what = f"{schedule.controller}{bugs}: seed {schedule.seed}"
    broken = [each for each in outcome.report.verdicts if each.answer == "broken"]
    said = f"broken: {', '.join(outcome.broken)}" if outcome.broken else "every rule held"
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(what)}</title>",
        f"<style>{_STYLE}</style><h1>{escape(what)}</h1>",
        f"<p class={'broken' if outcome.broken else 'held'}>{escape(said)}</p>",
        f"<p>Played again by <code>{escape(again)}</code>. {outcome.report.own:,} of "
        f"{outcome.report.records:,} requests are the controller's; {outcome.starts} starts, "
        f"{outcome.reboots} reboots.</p>",
        _picture(outcome, timeline),
        *(_proof(verdict, lines) for verdict in broken),
        "<h2>Rules</h2>",
        _rules(outcome.report.verdicts),
        "<h2>How it ended</h2><pre>",
        escape("\n".join(outcome.ending)),
        "</pre></html>",
    ]
    return "\n".join(parts)


def _picture(outcome: Outcome, timeline: Timeline) -> str:
    """Rows of nodes under rows of API faults, left to right in time."""
    schedule, ends_s = outcome.schedule, max(timeline.ends_s, 1.0)
    spans = [span for span in timeline.spans() if span.to_s > span.from_s]
    named = {event.node for event in schedule.events} | {span.node for span in spans}
    rows = sorted(node for node in named if node)
    place = {node: number + len(schedule.faults) for number, node in enumerate(rows)}

    def x(at_s: float) -> float:
        return LEFT + at_s / ends_s * (WIDTH - LEFT)

    height = ROW * (len(rows) + len(schedule.faults) + 2)
    shapes = [
        *(_fault(number, fault, x) for number, fault in enumerate(schedule.faults)),
        *(f'<text x="0" y="{y * ROW + 12}">{escape(node)}</text>' for node, y in place.items()),
        *(_bar(x(s.from_s), x(s.to_s), place[s.node], s.kind, _told(s)) for s in spans if s.node in place),
        *_marks(timeline.marks, place, x),
        *_events(schedule.events, place, x, len(rows) + len(schedule.faults)),
    ]
    legend = "  ".join(
        f'<span style="color:{colour}">■</span> {escape(name)}' for name, colour in COLOURS.items()
    )
    note = f"{legend}; ┃ an event, · a write of the controller. {ends_s / 60:.0f} minutes, left to right."
    return f'<p>{note}</p><svg viewBox="0 0 {WIDTH} {height}" width="100%">{"".join(shapes)}</svg>'


def _told(span: Span) -> str:
    return f"{span.node} {span.kind}, {span.from_s:.0f} s to {span.to_s:.0f} s"


def _bar(from_x: float, to_x: float, row: int, kind: str, title: str) -> str:
    thin = 4 if kind in ("faulty", "not ready") else 8
    return (
        f'<rect x="{from_x:.1f}" y="{row * ROW + (2 if thin == 4 else 5)}" height="{thin}" '
        f'width="{max(1.0, to_x - from_x):.1f}" fill="{COLOURS[kind]}"><title>{escape(title)}</title></rect>'
    )


def _fault(number: int, fault: Fault, x: Scale) -> str:
    text = f"{fault.kind} {fault.on or 'all'} {fault.share:.0%}"
    bar = _bar(x(SETTLE_S + fault.from_s), x(SETTLE_S + fault.to_s), number, "API", text)
    return f'<text x="0" y="{number * ROW + 12}" class="quiet">{escape(text)}</text>{bar}'


def _marks(marks: Iterable[Mark], place: Mapping[str, int], x: Scale) -> Iterator[str]:
    for mark in marks:
        if mark.node in place:
            yield (
                f'<circle cx="{x(mark.at_s):.1f}" cy="{place[mark.node] * ROW + 9}" r="2">'
                f"<title>{escape(mark.what)}, {mark.at_s:.0f} s</title></circle>"
            )


def _events(events: Iterable[Event], place: Mapping[str, int], x: Scale, last: int) -> Iterator[str]:
    for event in events:
        at, row = x(SETTLE_S + event.at_s), place.get(event.node, last)
        what = f"{event.kind} {event.detail or event.node} at {event.at_s:.0f} s"
        yield (
            f'<rect x="{at:.1f}" y="{row * ROW}" width="2" height="{ROW}" fill="#000">'
            f"<title>{escape(what)}</title></rect>"
        )


def _proof(verdict: Verdict, lines: Sequence[bytes]) -> str:
    found = "".join(_record(finding, lines) for finding in verdict.findings[:3])
    more = f"<p>{verdict.broken - 3} more.</p>" if verdict.broken > 3 else ""
    return (
        f"<h2 class=broken>{verdict.rule}: {escape(verdict.sentence)}</h2>"
        f"<p>Broken by {verdict.broken} of {verdict.judged} requests.</p>{found}{more}"
    )


def _record(finding: Finding, lines: Sequence[bytes]) -> str:
    text = ""
    if 0 < finding.line <= len(lines):
        text = json.dumps(json.loads(lines[finding.line - 1]), indent=1)[:RECORD_CHARS_MAX]
    at = f"{finding.at:%H:%M:%S}"
    return (
        f"<p>{at} <code>{escape(finding.request)}</code>: {escape(finding.text)}</p>"
        f"<details><summary>record {escape(finding.audit_id)}</summary><pre>{escape(text)}</pre></details>"
    )


def _rules(verdicts: Iterable[Verdict]) -> str:
    rows = "".join(
        f"<tr><td>{each.rule}<td class={each.answer.split()[0]}>{each.answer}<td>{each.judged}"
        f"<td>{escape(each.sentence)} <span class=quiet>{escape(each.why)}</span>"
        for each in verdicts
    )
    return f"<table><tr><th>Rule<th>Answer<th>Judged<th>In one sentence{rows}</table>"
