"""The only dice that nobody can foresee."""

from __future__ import annotations

from remediator.adapters.dice import SEED_MAX, draw_mark, draw_seed


def test_seeds_are_drawn_and_never_zero():
    """Zero on the command line means that none was chosen: a drawn one must be good to pass on."""
    seeds = {draw_seed() for _ in range(100)}

    assert len(seeds) == 100
    assert all(1 <= seed <= SEED_MAX for seed in seeds)


def test_marks_differ_between_processes():
    """Two candidates of one name would both take the Lease for their own."""
    marks = {draw_mark() for _ in range(100)}

    assert len(marks) == 100
    assert all(len(mark) == 8 for mark in marks)
