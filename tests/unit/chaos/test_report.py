"""The page about one history: what it shows is what happened, and it needs nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from remediator.chaos import campaign
from remediator.chaos.profile import load_profile
from remediator.chaos.reporting import report_on
from remediator.chaos.timeline import Span, Timeline
from remediator.cli.exits import CHECK_FAILED
from tests.unit.chaos.machine_cases import shows
from tests.unit.chaos.trace import FENCE, NODE, POOL, Trace

CORPUS = Path(__file__).parent / "corpus"
VOID = {"meta", "br", "hr"}
OPTIONAL_END = {"p", "td", "th", "tr", "html", "li"}


class Reader(HTMLParser):
    """Complains of elements that end elsewhere than they begin, and gathers what a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [str(value) for name, value in attrs if name in ("src", "href")]
        if tag not in VOID | OPTIONAL_END:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in OPTIONAL_END:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.timeout(60)
def test_page_names_the_rule_its_proof_and_the_way_to_play_it_again() -> None:
    schedule = campaign.load(CORPUS / "status-first.json")
    outcome, text = report_on(schedule, again="remediator chaos replay it.json")
    reader = Reader()
    reader.feed(text)

    assert outcome.broken
    assert (reader.open, reader.loads) == ([], []), "whole, and nothing from elsewhere"
    for rule in outcome.broken:
        assert f"{rule}: " in reader.text
    finding = next(each.findings[0] for each in outcome.report.verdicts if each.answer == "broken")
    assert finding.audit_id in reader.text
    assert f'"auditID": "{finding.audit_id}"' in reader.text, "the record itself"
    assert "remediator chaos replay it.json" in reader.text
    assert all(fault.kind in reader.text for fault in schedule.faults)
    assert all(event.node in reader.text for event in schedule.events)
    assert 'fill="#e8a33d"' in text, "a node was fenced"


@pytest.mark.timeout(60)
def test_command_writes_the_page_and_says_what_came_of_it(tmp_path: Path) -> None:
    target = tmp_path / "page.html"
    schedule = CORPUS / "evicts-by-name.json"
    command = [sys.executable, "-m", "remediator", "chaos", "report", str(schedule), "--to", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stdout) == (CHECK_FAILED, f"{target}: S4\n")
    assert re.search(r"S4: Every deletion", target.read_text("utf-8"))


def test_timeline_has_a_span_for_each_state_and_a_mark_for_each_deed() -> None:
    timeline = Timeline(load_profile("reference"))
    trace = Trace()
    shows(trace, "True", POOL)
    trace.write("delete", "nodes", NODE, user="autoscaler")
    shows(trace, "False", POOL)
    for numbered in trace.records():
        timeline.see(numbered.record)

    assert list(timeline.spans()) == [Span(NODE, "faulty", 0.0, 1.0), Span(NODE, "gone", 1.0, 2.0)]
    assert timeline.ends_s == 2.0


def test_timeline_marks_what_the_controller_did() -> None:
    timeline = Timeline(load_profile("remediator"))
    trace = Trace()
    trace.node(POOL)
    trace.pod()
    trace.patch(POOL, FENCE)
    trace.evict()
    trace.patch(POOL, FENCE, code=409)
    for numbered in trace.records():
        timeline.see(numbered.record)

    assert [(mark.node, mark.what) for mark in timeline.marks] == [
        (NODE, "writes the Node"),
        (NODE, "evicts work/trainer-0"),
    ]
    assert [span.kind for span in timeline.spans()] == ["fenced"]
