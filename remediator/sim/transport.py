"""The way to the simulated server: ``ports.Transport`` without a network, and with a network's delays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from email.utils import format_datetime
from random import Random

from remediator.errors import PermanentError, TransientError
from remediator.ports import Clock, Lane, Response
from remediator.sim.refusal import Refused
from remediator.sim.request import Request, User
from remediator.sim.server import Server


@dataclass(frozen=True, slots=True)
class Delays:
    """How long a message takes one way, in seconds: evenly between both."""

    least_s: float = 0.001
    most_s: float = 0.004


class SimTransport:
    """``ports.Transport`` of one client of a ``Server``.

    Args:
        server: to ask.
        user: who asks, for the audit record.
        clock: of the simulation.
        seed: of the delays.
        introduce: headers that a request carries besides its own, asked anew for each.
    """

    def __init__(
        self, server: Server, user: User, *, clock: Clock, seed: int,
        delays: Delays | None = None, introduce: Callable[[], Mapping[str, str]] = dict,
    ) -> None:  # fmt: skip
        self._server = server
        self._user = user
        self._clock = clock
        self._rng = Random(f"network {user.name} {seed}")
        self._delays = delays or Delays()
        self._introduce = introduce

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float,
        lane: Lane,
    ) -> Response:
        """Send one request; see ``ports.Transport``."""
        del lane  # nobody waits for a turn
        asked = self._asked(method, path, query, headers, body)
        return await self._exchanged(asked, timeout_s, None)

    async def turned_away(
        self, method: str, path: str, *, headers: Mapping[str, str] | None, timeout_s: float, refused: Refused
    ) -> Response:
        """Send one request that the server turns away unread: it stands in the audit log, and did nothing."""
        return await self._exchanged(self._asked(method, path, None, headers, None), timeout_s, refused)

    async def _exchanged(self, asked: Request, timeout_s: float, refused: Refused | None) -> Response:
        method, path = asked.method, asked.path
        try:
            async with asyncio.timeout(timeout_s):
                await self._on_the_way()
                answer, answered = self._server.handle(asked, refused), self._clock.now()
                await self._on_the_way()
        except TimeoutError as error:
            raise TransientError(f"{method} {path}: no complete reply within {timeout_s:g} s") from error
        said = {"content-type": "application/json", "date": format_datetime(answered, usegmt=True)}
        return Response(answer.code, {**said, **answer.headers}, answer.body)

    async def stream(
        self,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        connect_timeout_s: float,
        idle_timeout_s: float,
    ) -> AsyncGenerator[bytes, None]:
        """Yield the lines of a watch; see ``ports.Transport``."""
        what = f"WATCH {path}"
        asked = self._asked("GET", path, query, headers, None)
        try:
            async with asyncio.timeout(connect_timeout_s):
                await self._on_the_way()
                watch = self._server.watch(asked)
        except TimeoutError as error:
            raise TransientError(f"{what}: no answer within {connect_timeout_s:g} s") from error
        except Refused as refused:
            raise _refused(refused, what) from refused
        try:
            async with aclosing(watch.batches()) as batches:
                while True:
                    async with asyncio.timeout(idle_timeout_s):
                        batch = await anext(batches, None)
                    if batch is None:
                        return
                    await self._on_the_way()
                    for line in batch:
                        yield line
        except TimeoutError as error:
            raise TransientError(f"{what}: silent for {idle_timeout_s:g} s") from error
        finally:
            watch.close()

    def _asked(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
        body: bytes | None,
    ) -> Request:
        lower = {name.lower(): value for name, value in {**self._introduce(), **(headers or {})}.items()}
        if body is not None:
            lower.setdefault("content-type", "application/json")
        return Request(
            user=self._user,
            method=method,
            path=path,
            query=dict(query or {}),
            headers=lower,
            body=body or b"",
        )

    async def _on_the_way(self) -> None:
        await self._clock.sleep(self._rng.uniform(self._delays.least_s, self._delays.most_s))


def _refused(refused: Refused, what: str) -> TransientError | PermanentError:
    text = f"{what}: HTTP {refused.code} {refused.reason}: {refused.message}"
    if refused.code == 429 or refused.code >= 500:
        return TransientError(text, retry_after_s=refused.retry_after_s)
    return PermanentError(text, status=refused.code)
