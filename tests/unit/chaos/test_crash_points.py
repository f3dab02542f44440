"""The controller is killed at its writes, and the end is that of the history without a crash.

A few points of each kind here; `make chaos` plays all of all playbooks.
"""

from __future__ import annotations

from functools import cache

import pytest
from msgspec.structs import replace

from remediator.chaos.crash_points import (
    STARTS,
    Crash,
    Fate,
    crashes,
    difference,
    play_crash,
    reference,
)
from remediator.chaos.history import Outcome

HARD = "gpu-off-bus"


@cache
def expected(playbook: str) -> tuple[Outcome, tuple[str, ...]]:
    """Once for all tests of a playbook."""
    return reference(playbook)


def number_of(write: str) -> int:
    """The first write that ends so."""
    _, writes = expected(HARD)
    return next(number for number, each in enumerate(writes) if each.endswith(write))


@pytest.mark.timeout(60)
def test_reference_of_each_shipped_playbook_ends_well() -> None:
    outcome, writes = expected(HARD)

    assert outcome.broken == ()
    assert outcome.reboots == 1
    assert "work gpu-a-01: gpu.bus: Returned gpu-a-05" in outcome.ending
    assert len(writes) > 20


@pytest.mark.timeout(60)
@pytest.mark.parametrize("fate", list(Fate))
@pytest.mark.parametrize(
    "write", ["/nodes/gpu-a-01", "/nodes/gpu-a-05", "/eviction", "/jobs", "/remediations"]
)
def test_crash_at_an_effect_changes_nothing_of_the_end(write: str, fate: Fate) -> None:
    reference_, _ = expected(HARD)

    assert difference(reference_, play_crash(HARD, Crash(number_of(write), fate))) == ()


def test_every_point_of_a_history_is_named_once() -> None:
    points = list(crashes(10))

    assert len(points) == len(set(points)) == 30
    assert len(list(crashes(1_000))) == 600


def test_other_end_is_told_line_by_line() -> None:
    outcome, _ = expected(HARD)
    other = replace(outcome, ending=(*outcome.ending[1:], "work gpu-b-01: gpu.bus: Draining"), reboots=2)

    assert difference(outcome, other) == (
        f"- {outcome.ending[0]}",
        "+ work gpu-b-01: gpu.bus: Draining",
        "2 reboots, 1 without a crash",
    )


def test_every_playbook_that_acts_has_a_start() -> None:
    """One that is shipped and is not here would never be killed."""
    from remediator.app.simulation import shipped_objects

    books = [item for item in shipped_objects() if item["kind"] == "Playbook"]
    acting = {
        item["metadata"]["name"]
        for item in books
        if any("quarantine" in step for step in item["spec"]["steps"])
    }

    assert acting == set(STARTS)
