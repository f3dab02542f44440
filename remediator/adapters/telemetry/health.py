"""The port that probes, Prometheus and ``remediator status`` look at. Read only.

Who leads is no part of readiness: a follower that is ready to take over is ready.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Final, Self

import msgspec
from aiohttp import web

from remediator.adapters.telemetry.certificate import ServingCertificate
from remediator.adapters.telemetry.metrics import CONTENT_TYPE, Metrics
from remediator.errors import ContractError, PermanentError
from remediator.ports import Guard

KEEPALIVE_S: Final = 30.0
SHUTDOWN_S: Final = 2.0
REQUEST_LINE_BYTES_MAX: Final = 2_048
HEADERS_MAX: Final = 64
REASONS_MAX: Final = 32
GUARDED: Final = frozenset(("/metrics", "/statusz"))

_HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class HealthServer:
    """Serves /metrics, /healthz, /readyz and /statusz on one address. GET without a body only.

    Args:
        host: the address to listen on; there is no default, so that nobody opens all by accident.
        port: 0 lets the system choose; see ``port``.
        metrics: what /metrics shows.
        ready: why this process is not ready, one line each; none: it is.
        alive: why the process has to be restarted, or None. That an answer comes at all proves
            that the event loop turns.
        measure: sets what is read only when it is asked for; called before each page of metrics.
        status: the controller's own view, as values that msgspec can encode; /statusz is its JSON.
        certificate: serve TLS with it; None: plain HTTP.
        guard: who may read /metrics and /statusz; None: everybody. Probes are never guarded.
    """

    def __init__(
        self,
        host: str,
        port: int,
        metrics: Metrics,
        *,
        ready: Callable[[], tuple[str, ...]],
        alive: Callable[[], str | None],
        measure: Callable[[], None],
        status: Callable[[], Mapping[str, object]],
        certificate: ServingCertificate | None = None,
        guard: Guard | None = None,
    ) -> None:
        self._host = host
        self._wanted_port = port
        self._metrics = metrics
        self._ready = ready
        self._alive = alive
        self._status = status
        self._measure = measure
        self._certificate = certificate
        self._guard = guard
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    @property
    def port(self) -> int:
        """The port that is listened on.

        Raises:
            ContractError: not started.
        """
        if self._runner is None or not self._runner.addresses:
            raise ContractError("the health server has no port before its start")
        return int(self._runner.addresses[0][1])

    async def start(self) -> None:
        """Listen.

        Raises:
            PermanentError: the address is taken or not ours.
            ContractError: started before.
        """
        if self._runner is not None:
            raise ContractError("the health server was started twice")
        application = web.Application(middlewares=[_only_bare_reads, self._admit], client_max_size=1)
        for path, handler in (
            ("/metrics", self._show_metrics),
            ("/healthz", self._show_health),
            ("/readyz", self._show_readiness),
            ("/statusz", self._show_status),
        ):
            application.router.add_get(path, handler, allow_head=False)
        self._runner = web.AppRunner(
            application,
            access_log=None,
            keepalive_timeout=KEEPALIVE_S,
            shutdown_timeout=SHUTDOWN_S,
            lingering_time=0.0,  # a body that nobody asked for is not read to its end
            max_line_size=REQUEST_LINE_BYTES_MAX,
            max_headers=HEADERS_MAX,
        )
        await self._runner.setup()
        tls = self._certificate.context if self._certificate is not None else None
        try:
            await web.TCPSite(self._runner, self._host, self._wanted_port, ssl_context=tls).start()
        except OSError as error:
            await self.close()
            raise PermanentError(
                f"health port {self._host}:{self._wanted_port}: {error.strerror or error}; "
                "choose another address or end the process that has it"
            ) from error

    async def close(self) -> None:
        """Stop listening and end all connections within two seconds. Twice does no harm."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    @web.middleware
    async def _admit(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        if self._certificate is not None:
            self._certificate.refresh()  # probes come every few seconds: no task of its own
        if self._guard is None or request.path not in GUARDED:
            return await handler(request)
        refused = await self._guard.refusal(request.headers.get("Authorization", ""), request.path)
        if refused is None:
            return await handler(request)
        answer = _lines((refused.reason,), refused.status)
        if refused.status == HTTPStatus.UNAUTHORIZED:
            answer.headers["WWW-Authenticate"] = "Bearer"
        return answer

    async def _show_metrics(self, _: web.Request) -> web.Response:
        self._measure()
        # Thousands of series take 20 ms: off the loop, the registry has locks of its own.
        page = await asyncio.to_thread(self._metrics.render)
        return web.Response(body=page, headers={**_HEADERS, "Content-Type": CONTENT_TYPE})

    async def _show_health(self, _: web.Request) -> web.Response:
        reason = self._alive()
        return _lines(("ok",), 200) if reason is None else _lines((reason,), 503)

    async def _show_readiness(self, _: web.Request) -> web.Response:
        reasons = self._ready()
        return _lines(reasons[:REASONS_MAX], 503) if reasons else _lines(("ok",), 200)

    async def _show_status(self, _: web.Request) -> web.Response:
        body = msgspec.json.encode(self._status(), order="sorted")
        return web.Response(body=body, content_type="application/json", headers=_HEADERS)


@web.middleware
async def _only_bare_reads(request: web.Request, handler: _Handler) -> web.StreamResponse:
    if not request.can_read_body:
        return await handler(request)
    refused = _lines(("a request here has no body",), 413)
    refused.force_close()
    return refused


def _lines(lines: tuple[str, ...], status: int) -> web.Response:
    return web.Response(text="".join(f"{line}\n" for line in lines), status=status, headers=_HEADERS)
