"""A small scope, exhaustively: three nodes, a spare, two replicas, two faults, and each order of messages.

Each of the first writes after the first fault arrives at once, late, after a Lease's time, or its answer
comes late: all of these together, for as many writes as the depth says. Small scopes show most bugs.
Source: D. Jackson, "Software Abstractions", the small-scope hypothesis; rule S33.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from remediator.chaos.fates import Fate, Writes
from remediator.chaos.history import Outcome, play
from remediator.chaos.schedule import Event, Schedule

CHOICES: Final = (None, Fate.LATE, Fate.HELD, Fate.REPLY_LATE)
#: A GPU is lost, and the leader dies while it answers: the request that was held is then an old leader's.
SCHEDULE: Final = Schedule(
    seed=1,
    racks=1,
    per_rack=5,
    replicas=2,
    events=(
        Event(at_s=5.0, kind="Xid", node="gpu-a-01", value=79),
        Event(at_s=6.0, kind="KillLeader"),
    ),
    calm_s=14_400.0,
)
FIRST: Final = "/remediations"  # the record of the run: the first write that the fault brings


class Order(Struct, frozen=True):
    """What becomes of each of the first writes after the fault; None: it goes its way at once."""

    fates: tuple[Fate | None, ...]


class Played(Struct, frozen=True):
    order: Order
    outcome: Outcome


def orders(depth: int) -> Iterator[Order]:
    """Every order of so many writes: four to the power of the depth."""
    for fates in itertools.product(CHOICES, repeat=depth):
        yield Order(fates)


def first_write() -> int:
    """The number of the write with which the fault is first answered."""
    writes = Writes({})
    play(SCHEDULE, wrap=writes.between)
    return next(number for number, each in enumerate(writes.seen) if each.endswith(FIRST))


def play_order(task: tuple[int, Order]) -> Played:
    """Play one order; the number is that of ``first_write``."""
    first, order = task
    fates = {first + number: fate for number, fate in enumerate(order.fates) if fate is not None}
    return Played(order, play(SCHEDULE, wrap=Writes(fates).between))


def wrong(found: Outcome) -> tuple[str, ...]:
    """What is not as it must be in every order: rules, and one reboot of one machine."""
    lines = [f"broken: {rule}" for rule in found.broken]
    if found.reboots != 1:
        lines.append(f"{found.reboots} reboots of the one machine that was faulty")
    return tuple(lines)
