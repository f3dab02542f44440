"""A transport to a server that is too busy for most requests, for as long as a file is there.

It answers for the server before that has seen anything: 429 with a time to come back, or 503. The
Lease is served as always: API priority and fairness has a level of its own for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random
from typing import Final

from remediator.app.relay import Call, Relay, WatchCall
from remediator.errors import TransientError
from remediator.ports import Lane, Response, Transport

RETRY_AFTER_S: Final = 1
TOO_MANY: Final = Response(
    429,
    {"retry-after": str(RETRY_AFTER_S), "content-type": "application/json"},
    b'{"kind":"Status","status":"Failure","reason":"TooManyRequests","code":429,'
    b'"message":"too many requests, please try again later","details":{"retryAfterSeconds":1}}',
)
UNAVAILABLE: Final = Response(503, {"content-type": "text/plain"}, b"the server is currently unable to do it")


class Overload(Relay):
    """``ports.Transport`` around another one.

    Args:
        inner: does the work for those that are let through.
        flag: while this file exists the server is too busy.
        share: of the requests that it turns away meanwhile, 0 to 1.
        rng: which ones, and how.
        tried: hears of each request but the Lease's, turned away or not.
    """

    def __init__(
        self, inner: Transport, *, flag: Path, share: float, rng: Random, tried: Callable[[bool], None]
    ) -> None:
        super().__init__(inner)
        self._flag = flag
        self._share = share
        self._rng = rng
        self._tried = tried

    async def call(self, call: Call) -> Response:
        """Send one request, or turn it away."""
        if call.lane is not Lane.LEASE and (refusal := self._turn_away()) is not None:
            return refusal
        return await self.send(call)

    def watch(self, call: WatchCall) -> AsyncIterator[bytes]:
        """Watch, or turn it away. Watches that run go on."""
        refusal = self._turn_away()
        return self.open(call) if refusal is None else _refused(call.path, refusal)

    def _turn_away(self) -> Response | None:
        refused = self._flag.exists() and self._rng.random() < self._share
        self._tried(refused)
        if not refused:
            return None
        return self._rng.choice((TOO_MANY, UNAVAILABLE))


async def _refused(path: str, refusal: Response) -> AsyncIterator[bytes]:
    after_s = float(RETRY_AFTER_S) if refusal is TOO_MANY else None
    raise TransientError(f"WATCH {path}: HTTP {refusal.status}", retry_after_s=after_s)
    yield b""  # what makes this an iterator
