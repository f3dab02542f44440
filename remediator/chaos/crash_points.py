"""Kills the controller at each of its writes: before it, after it, and with the reply lost.

Whatever the point, the end must be the one of the history without a crash, and no machine may have been
rebooted twice. Source: Sieve, "intermediate states"; rule S33.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random
from typing import Final

from msgspec import Struct

from remediator.chaos.fates import CRASHES, Fate, Writes
from remediator.chaos.history import Outcome, play
from remediator.chaos.schedule import Event, Schedule

NODE: Final = "gpu-a-01"
POINTS_MAX: Final = 200  # a history that writes more is no history of one fault
MORE_WRITES: Final = 10
CALM_S: Final = 14_400.0
# What starts each shipped playbook; the others only report.
STARTS: Final[Mapping[str, Event]] = {
    "gpu-off-bus": Event(at_s=5, kind="Xid", node=NODE, value=79),
    "gpu-gsp": Event(at_s=5, kind="Xid", node=NODE, value=119),
    "gpu-double-bit-ecc": Event(at_s=5, kind="Xid", node=NODE, value=48),
    "gpu-row-remap": Event(at_s=5, kind="RemapPending", node=NODE),
    "gpu-row-remap-failed": Event(at_s=5, kind="Xid", node=NODE, value=64),
    "kernel-deadlock": Event(at_s=5, kind="Condition", node=NODE, detail="KernelDeadlock=True"),
    "node-condition-reboot": Event(at_s=5, kind="Condition", node=NODE, detail="XfsShutdown=True"),
    "node-condition-handoff": Event(at_s=5, kind="Condition", node=NODE, detail="ReadonlyFilesystem=True"),
    "node-unreachable": Event(at_s=5, kind="Silent", node=NODE),
}


class Crash(Struct, frozen=True):
    """The write, counted from 0 over the whole history, and what becomes of it."""

    write: int
    fate: Fate


class Case(Struct, frozen=True):
    """One history to be played: its playbook, and one crash, or two of which the second comes later."""

    playbook: str
    crashes: tuple[Crash, ...]


class Played(Struct, frozen=True):
    """What came of it. ``struck`` is how many of the crashes there was a write for."""

    case: Case
    outcome: Outcome
    struck: int


def schedule_of(playbook: str) -> Schedule:
    """The history of one fault, with one process at a time.

    Raises:
        KeyError: no such playbook.
    """
    return Schedule(seed=1, racks=2, per_rack=5, replicas=1, events=(STARTS[playbook],), calm_s=CALM_S)


def reference(playbook: str) -> tuple[Outcome, tuple[str, ...]]:
    """The history without a crash, and its writes in order."""
    counted = Writes({})
    return play(schedule_of(playbook), wrap=counted.between), tuple(counted.seen)


def crashes(writes: int) -> Iterator[Crash]:
    """Every point of a history with so many writes."""
    for number in range(min(writes, POINTS_MAX)):
        for fate in CRASHES:
            yield Crash(number, fate)


def pairs(writes: int, most: int, seed: int) -> list[tuple[Crash, Crash]]:
    """Pairs of points, the second at a later write than the first: all of them, or so many by dice.

    What is started anew after the first crash writes a little more than the history without one.
    """
    points = list(crashes(writes + MORE_WRITES))
    every = [
        (first, second)
        for first in points
        if first.write < writes
        for second in points
        if first.write < second.write
    ]
    return every if len(every) <= most else Random(f"pairs {seed}").sample(every, most)


def play_case(case: Case) -> Played:
    """The history of its playbook with its crashes."""
    counted = Writes({crash.write: crash.fate for crash in case.crashes})
    return Played(case, play(schedule_of(case.playbook), wrap=counted.between), counted.struck)


def difference(expected: Outcome, found: Outcome) -> tuple[str, ...]:
    """In what the end differs from that of the reference; nothing where it does not."""
    lines = [f"broken: {rule}" for rule in found.broken]
    lines += [f"- {line}" for line in expected.ending if line not in found.ending]
    lines += [f"+ {line}" for line in found.ending if line not in expected.ending]
    if found.reboots != expected.reboots:
        lines.append(f"{found.reboots} reboots, {expected.reboots} without a crash")
    return tuple(lines)
