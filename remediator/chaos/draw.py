"""Out of a seed, a history: which faults strike when, and what happens in the cluster meanwhile."""

from __future__ import annotations

from random import Random
from typing import Final

from remediator.chaos.schedule import Event, EventKind, Fault, FaultKind, Schedule

STORM_S: Final = 900.0
RESOURCES: Final = ("", "nodes", "pods", "eviction", "jobs", "leases", "remediations", "remediationpolicies")
FAULT_KINDS: Final[tuple[FaultKind, ...]] = (
    "Conflict", "TooMany", "ErrorBefore", "ErrorAfter", "LostReply", "Unanswered", "WatchEnds", "WatchBreaks",
    "WatchHangs", "HistoryGone", "CacheHangs", "Slow",
)  # fmt: skip
# What breaks machines, and what breaks around them: one each is drawn first, the rest from all.
MACHINE_KINDS: Final[tuple[EventKind, ...]] = ("Xid", "Xid", "RemapPending", "Condition", "Silent")
OTHER_KINDS: Final[tuple[EventKind, ...]] = (
    "PagesLie", "PageTrouble", "Heal", "Uncordon", "Untaint", "Cordon", "DeleteNode", "RecreateNode",
    "KillLeader", "KillLeader", "StopLeader", "PartDown", "RebootGoes", "RebootGoes",
)  # fmt: skip
XIDS: Final = (79, 48, 64, 119, 13, 31)
CONDITIONS: Final = ("KernelDeadlock=True", "ReadonlyFilesystem=True", "FrequentKubeletRestart=True")
TROUBLES: Final = ("down", "html", "empty", "malformed", "truncate", "endless", "binary", "stale")
PARTS: Final = ("scheduler", "lifecycle", "kubelets", "controllers")
REBOOTS: Final = (
    "never",
    "twice",
    "late",
    "sick",
    "silent",
    "persists",
    "same boot",
    "job fails",
    "job hangs",
)


def draw(seed: int, *, racks: int = 3, per_rack: int = 8) -> Schedule:
    """The history of one seed: two to six faults of the API, and three to eight events."""
    rng = Random(f"schedule {seed}")
    nodes = [
        f"gpu-{'abcdefghijklmnopqrstuvwxyz'[rack]}-{slot + 1:02}"
        for rack in range(racks)
        for slot in range(per_rack)
    ]
    faults = tuple(_fault(rng) for _ in range(rng.randint(2, 6)))
    kinds = [
        rng.choice(MACHINE_KINDS),
        *(rng.choice((*MACHINE_KINDS, *OTHER_KINDS)) for _ in range(rng.randint(2, 7))),
    ]
    # People and autoscalers mostly touch the nodes that something is the matter with.
    focus = rng.sample(nodes, 3)
    events = sorted((_event(rng, kind, nodes, focus) for kind in kinds), key=lambda each: each.at_s)
    return Schedule(seed=seed, racks=racks, per_rack=per_rack, faults=faults, events=tuple(events))


def _fault(rng: Random) -> Fault:
    kind = rng.choice(FAULT_KINDS)
    from_s = round(rng.uniform(0, STORM_S * 0.8), 1)
    lasts_s = rng.choice((2.0, 10.0, 40.0, 120.0, 400.0))
    return Fault(
        kind=kind,
        from_s=from_s,
        to_s=round(from_s + lasts_s, 1),
        share=rng.choice((0.05, 0.2, 0.5, 0.8, 1.0)),
        on=rng.choice(RESOURCES),
        seconds=rng.choice((0.0, 1.0, 2.0, 5.0)) if kind in ("TooMany", "Slow") else 0.0,
    )


def _event(rng: Random, kind: EventKind, nodes: list[str], focus: list[str]) -> Event:
    node = rng.choice(focus) if rng.random() < 0.7 else rng.choice(nodes)
    at_s = round(rng.uniform(0, STORM_S), 1)
    value, detail = 0.0, ""
    match kind:
        case "Xid":
            value = float(rng.choice(XIDS))
        case "Condition":
            detail = rng.choice(CONDITIONS)
        case "Silent":
            value = rng.choice((0.0, 20.0, 70.0, 300.0))
        case "PagesLie":
            value = rng.choice((0.2, 0.4, 1.0))
        case "PageTrouble":
            detail = rng.choice(TROUBLES)
        case "PartDown":
            value, detail = rng.choice((10.0, 60.0, 300.0)), rng.choice(PARTS)
        case "RebootGoes":
            detail, at_s = rng.choice(REBOOTS), round(at_s / 4, 1)
    return Event(at_s=at_s, kind=kind, node=node, value=value, detail=detail)
