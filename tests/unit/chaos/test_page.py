"""docs/chaos.md says what the rules are, and its profile is one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from remediator.adapters.files.single import parse_single
from remediator.chaos.profile import parse_profile
from remediator.chaos.reference.bugs import Bug
from remediator.chaos.rules import ENDINGS, RULES
from remediator.chaos.scenario import Scenario, named
from remediator.chaos.schedule import EventKind, FaultKind

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "chaos.md").read_text("utf-8")


def test_table_is_that_of_the_rules():
    rows = re.findall(r"^\| ([SL]\d+b?) \| (.+?) \|(.*)\|$", PAGE, re.M)
    rules = (*RULES, *ENDINGS)

    assert [(number, sentence) for number, sentence, _ in rows] == [
        (rule.id, rule.sentence) for rule in rules
    ]
    assert [tuple(re.findall(r"`(\w+)`", needs)) for *_, needs in rows] == [rule.needs for rule in rules]


def test_table_is_that_of_the_bugs():
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| (.+?) \| (.+?) \|$", PAGE, re.M)

    assert rows == [(bug.slug, bug.text, ", ".join(bug.rules)) for bug in Bug]


def test_tables_are_those_of_the_schedule():
    """Every fault and event has a row, and none is promised that can't be played."""
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| .+ \|$", PAGE, re.M)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)} - {
        "HELD", "BROKEN", "UNKNOWN",
    }  # fmt: skip

    assert named == {*get_args(FaultKind), *get_args(EventKind)}


def test_scenario_of_the_page_is_the_shipped_one():
    (text,) = re.findall(r"```yaml\n(# yaml-language-server.*?)```", PAGE, re.S)
    scenario, _ = parse_single(text, "the page's", Scenario)

    assert scenario == named("fault-that-ends")


def test_profile_of_the_page_can_be_read():
    (text,) = re.findall(r"```yaml\n(name: mine.*?)```", PAGE, re.S)
    profile = parse_profile(text, "the page's")

    assert profile.owns("mine.example.com/anything")
    assert profile.owns("example.com/pool")
    assert not profile.owns("example.com/pool-2")
    assert profile.term is not None
    assert profile.limits.writes_per_object_per_minute == 30
