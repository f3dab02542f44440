"""How fast histories of remediator are played on the simulated cluster, audit and verdict included."""

from __future__ import annotations

import time
from typing import Final

from bench.context import Context
from bench.results import Finding, a_series, at_least
from remediator.chaos import campaign
from remediator.chaos.history import play

TRIALS_PER_HISTORY: Final = 5
PER_CORE_MIN: Final = 2_500.0
FIRST: Final = 1_001


def measure(context: Context) -> Finding:
    """Play drawn histories one after the other; the time is the process' own."""
    campaign.hush()
    count = max(5, context.trials // TRIALS_PER_HISTORY)
    took_ms, rates, broken = [], [], 0
    for number, schedule in enumerate(campaign.drawn(range(FIRST, FIRST + count)), 1):
        began = time.process_time()
        outcome = play(schedule)
        took_s = time.process_time() - began
        broken += bool(outcome.broken)
        took_ms.append(took_s * 1_000.0)
        rates.append(outcome.report.records / took_s)
        context.tell(f"{number} of {count} histories")
    return Finding(
        series=(
            a_series("CPU of one history", "ms", took_ms),
            a_series("audit records written and judged", "1/s", rates),
        ),
        checks=(at_least("histories per hour and core", 3_600_000.0 * count / sum(took_ms), PER_CORE_MIN),),
        conditions={
            "histories": count,
            "broken": broken,
            "seeds": f"{FIRST} to {FIRST + count - 1}",
            "nodes": 24,
            "replicas": 2,
        },
        notes=("Simulated. A history lasts until nothing is under way any more: two hours and more.",),
    )
