"""How much later a fault is answered when the watch of Nodes is in trouble just then, on the simulator."""

from __future__ import annotations

from typing import Final

from bench.context import Context
from bench.results import Finding, a_series, at_most
from remediator.chaos.campaign import hush
from remediator.chaos.history import play
from remediator.chaos.schedule import Event, Fault, FaultKind, Schedule
from remediator.errors import PermanentError

TRIALS_PER_RUN: Final = 40
RUNS_MAX: Final = 10
FROM_S, BREAKS_S, TO_S = 5.0, 10.0, 15.0
NODE: Final = "gpu-a-01"
LATER_MS_MAX: Final = 75_000.0
#: What is the matter, in the words of a figure. A cache that hangs sends bookmarks on, and is believed.
TROUBLES: Final[dict[FaultKind, str]] = {
    "WatchEnds": "closed",
    "WatchBreaks": "reset",
    "WatchHangs": "half open",
    "WatchLate": "two seconds late",
}


def measure(context: Context) -> Finding:
    """One condition in each history, set while nothing comes the usual way."""
    hush()
    runs = max(1, min(RUNS_MAX, context.trials // TRIALS_PER_RUN))
    seeds = range(context.seed, context.seed + runs)
    well = {seed: _fenced_s(seed, None) for seed in seeds}
    series = []
    for kind, text in TROUBLES.items():
        context.tell(text)
        later = [(_fenced_s(seed, kind) - well[seed]) * 1_000 for seed in seeds]
        series.append(a_series(f"watch of Nodes {text}", "ms", later))
    longest = max(each.summary.max for each in series)
    return Finding(
        series=tuple(series),
        checks=(at_most("longest that a fence comes later, ms", longest, LATER_MS_MAX),),
        conditions={"nodes": 24, "replicas": 2, "runs": runs, "troubleSeconds": TO_S - FROM_S},
        notes=(
            "Simulated, in virtual time: how much later than with a good watch a node is fenced, whose "
            "condition is written in the middle of the trouble.",
            "A server that sends bookmarks and keeps events back is believed until it ends that.",
        ),
    )


def _fenced_s(seed: int, kind: FaultKind | None) -> float:
    """When the node is fenced, with this trouble or without any."""
    late_s = 2.0 if kind == "WatchLate" else 0.0
    faults = (Fault(kind=kind, from_s=FROM_S, to_s=TO_S, on="nodes", seconds=late_s),) if kind else ()
    event = Event(at_s=BREAKS_S, kind="Condition", node=NODE, detail="KernelDeadlock=True")
    outcome = play(Schedule(seed=seed, faults=faults, events=(event,)))
    if outcome.idle_faults or NODE not in outcome.fenced_s:
        raise PermanentError(f"{kind} with seed {seed}: it never struck, or nothing was fenced")
    return outcome.fenced_s[NODE]
