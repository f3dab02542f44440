"""An API server behind the transport seam that says yes to everything and remembers it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from remediator.ports import Lane, Response


class YesServer:
    """``ports.Transport``; a watch yields its own path once."""

    def __init__(self) -> None:
        self.heard: list[str] = []

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
        self.heard.append(f"{method} {path}")
        return Response(200, {}, b"{}")

    async def stream(
        self,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        connect_timeout_s: float,
        idle_timeout_s: float,
    ) -> AsyncIterator[bytes]:
        yield path.encode()
