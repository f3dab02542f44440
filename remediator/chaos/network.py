"""Faults at the API boundary: a transport that answers badly, late, or not at all.

It can be put before any server, since it only knows requests and replies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from random import Random
from typing import Final, Protocol, get_args

import msgspec

from remediator.adapters.kube.wire import close_lines
from remediator.app.relay import Call, Relay, WatchCall
from remediator.chaos.schedule import AT_SERVER, BOTH, WATCHES, Fault, FaultKind
from remediator.errors import PermanentError, TransientError
from remediator.ports import Clock, Response, Transport
from remediator.sim.refusal import Refused, unknown_path

SERVER_ERRORS: Final = ((500, "InternalError"), (503, "ServiceUnavailable"), (504, "Timeout"))
BOOKMARK: Final = b'"BOOKMARK"'
PAGE: Final = b"<html><body>502 Bad Gateway</body></html>"
# Faults of requests that would change something, by their methods.
CHANGES: Final[Mapping[str, tuple[str, ...]]] = {
    "Conflict": ("PUT", "PATCH"),
    "Denied": ("POST", "PUT", "PATCH", "DELETE"),
}
REQUESTS: Final = frozenset(get_args(FaultKind)) - WATCHES
AMBIGUOUS: Final = ((500, "InternalError"), (504, "Timeout"))


class TurnedAway(Protocol):
    """``SimTransport.turned_away``."""

    async def __call__(
        self, method: str, path: str, *, headers: Mapping[str, str] | None, timeout_s: float, refused: Refused
    ) -> Response: ...


class FaultyTransport(Relay):
    """``ports.Transport`` over another one.

    Args:
        inner: what answers where no fault is due.
        faults: those of a schedule; the server's own are left to the server.
        clock: whose monotonic time, less ``began_s``, the faults' times count in.
        began_s: when the schedule began.
        rng: which request is hit.
        fired: counts, by the fault's place in the schedule, how often it has struck.
        turned_away: lets the server itself refuse a request, so that its audit log knows.
    """

    def __init__(
        self, inner: Transport, faults: Sequence[Fault], *, clock: Clock, began_s: float, rng: Random,
        fired: Counter[int], turned_away: TurnedAway | None = None,
    ) -> None:  # fmt: skip
        super().__init__(inner)
        self._turned_away = turned_away
        self._faults = [(number, each) for number, each in enumerate(faults) if each.kind not in AT_SERVER]
        self._clock = clock
        self._began_s = began_s
        self._rng = rng
        self._fired = fired

    async def call(self, call: Call) -> Response:
        fault = self._drawn(call.method, call.path)
        if fault is not None and fault.kind == "Unanswered":
            await self._clock.sleep(call.timeout_s)
            raise TransientError(f"{call.what}: no complete reply within {call.timeout_s:g} s (chaos)")
        if fault is not None and fault.kind == "Slow":
            await self._late(fault, call.timeout_s, call.what)
        if fault is not None and (refused := self._refused(fault, call.path)) is not None:
            if self._turned_away is None:
                return refusal(refused)
            return await self._turned_away(
                call.method, call.path, headers=call.headers, timeout_s=call.timeout_s, refused=refused
            )
        reply = await self.send(call)
        if fault is None:
            return reply
        if fault.kind == "LostReply":
            raise TransientError(f"{call.what}: connection reset (chaos)")
        if fault.kind == "Garbled":
            return Response(reply.status, reply.headers, self._garbled(reply.body))
        if fault.kind == "ErrorAfter":
            code, reason = self._rng.choice(AMBIGUOUS)
            return refusal(Refused(code, reason, "the server's reply was lost (chaos)"))
        return reply

    def _garbled(self, body: bytes) -> bytes:
        """Cut off, another program's page, or bytes that are no text."""
        return self._rng.choice((body[: len(body) // 2], PAGE, b"\xff\xfe" + body[2:], b""))

    async def _late(self, fault: Fault, timeout_s: float, what: str) -> None:
        if fault.seconds >= timeout_s:
            await self._clock.sleep(timeout_s)
            raise TransientError(f"{what}: no complete reply within {timeout_s:g} s (chaos)")
        await self._clock.sleep(fault.seconds)

    def _refused(self, fault: Fault, path: str) -> Refused | None:
        """What the server says without having read what was asked."""
        match fault.kind:
            case "Conflict":
                name = path.rstrip("/").rpartition("/")[2]
                return Refused(409, "Conflict", f'Operation cannot be fulfilled on "{name}" (chaos)')
            case "Denied":
                return Refused(403, "Forbidden", 'admission webhook "chaos.test" denied the request')
            case "Unauthorized":
                return Refused(401, "Unauthorized", "Unauthorized")
            case "NotServed":
                return unknown_path()
            case "TooMany":
                after_s = int(fault.seconds) if fault.seconds >= 1 else None
                return Refused(429, "TooManyRequests", "too many requests (chaos)", retry_after_s=after_s)
            case "ErrorBefore":
                return Refused(*self._rng.choice(SERVER_ERRORS), "the server is unwell (chaos)")
        return None

    async def watch(self, call: WatchCall) -> AsyncIterator[bytes]:
        what, idle_s = f"WATCH {call.path}", call.idle_timeout_s
        if self._drawn("GET", call.path, of=BOTH):
            raise PermanentError(f"{what}: HTTP 404 {unknown_path().message}", status=404)
        lines = self.open(call)
        try:
            async for line in lines:
                fault = self._drawn("GET", call.path, of=WATCHES | BOTH, bookmark=BOOKMARK in line[:40])
                if fault is not None and fault.kind == "BookmarksMissing":
                    continue
                if fault is not None and fault.kind in ("WatchEnds", "NotServed"):
                    return
                if fault is not None and fault.kind == "WatchBreaks":
                    raise TransientError(f"{what}: connection reset (chaos)")
                if fault is not None and fault.kind == "WatchHangs":
                    await self._clock.sleep(idle_s)
                    raise TransientError(f"{what}: silent for {idle_s:g} s (chaos)")
                if fault is not None and fault.kind == "WatchLate":
                    await self._clock.sleep(min(fault.seconds, idle_s))
                yield line
                if fault is not None and fault.kind == "WatchRepeats":
                    yield line
        finally:
            await close_lines(lines)

    def _drawn(
        self, method: str, path: str, *, of: Collection[str] = REQUESTS, bookmark: bool = False
    ) -> Fault | None:
        """The first fault of these kinds that is due and whose die falls; it counts as fired."""
        now = self._clock.monotonic() - self._began_s
        for number, fault in self._faults:
            if not fault.from_s <= now < fault.to_s or fault.kind not in of:
                continue
            if method not in CHANGES.get(fault.kind, (method,)):
                continue
            if fault.kind == "BookmarksMissing" and not bookmark:
                continue
            if fault.verb and fault.verb != method:
                continue
            if fault.on and fault.on not in path.split("/"):
                continue
            if self._rng.random() < fault.share:
                self._fired[number] += 1
                return fault
        return None


def refusal(refused: Refused) -> Response:
    """A reply that says no, in the server's form."""
    headers = {"content-type": "application/json"}
    if refused.retry_after_s is not None:
        headers["retry-after"] = str(refused.retry_after_s)
    return Response(refused.code, headers, msgspec.json.encode(refused.status()))
