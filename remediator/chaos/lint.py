"""Says what of a schedule can't happen, before it is played: each with its field and the fix. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from remediator.adapters.exporters.scan import XID_MAX
from remediator.chaos.draw import PARTS, TROUBLES
from remediator.chaos.history import fleet_of
from remediator.chaos.incidents import REBOOTS
from remediator.chaos.schedule import LEADERS, Event, Schedule

# Events that are about no single node.
_OF_THE_CLUSTER: Final = frozenset((*LEADERS, "PagesLie", "PartDown"))

Found = tuple[tuple[str | int, ...], str, str]  # the field's path, what is wrong with it, the fix


def problems(schedule: Schedule) -> list[Found]:
    """Everything in it that can't be played, in its order."""
    nodes = [spec.name for spec in fleet_of(schedule) if spec.gpus]
    found = [
        (("events", number, *field), wrong, fix)
        for number, event in enumerate(schedule.events)
        for field, wrong, fix in of_event(event, nodes)
    ]
    for number, fault in enumerate(schedule.faults):
        if fault.kind == "WatchLate" and fault.seconds <= 0:
            found.append((("faults", number, "seconds"), "0 seconds are not late", "write how late"))
        if fault.kind == "NotServed" and not fault.on:
            found.append((("faults", number, "on"), "no kind is named", "write its plural, such as repairs"))
        if fault.to_s <= fault.from_s:
            wrong = f"{fault.to_s:g} is not after fromS, {fault.from_s:g}"
            found.append((("faults", number, "toS"), wrong, "write a later second"))
    return found


def of_event(event: Event, nodes: Collection[str]) -> Iterator[Found]:
    """What of one event can't happen on a fleet of these GPU nodes."""
    if event.kind not in _OF_THE_CLUSTER and event.node not in nodes:
        some = ", ".join(list(nodes)[:2])
        yield (
            ("node",),
            f"{event.node!r} is no GPU node of this fleet",
            f"there are {len(nodes)}, such as {some}",
        )
    choices = {"PageTrouble": TROUBLES, "PartDown": PARTS, "RebootGoes": tuple(REBOOTS)}.get(event.kind)
    if choices is not None and event.detail not in choices:
        yield ("detail",), f"{event.detail!r} is none of {event.kind}", f"write one of {', '.join(choices)}"
    match event.kind:
        case "Xid" if not (event.value % 1 == 0 and 0 <= event.value <= XID_MAX):
            yield ("value",), f"{event.value:g} is no XID", f"write a whole number from 0 to {XID_MAX}"
        case "PagesLie" if not 0 < event.value <= 1:
            yield ("value",), f"{event.value:g} is no share", "write one above 0, up to 1"
        case "Condition" if not all(event.detail.partition("=")):
            yield ("detail",), f"{event.detail!r} is no condition", "write TYPE=STATUS, KernelDeadlock=True"
        case "Silent" | "PodsStay" | "PartDown" | "HaltLeader" if event.value < 0:
            yield ("value",), f"{event.value:g} seconds are none", "write how long it lasts"
