"""How many drawn histories it takes until a bug that is planted in the reference controller is found."""

from __future__ import annotations

from typing import Final

from bench.context import Context
from bench.results import Count, Finding, at_most
from remediator.chaos import corpus
from remediator.chaos.campaign import hush

RUNS_MAX: Final = 20
TRIALS_PER_RUN: Final = 10
HISTORIES_MAX: Final = 100
WORKERS: Final = 2


def measure(context: Context) -> Finding:
    """Look for each bug again and again, each time in histories that no other run has seen."""
    hush()
    runs = max(1, min(RUNS_MAX, context.trials // TRIALS_PER_RUN))
    medians, late = [], 0
    for found in corpus.hunt(corpus.named(()), runs=runs, most=HISTORIES_MAX, workers=WORKERS):
        context.tell(corpus.told(found))
        if found.median is None:
            late += 1
        else:
            rules = ", ".join(found.rules)
            medians.append(Count(name=f"{found.bug}, found by {rules}", value=found.median))
    return Finding(
        checks=(at_most("bugs that half of the runs have not found", late, 0),),
        counts=tuple(medians),
        conditions={
            "bugs": len(medians) + late,
            "runsPerBug": runs,
            "historiesPerRunMax": HISTORIES_MAX,
            "history": "24 GPU nodes full of work, 8 to 20 events, 3 to 9 faults of the API, two replicas",
        },
        notes=(
            "Simulated. The median of the runs; one ends with the first history that breaks any rule, and "
            "without a bug none does. All end when more than half have found the bug.",
        ),
    )
