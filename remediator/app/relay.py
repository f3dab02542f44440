"""A transport that stands before another one: what decorators of ``ports.Transport`` have in common.

It changes nothing by itself. Faults, limits and ends of a process are subclasses that override what
they touch.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from remediator.ports import Lane, Response, Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request, as ``ports.Transport.request`` takes it."""

    method: str
    path: str
    query: Mapping[str, str] | None
    headers: Mapping[str, str] | None
    body: bytes | None
    timeout_s: float
    lane: Lane

    @property
    def what(self) -> str:
        """Method and path, for messages."""
        return f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchCall:
    """One watch, as ``ports.Transport.stream`` takes it."""

    path: str
    query: Mapping[str, str] | None
    headers: Mapping[str, str] | None
    connect_timeout_s: float
    idle_timeout_s: float


class Relay:
    """``ports.Transport`` over another one. Override ``call`` or ``watch``; ``send`` and ``open`` pass on."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner

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
        return await self.call(
            Call(
                method=method,
                path=path,
                query=query,
                headers=headers,
                body=body,
                timeout_s=timeout_s,
                lane=lane,
            )
        )

    def stream(
        self,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        connect_timeout_s: float,
        idle_timeout_s: float,
    ) -> AsyncIterator[bytes]:
        """Yield the lines of a watch; see ``ports.Transport``."""
        return self.watch(
            WatchCall(
                path=path,
                query=query,
                headers=headers,
                connect_timeout_s=connect_timeout_s,
                idle_timeout_s=idle_timeout_s,
            )
        )

    async def call(self, call: Call) -> Response:
        """Answer one request."""
        return await self.send(call)

    def watch(self, call: WatchCall) -> AsyncIterator[bytes]:
        """Answer one watch."""
        return self.open(call)

    async def send(self, call: Call) -> Response:
        """Let the inner transport answer."""
        return await self._inner.request(
            call.method,
            call.path,
            query=call.query,
            headers=call.headers,
            body=call.body,
            timeout_s=call.timeout_s,
            lane=call.lane,
        )

    def open(self, call: WatchCall) -> AsyncIterator[bytes]:
        """Let the inner transport answer a watch."""
        return self._inner.stream(
            call.path,
            query=call.query,
            headers=call.headers,
            connect_timeout_s=call.connect_timeout_s,
            idle_timeout_s=call.idle_timeout_s,
        )
