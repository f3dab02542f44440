"""docs/chaos.md says what the rules are, and its profile is one."""

from __future__ import annotations

import re
from pathlib import Path

from remediator.chaos.profile import parse_profile
from remediator.chaos.rules import RULES

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "chaos.md").read_text("utf-8")


def test_table_is_that_of_the_rules():
    rows = re.findall(r"^\| (S\d+) \| (.+?) \|(.*)\|$", PAGE, re.M)

    assert [(number, sentence) for number, sentence, _ in rows] == [
        (rule.id, rule.sentence) for rule in RULES
    ]
    assert [tuple(re.findall(r"`(\w+)`", needs)) for *_, needs in rows] == [rule.needs for rule in RULES]


def test_profile_of_the_page_can_be_read():
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
    profile = parse_profile(text.encode(), "the page's")

    assert profile.owns("mine.example.com/anything")
    assert profile.owns("example.com/pool")
    assert not profile.owns("example.com/pool-2")
    assert profile.term is not None
    assert profile.limits.writes_per_object_per_minute == 30
