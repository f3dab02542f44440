"""Kills the controller at each of its writes: before it, after it, and with the reply lost.

Whatever the point, the end must be the one of the history without a crash, and no machine may have been
rebooted twice. Source: Sieve, "intermediate states"; rule S33.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from typing import Final

from msgspec import Struct

from remediator.app.lifeline import WRITES, Lifeline
from remediator.app.relay import Call
from remediator.chaos.history import Killed, Outcome, play
from remediator.chaos.schedule import Event, Schedule
from remediator.errors import TransientError
from remediator.ports import Response, Transport

NODE: Final = "gpu-a-01"
POINTS_MAX: Final = 200  # a history that writes more is no history of one fault
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
# Written again and again by design, or asking for nothing but an answer.
_NOT_COUNTED: Final = ("leases", "events", "selfsubjectaccessreviews", "selfsubjectreviews")


class Fate(enum.Enum):
    """What becomes of the process, and of its request."""

    BEFORE = "before"  # dead before the server heard of it
    AFTER = "after"  # dead after it was done
    LOST = "lost"  # alive, and never told that it was done


class Crash(Struct, frozen=True):
    """The write, counted from 0 over the whole history, and what becomes of it."""

    write: int
    fate: Fate


class Counted:
    """Counts the writes of all processes of one history, and lets the chosen one go wrong."""

    def __init__(self, crash: Crash | None) -> None:
        self.writes: list[str] = []
        self._crash = crash

    def between(self, way: Transport) -> Transport:
        """One process' way to the server."""
        return _Way(way, self)

    def next_fate(self, write: Call) -> Fate | None:
        """Take one more write down."""
        number = len(self.writes)
        self.writes.append(write.what)
        return self._crash.fate if self._crash is not None and self._crash.write == number else None


class _Way(Lifeline):
    """The way of one process; at the chosen write it is cut, or loses the reply."""

    def __init__(self, inner: Transport, counted: Counted) -> None:
        super().__init__(inner)
        self._counted = counted

    async def call(self, call: Call) -> Response:
        await self._while_alive()
        counts = call.method in WRITES and not any(part in _NOT_COUNTED for part in call.path.split("/"))
        fate = self._counted.next_fate(call) if counts else None
        if fate is Fate.BEFORE:
            self._die()
        reply = await super().call(call)
        if fate is Fate.AFTER:
            self._die()
        if fate is Fate.LOST:
            raise TransientError(f"{call.what}: connection reset (chaos)")
        return reply

    def _die(self) -> None:
        self.cut = True
        raise Killed


def schedule_of(playbook: str) -> Schedule:
    """The history of one fault, with one process at a time.

    Raises:
        KeyError: no such playbook.
    """
    return Schedule(seed=1, racks=2, per_rack=5, replicas=1, events=(STARTS[playbook],), calm_s=CALM_S)


def reference(playbook: str) -> tuple[Outcome, tuple[str, ...]]:
    """The history without a crash, and its writes in order."""
    counted = Counted(None)
    return play(schedule_of(playbook), wrap=counted.between), tuple(counted.writes)


def crashes(writes: int) -> Iterator[Crash]:
    """Every point of a history with so many writes."""
    for number in range(min(writes, POINTS_MAX)):
        for fate in Fate:
            yield Crash(number, fate)


def play_crash(playbook: str, crash: Crash) -> Outcome:
    """The same history with one crash."""
    return play(schedule_of(playbook), wrap=Counted(crash).between)


def difference(expected: Outcome, found: Outcome) -> tuple[str, ...]:
    """In what the end differs from that of the reference; nothing where it does not."""
    lines = [f"broken: {rule}" for rule in found.broken]
    lines += [f"- {line}" for line in expected.ending if line not in found.ending]
    lines += [f"+ {line}" for line in found.ending if line not in expected.ending]
    if found.reboots != expected.reboots:
        lines.append(f"{found.reboots} reboots, {expected.reboots} without a crash")
    return tuple(lines)
