"""A transport that fails at one write of a controller: the process dies there, or hears no reply.

Writes are told apart by what they do, not by their number, since some of them go out side by side.
Nothing else is touched: reads, watches and every other write pass as they are.
"""

from __future__ import annotations

import asyncio
import enum
import os
import re
import signal
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NoReturn

import msgspec
from msgspec import Raw, Struct

from remediator.app.relay import Call, Relay
from remediator.errors import TransientError
from remediator.ports import Response, Transport

WRITES: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
# What changes nothing that the decisions of a run read: who leads, news for people, questions asked by
# POST, and the summaries of pools and playbooks, which come every few seconds. (A playbook's summary also
# keeps its last good version, which changes only when somebody edits it.)
NO_EFFECT: Final = frozenset(
    {
        "leases",
        "events",
        "selfsubjectreviews",
        "selfsubjectaccessreviews",
        "selfsubjectrulesreviews",
        "resourcepools/status",
        "playbooks/status",
    }
)
_STEP: Final = re.compile(r"[( ]step=([^;)]+)")


class Fate(enum.Enum):
    """What happens at the write."""

    KILLED_BEFORE = "killed-before"  # the server never sees it
    KILLED_AFTER = "killed-after"  # committed; the process ends as the reply comes in
    REPLY_LOST = "reply-lost"  # committed; the process lives on and is told that nothing came
    OVERTAKEN = "overtaken"  # not sent while the next write is; the process ends after that one
    FROZEN = "frozen"  # the process stands still right before it, and sends it when somebody thaws it


class _Granting(Struct, frozen=True):
    grants: tuple[Raw, ...] = ()


class _Policy(Struct, frozen=True):
    status: _Granting = _Granting()


def point_of(method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> str | None:
    """Name one write, such as ``PATCH nodes of fence``; None for a request without an effect.

    Args:
        method: of the request.
        path: of the request, without query.
        headers: as ``adapters.kube.writer`` sets them; the User-Agent names the step.
        body: of the request. A write of the policy is told by how many grants stand in it.
    """
    if method not in WRITES:
        return None
    parts = path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    if parts[0] == "namespaces" and len(parts) > 2:
        parts = parts[2:]
    what = "/".join(parts[0::2])  # the resource, and the subresource behind a name
    if what in NO_EFFECT:
        return None
    if what == "remediationpolicies/status" and body:
        return f"{method} {what} with {len(msgspec.json.decode(body, type=_Policy).status.grants)} grants"
    step = _STEP.search(headers.get("User-Agent", ""))
    return f"{method} {what} of {step[1]}" if step else f"{method} {what}"


class Journal:
    """What came of each write, one line each, in a file that outlives the process."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(self, point: str, what: str) -> None:
        # Straight to the kernel: a process that kills itself flushes nothing.
        os.write(self._file, f"{point}\t{what}\n".encode())


def read_journal(path: Path) -> list[tuple[str, str]]:
    """Return point and what came of it, in the order of the journal; empty where there is none."""
    if not path.exists():
        return []
    rows = [line.partition("\t") for line in path.read_text().splitlines()]
    return [(point, what) for point, _, what in rows]


class WriteFaults(Relay):
    """``ports.Transport`` around another one.

    Args:
        inner: does the work.
        journal: where every effective write is told.
        point: the write at which ``fate`` strikes, as ``point_of`` names it, with `` #2`` and so on
            behind the second and later ones of this process; empty for none.
        fate: what happens there.
        die: ends the process without a word.
        freeze: stops it until somebody thaws it.
    """

    def __init__(
        self,
        inner: Transport,
        *,
        journal: Journal,
        point: str,
        fate: Fate,
        die: Callable[[], NoReturn],
        freeze: Callable[[], None],
    ) -> None:
        super().__init__(inner)
        self._journal = journal
        self._point = point
        self._fate = fate
        self._die = die
        self._freeze = freeze
        self._seen: Counter[str] = Counter()
        self._overtaken = False

    async def call(self, call: Call) -> Response:
        """Send one request, or not."""
        point = self._number(point_of(call.method, call.path, call.headers or {}, call.body))
        chosen = point is not None and point == self._point
        if chosen and point:
            await self._strike_before(point)
        reply = await self.send(call)
        if point:
            self._strike_after(point, reply, chosen)
        return reply

    def _number(self, point: str | None) -> str | None:
        if point is None:
            return None
        self._seen[point] += 1
        return point if self._seen[point] == 1 else f"{point} #{self._seen[point]}"

    async def _strike_before(self, point: str) -> None:
        if self._fate is Fate.KILLED_BEFORE:
            self._journal.note(point, self._fate.value)
            self._die()
        if self._fate is Fate.OVERTAKEN:
            self._overtaken = True
            await asyncio.Event().wait()  # for ever: the next write ends the process
        if self._fate is Fate.FROZEN:
            self._journal.note(point, self._fate.value)
            self._freeze()

    def _strike_after(self, point: str, reply: Response, chosen: bool) -> None:
        if self._overtaken:
            self._journal.note(self._point, f"{self._fate.value} by {point}: {reply.status}")
            self._die()
        if not chosen:
            self._journal.note(point, str(reply.status))
            return
        self._journal.note(point, f"{self._fate.value}: {reply.status}")
        if self._fate is Fate.KILLED_AFTER:
            self._die()
        if self._fate is Fate.FROZEN:
            return
        raise TransientError(f"{point}: the reply was lost on order")


def freeze() -> None:
    """Stand still, as on a machine that is suspended; SIGCONT from outside ends it."""
    os.kill(os.getpid(), signal.SIGSTOP)


def die() -> NoReturn:
    """End this process as a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("SIGKILL came back")
