"""What people say: a hold that can't be read still holds, and a pause ends when it says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from remediator.core.people import held, paused, read_hold, write_hold
from remediator.model.meta import Pause
from tests.unit.core.builders import T0, a_node, at, text


@pytest.mark.parametrize(
    ("note", "holds"),
    [
        ("", False),
        (f"until={text(60)};by=ann;reason=x", True),
        (f"until={text(0)};by=ann", False),
        (f"until={text(-1)}", False),
        ("by=ann", True),
        ("yes", True),
        ("until=tomorrow", True),
        ("until=2020-01-01T00:00:00", True),
    ],
    ids=["none", "future", "now", "past", "no end", "words", "unreadable", "no zone"],
)
def test_hold_ends_only_at_a_time_that_can_be_read(note, holds):
    """Who writes "do not touch" carelessly still means it."""
    node = a_node(annotations={"remediator.dev/hold": note} if note else {})

    assert (held(node, T0) is not None) is holds


@pytest.mark.parametrize(("value", "holds"), [("false", False), ("true", True), ("", True), ("nope", True)])
def test_opt_out_of_any_value_but_false_opts_out(value, holds):
    """An unknown value is a no."""
    assert (held(a_node(labels={"remediator.dev/opt-out": value}), T0) is not None) is holds


def test_hold_says_who_until_and_why():
    """At three in the morning the next one wants to know whom to call."""
    node = a_node(annotations={"remediator.dev/hold": write_hold(text(60), "ann", "board swap")})

    assert held(node, T0) == "hold by ann until 2026-11-22T00:01:00+00:00: board swap"


@given(st.text(max_size=40), st.text(max_size=40))
def test_hold_survives_writing_and_reading_whatever_people_type(by, reason):
    """Free text must not end the hold early or forge another field."""
    found = read_hold(write_hold(text(60), by, reason))

    assert found.until == at(60)
    assert (found.by, found.reason) == (by.replace(";", ","), reason.replace(";", ","))


@given(st.text(max_size=80))
def test_hold_reads_any_text(note):
    """An annotation is anybody's: reading it must never fail."""
    read_hold(note)


@pytest.mark.parametrize(
    ("pause", "stands"),
    [
        (UNSET, False),
        (Pause(), True),
        (Pause(until=text(1)), True),
        (Pause(until=text(0)), False),
        (Pause(until="later"), True),
    ],
)
def test_pause_stands_until_its_time(pause, stands):
    """A pause without an end that can be read has none."""
    assert (paused(pause, "policy", T0) is not None) is stands


def test_pause_names_what_who_and_why():
    """The reason stands in conditions and in why."""
    assert paused(Pause(by="ann", reason="upgrade"), "pool x", T0) == "pool x paused by ann: upgrade"
