"""The controller is killed at its writes, and the end is that of the history without a crash.

A few points of each kind here; `make chaos` plays all of all playbooks.
"""

from __future__ import annotations

from functools import cache

import pytest
from msgspec.structs import replace

from remediator.chaos.crash_points import (
    STARTS,
    Case,
    Crash,
    crashes,
    difference,
    pairs,
    play_case,
    reference,
)
from remediator.chaos.fates import CRASHES, Fate
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
@pytest.mark.parametrize("fate", CRASHES)
@pytest.mark.parametrize(
    "write", ["/nodes/gpu-a-01", "/nodes/gpu-a-05", "/eviction", "/jobs", "/remediations"]
)
def test_crash_at_an_effect_changes_nothing_of_the_end(write: str, fate: Fate) -> None:
    reference_, _ = expected(HARD)
    played = play_case(Case(HARD, (Crash(number_of(write), fate),)))

    assert (difference(reference_, played.outcome), played.struck) == ((), 1)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", range(6))
def test_second_crash_changes_nothing_either(number: int) -> None:
    """The recovery is killed as well; other pairs by `make chaos`."""
    reference_, writes = expected(HARD)
    played = play_case(Case(HARD, pairs(len(writes), 6, seed=1)[number]))

    assert difference(reference_, played.outcome) == ()
    assert played.struck >= 1


def test_pairs_are_all_or_so_many_of_them() -> None:
    """The second point lies at a later write, also at one that only a recovery makes."""
    every = pairs(3, 1_000, seed=1)

    assert len(every) == len(set(every)) == 3 * 3 * (12 + 11 + 10)
    assert all(first.write < second.write for first, second in every)
    some = pairs(3, 20, seed=1)
    assert len(some) == 20
    assert set(some) < set(every)
    assert pairs(3, 20, seed=1) == some != pairs(3, 20, seed=2)


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
