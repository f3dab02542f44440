"""The health port over a loopback socket: what probes get, and what it refuses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from remediator.adapters.telemetry.health import REASONS_MAX, HealthServer
from remediator.adapters.telemetry.metrics import Metrics
from remediator.errors import ContractError, PermanentError

pytestmark = pytest.mark.asyncio
HOST = "127.0.0.1"


class Told:
    """What the controller would say of itself."""

    def __init__(self) -> None:
        self.not_ready: tuple[str, ...] = ()
        self.dead: str | None = None
        self.view: dict[str, object] = {"leader": "a", "term": 7, "waiting": {"m-1": {"gate": "Paused"}}}
        self.metrics = Metrics()
        self.running = 0

    def server(self, port: int = 0) -> HealthServer:
        return HealthServer(
            HOST,
            port,
            self.metrics,
            ready=lambda: self.not_ready,
            alive=lambda: self.dead,
            measure=lambda: self.metrics.gauge("remediator_runs_active", {}, self.running),
            status=lambda: self.view,
        )


@asynccontextmanager
async def serving(told: Told) -> AsyncIterator[tuple[HealthServer, aiohttp.ClientSession]]:
    async with told.server() as server, aiohttp.ClientSession(f"http://{HOST}:{server.port}") as session:
        yield server, session


async def raw(port: int, request: bytes) -> bytes:
    """Send bytes and read until the server closes."""
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(request)
    await writer.drain()
    try:
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


async def test_metrics_are_served_as_prometheus_reads_them():
    """The content type is part of the format."""
    told = Told()
    told.metrics.gauge("remediator_term", {}, 7)

    async with serving(told) as (_, session), session.get("/metrics") as reply:
        text = await reply.text()

    assert reply.status == 200
    assert reply.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "\nremediator_term 7.0\n" in text


async def test_gauges_are_what_is_so_at_the_scrape():
    """Between two scrapes nobody reads them, so nobody sets them."""
    told = Told()
    async with serving(told) as (_, session):
        told.running = 3
        async with session.get("/metrics") as reply:
            assert "\nremediator_runs_active 3.0\n" in await reply.text()


async def test_readiness_names_every_reason_and_comes_and_goes():
    """Whoever looks at a pod that is not ready wants to know why."""
    told = Told()

    async with serving(told) as (_, session):
        async with session.get("/readyz") as reply:
            assert (reply.status, await reply.text()) == (200, "ok\n")
        told.not_ready = ("cache of nodes is not in sync", "no answer from the API server")
        async with session.get("/readyz") as reply:
            assert reply.status == 503
            assert await reply.text() == "cache of nodes is not in sync\nno answer from the API server\n"
        told.not_ready = tuple(f"reason {number}" for number in range(1_000))
        async with session.get("/readyz") as reply:
            assert len((await reply.text()).splitlines()) == REASONS_MAX


async def test_health_is_its_own_answer():
    """A replica that waits for its caches must not be restarted for it."""
    told = Told()
    told.not_ready = ("cache of nodes is not in sync",)

    async with serving(told) as (_, session):
        async with session.get("/healthz") as reply:
            assert (reply.status, await reply.text()) == (200, "ok\n")
        told.dead = "the fleet pass has not ended for 300 s"
        async with session.get("/healthz") as reply:
            assert (reply.status, await reply.text()) == (503, "the fleet pass has not ended for 300 s\n")


async def test_status_is_sorted_json():
    """``remediator status`` reads it; people diff it."""
    async with serving(Told()) as (_, session), session.get("/statusz") as reply:
        body = await reply.read()

    assert reply.headers["Content-Type"] == "application/json"
    assert json.loads(body) == {"leader": "a", "term": 7, "waiting": {"m-1": {"gate": "Paused"}}}
    assert list(json.loads(body)) == ["leader", "term", "waiting"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])
@pytest.mark.parametrize("path", ["/metrics", "/statusz"])
async def test_only_get_is_answered(method, path):
    """Nothing can be changed through this port."""
    async with serving(Told()) as (_, session), session.request(method, path) as reply:
        assert reply.status == 405


async def test_unknown_path_is_not_found():
    """No index that lists what there is."""
    async with serving(Told()) as (_, session), session.get("/debug") as reply:
        assert reply.status == 404


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n", b"413"),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n", b"413"),
        (b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 20_000 + b"\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/1.1\r\n" + b"".join(b"X%d: y\r\n" % n for n in range(500)) + b"\r\n", b"400"),
        (b"nonsense\r\n\r\n", b"400"),
    ],
    ids=["length", "chunked", "line", "header", "headers", "nonsense"],
)
async def test_big_or_broken_requests_are_refused_and_the_connection_closed(request_bytes, status):
    """A body that nobody asked for is never read; limits hold before a handler runs."""
    async with serving(Told()) as (server, session):
        reply = await raw(server.port, request_bytes)
        async with session.get("/healthz") as after:
            assert after.status == 200

    assert reply.startswith(b"HTTP/1.") and reply.split(b" ", 2)[1] == status  # noqa: PT018


async def test_error_of_one_answer_leaves_the_others_alone():
    """A bug in the view must not take the probes down."""
    told = Told()
    told.view = {"bad": object()}

    async with serving(told) as (_, session):
        async with session.get("/statusz") as reply:
            assert reply.status == 500
            assert "Traceback" not in await reply.text()
        async with session.get("/healthz") as reply:
            assert reply.status == 200


async def test_close_ends_idle_connections_and_frees_the_port():
    """A restart in place must find its port free, whatever clients keep open."""
    told = Told()
    server = told.server()
    await server.start()
    port = server.port
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    await asyncio.wait_for(reader.readuntil(b"ok\n"), 5)

    await server.close()
    await server.close()

    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
    async with told.server(port) as again:
        assert again.port == port


async def test_taken_port_is_said_with_its_fix():
    """The most common mistake at start."""
    told = Told()
    async with told.server() as first:
        second = told.server(first.port)
        with pytest.raises(PermanentError, match=rf"127\.0\.0\.1:{first.port}: .*choose another address"):
            await second.start()
        with pytest.raises(ContractError, match="twice"):
            await first.start()
    with pytest.raises(ContractError, match="no port"):
        assert first.port
