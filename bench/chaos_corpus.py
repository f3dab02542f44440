"""How many drawn histories it takes until a bug that is planted in the reference controller is found."""

from __future__ import annotations

from typing import Final

from bench.context import Context
from bench.results import Count, Finding, a_series, at_most
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
    series, missed = [], []
    for found in corpus.hunt(corpus.named(()), runs=runs, most=HISTORIES_MAX, workers=WORKERS):
        context.tell(corpus.told(found))
        missed.append(Count(name=f"{found.bug}: runs without a find", value=found.missed))
        if found.histories:
            series.append(a_series(found.bug, "histories", found.histories))
    never = sum(each.value == runs for each in missed)
    return Finding(
        series=tuple(series),
        checks=(at_most("bugs that no run has found", never, 0),),
        counts=tuple(each for each in missed if each.value),
        conditions={
            "bugs": len(missed),
            "runsPerBug": runs,
            "historiesPerRunMax": HISTORIES_MAX,
            "history": "24 GPU nodes full of work, 8 to 20 events, 3 to 9 faults of the API, two replicas",
        },
        notes=(
            "Simulated. A run ends with the first history that breaks any rule; without a bug none does.",
        ),
    )
