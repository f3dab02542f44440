"""Out of a seed, a history: which faults strike when, and what happens in the cluster meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from remediator.chaos.incidents import REBOOTS
from remediator.chaos.schedule import BOTH, Event, EventKind, Fault, FaultKind, Schedule
from remediator.fleet.layout import rack_name

STORM_S: Final = 900.0
COMMON: Final = ("", "", "nodes", "pods", "eviction", "jobs", "leases")
FAULT_KINDS: Final[tuple[FaultKind, ...]] = (
    "Conflict", "TooMany", "ErrorBefore", "ErrorAfter", "LostReply", "Unanswered", "WatchEnds", "WatchBreaks",
    "WatchHangs", "HistoryGone", "CacheHangs", "Slow",
)  # fmt: skip
TIMED: Final[Mapping[FaultKind, tuple[float, ...]]] = {
    "TooMany": (0.0, 1.0, 2.0, 5.0),
    "Slow": (0.0, 1.0, 2.0, 5.0),
    "WatchLate": (0.5, 2.0, 5.0),
}
VALUES: Final[Mapping[EventKind, tuple[float, ...]]] = {
    "Xid": (79, 48, 64, 119, 13, 31),
    "Silent": (0.0, 20.0, 70.0, 300.0),
    "PodsStay": (0.0, 60.0, 900.0),
    "PagesLie": (0.2, 0.4, 1.0),
    "PartDown": (10.0, 60.0, 300.0),
    "HaltLeader": (20.0, 40.0),
    "ClockJump": (-3600.0, 3600.0),
}
TROUBLES: Final = ("down", "html", "empty", "malformed", "truncate", "endless", "binary", "stale")
PARTS: Final = ("scheduler", "lifecycle", "kubelets", "controllers")


@dataclass(frozen=True, slots=True)
class Words:
    """What a history for one controller is drawn from; what is named twice is drawn twice as often.

    ``breaks`` break machines: one of them comes first. ``others`` happen around them. ``conditions`` are
    TYPE=STATUS, set by a problem detector. ``resources`` are the controller's own kinds, at whose requests
    faults strike beside those of everybody; ``strikes`` are kinds of these faults. ``events`` and
    ``faults`` of the API are how many at least and at most; ``calm_s`` is the longest that it may take
    until nothing is under way any more.
    """

    breaks: tuple[EventKind, ...]
    others: tuple[EventKind, ...]
    conditions: tuple[str, ...]
    resources: tuple[str, ...]
    strikes: tuple[FaultKind, ...] = FAULT_KINDS
    events: tuple[int, int] = (3, 8)
    faults: tuple[int, int] = (2, 6)
    calm_s: float = 21_600.0


AROUND: Final[tuple[EventKind, ...]] = (
    "Cordon", "Uncordon", "Untaint", "DeleteNode", "RecreateNode", "PeerMark", "OptOut", "KillLeader",
    "KillLeader", "StopLeader", "HaltLeader", "ClockJump", "Clear", "PartDown", "RebootGoes", "RebootGoes",
    "PodsStay",
)  # fmt: skip


def draw(seed: int, words: Words, **more: Any) -> Schedule:
    """The history of one seed; ``more`` is set as it is.

    What breaks comes in bursts, for limits are tried by what is broken at once. People, autoscalers and
    crashes mostly come shortly after, where something is the matter.
    """
    racks, per_rack = int(more.setdefault("racks", 3)), int(more.setdefault("per_rack", 8))
    rng = Random(f"schedule {seed}")
    nodes = [f"gpu-{rack_name(rack)}-{slot + 1:02}" for rack in range(racks) for slot in range(per_rack)]
    kinds = [rng.choice((*words.breaks, *words.others)) for _ in range(rng.randint(*words.events) - 1)]
    bursts = [rng.uniform(0, STORM_S * 0.8) for _ in range(rng.randint(1, 3))]
    events = [
        _event(rng, kind, rng.choice(nodes), _scattered(rng, bursts), words)
        for kind in (rng.choice(words.breaks), *(each for each in kinds if each in words.breaks))
    ]
    for kind in kinds:
        if kind not in words.breaks:
            node, at_s = _after(rng, events, nodes)
            events.append(_event(rng, kind, node, at_s, words))
    events.sort(key=lambda each: each.at_s)
    faults = tuple(_fault(rng, events, words) for _ in range(rng.randint(*words.faults)))
    times = {"calm_s": words.calm_s, **more}
    return Schedule(seed=seed, **times, faults=faults, events=tuple(events))


def _scattered(rng: Random, bursts: Sequence[float]) -> float:
    return rng.choice(bursts) + rng.uniform(0, 60) if rng.random() < 0.7 else rng.uniform(0, STORM_S)


def _after(rng: Random, events: Sequence[Event], nodes: Sequence[str]) -> tuple[str, float]:
    """Node and time of something that mostly follows something else."""
    if rng.random() < 0.3:
        return rng.choice(nodes), rng.uniform(0, STORM_S)
    before = rng.choice(events)
    return before.node, max(0.0, before.at_s + rng.uniform(-20.0, rng.choice((10.0, 120.0))))


def _fault(rng: Random, events: Sequence[Event], words: Words) -> Fault:
    """Three of four strike shortly after something has happened: before, there is little to strike."""
    kind = rng.choice(words.strikes)
    from_s = round(rng.uniform(0, STORM_S * 0.8), 1)
    if rng.random() < 0.75:
        from_s = round(rng.choice(events).at_s + rng.uniform(0, 60), 1)
    lasts_s = rng.choice((2.0, 10.0, 40.0, 120.0, 400.0))
    return Fault(
        kind=kind,
        from_s=from_s,
        to_s=round(from_s + lasts_s, 1),
        share=rng.choice((0.05, 0.2, 0.5, 0.8, 1.0)),
        # Only a kind of somebody's own comes and goes.
        on=rng.choice(words.resources if kind in BOTH else (*COMMON, *words.resources)),
        seconds=rng.choice(TIMED[kind]) if kind in TIMED else 0.0,
    )


def _event(rng: Random, kind: EventKind, node: str, at_s: float, words: Words) -> Event:
    value, detail = 0.0, ""
    if kind in VALUES:
        value = rng.choice(VALUES[kind])
    match kind:
        case "Condition":
            detail = rng.choice(words.conditions)
        case "PageTrouble":
            detail = rng.choice(TROUBLES)
        case "PartDown":
            detail = rng.choice(PARTS)
        case "HaltLeader":
            detail = rng.choice(("", *words.resources))
        case "RebootGoes":
            detail, at_s = rng.choice(tuple(REBOOTS)), at_s / 4
    return Event(at_s=round(at_s, 1), kind=kind, node=node, value=value, detail=detail)
