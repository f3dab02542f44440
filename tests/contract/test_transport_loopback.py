"""Requests to servers that hang, break off and lie, over real sockets."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from remediator import __version__
from remediator.adapters.kube.errors import NotSentError
from remediator.adapters.kube.transport import TransportSettings
from remediator.errors import TransientError
from remediator.ports import Lane
from tests.contract.loopback import CHUNKED, Received, always, answer, connect, serve, then_close, then_reset
from tests.contract.transport_calls import NODES, REAL, get, hang, slow_headers, watch
from tests.unit.adapters.kube.kubeconfigs import kubeconfig

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize("status", [200, 201, 404, 409, 429, 500, 503])
async def test_request_returns_any_status_as_it_is(tmp_path, status):
    """What a status means depends on the caller; the seam must not decide."""
    async with (
        serve(always(answer(status, b'{"a":1}', Retry_After="7"))) as server,
        connect(kubeconfig(tmp_path, server.url)) as transport,
    ):
        reply = await get(transport)

    assert (reply.status, reply.body, reply.headers["retry-after"]) == (status, b'{"a":1}', "7")


async def test_request_sends_query_body_and_the_callers_headers(tmp_path):
    """The audit log is the proof of every rule, and these headers are what it shows."""
    headers = {
        "user-agent": "remediator/1 (term=4; run=a-1)",
        "Audit-ID": "x",
        "Content-Type": "application/merge-patch+json",
    }
    async with (
        serve(always(answer(200))) as server,
        connect(kubeconfig(tmp_path, server.url + "/k8s/c-1/", user={"token": "t0k"})) as transport,
    ):
        await transport.request(
            "PATCH", NODES + "/a", query={"fieldSelector": "spec.nodeName=a b"}, headers=headers, body=b"{}",
            timeout_s=5, lane=Lane.URGENT,
        )  # fmt: skip
        await get(transport)

    patch, read = server.requests
    assert (patch.method, patch.body) == ("PATCH", b"{}")
    assert patch.target == "/k8s/c-1/api/v1/nodes/a?fieldSelector=spec.nodeName%3Da+b"
    assert patch.headers["user-agent"] == "remediator/1 (term=4; run=a-1)"
    assert (patch.headers["audit-id"], patch.headers["authorization"]) == ("x", "Bearer t0k")
    assert patch.headers["content-type"] == "application/merge-patch+json"
    assert read.headers["user-agent"] == f"remediator/{__version__} (test)"
    assert uuid.UUID(read.headers["audit-id"]).version == 4
    assert (read.headers["accept"], read.headers["accept-encoding"]) == ("application/json", "identity")


async def slow_body(_: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _i in range(1000):
        writer.write(b" ")
        await writer.drain()
        await REAL.sleep(0.02)


@pytest.mark.parametrize("script", [hang, slow_headers, slow_body], ids=["silent", "slow head", "slow body"])
async def test_request_ends_in_time_whatever_the_server_does(tmp_path, script):
    """One byte a second would keep a per-read time-out alive for ever."""
    async with serve(script) as server, connect(kubeconfig(tmp_path, server.url)) as transport:
        with pytest.raises(
            TransientError, match=r"GET /api/v1/nodes: no complete reply within 0\.1 s"
        ) as caught:
            await get(transport, timeout_s=0.1)

    assert not isinstance(caught.value, NotSentError)


@pytest.mark.parametrize(
    "script",
    [
        then_reset(b""),
        then_close(b""),
        then_close(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"),
        then_reset(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"),
        then_close(CHUNKED + b"ff\r\n{"),
        always(b"\x16\x03\x01 this is no HTTP\r\n\r\n"),
    ],
    ids=["reset", "closed", "short body", "reset in body", "short chunk", "no http"],
)
async def test_incomplete_reply_is_transient_and_never_a_short_body(tmp_path, script):
    """Half a list taken for a whole one would delete nodes from the cache."""
    async with serve(script) as server, connect(kubeconfig(tmp_path, server.url)) as transport:
        with pytest.raises(TransientError, match="GET /api/v1/nodes") as caught:
            await get(transport, timeout_s=2)

    assert not isinstance(caught.value, NotSentError)


async def test_refused_connection_was_not_sent(tmp_path):
    """Then a write certainly changed nothing, and the caller need not look first."""
    async with serve(hang) as server:
        path = kubeconfig(tmp_path, server.url)
    async with connect(path) as transport:
        with pytest.raises(NotSentError, match=r"127\.0\.0\.1"):
            await get(transport)


async def test_body_is_bounded_after_decompression(tmp_path):
    """A wrong server must not be able to fill the memory."""
    settings = TransportSettings(body_bytes_max=1000)
    async with (
        serve(always(answer(200, b"x" * 1001))) as server,
        connect(kubeconfig(tmp_path, server.url), settings) as transport,
    ):
        with pytest.raises(TransientError, match="larger than 1000 bytes"):
            await get(transport)


async def test_redirect_is_returned_not_followed(tmp_path):
    """Following it would send our token to another server."""
    async with (
        serve(always(answer(302, Location="http://127.0.0.1:1/"))) as server,
        connect(kubeconfig(tmp_path, server.url, user={"token": "t"})) as transport,
    ):
        reply = await get(transport)

    assert (reply.status, len(server.requests)) == (302, 1)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "POST", "GET"])
async def test_request_is_never_sent_twice_when_a_reused_connection_breaks(tmp_path, method):
    """A repeated PUT would report our own applied write as a conflict."""

    async def script(received: Received, writer: asyncio.StreamWriter) -> None:
        await (always if received.target == NODES else then_close)(
            answer(200) if received.target == NODES else b""
        )(received, writer)

    async with serve(script) as server, connect(kubeconfig(tmp_path, server.url)) as transport:
        await get(transport)
        with pytest.raises(TransientError):
            await transport.request(method, NODES + "/a", body=b"{}", timeout_s=5, lane=Lane.NORMAL)

    assert (server.connections, len(server.requests)) == (1, 2)


async def test_lease_and_urgent_never_wait_for_connections_of_bulk_or_watches(tmp_path):
    """draino lost its leadership behind its own writes."""

    async def script(received: Received, writer: asyncio.StreamWriter) -> None:
        if "lease" in received.target:
            await always(answer(200))(received, writer)
        elif "watch" in received.target:
            await always(CHUNKED)(received, writer)
        else:
            await hang(received, writer)

    settings = TransportSettings(connections=dict.fromkeys(Lane, 1), watches_max=1)
    async with serve(script) as server, connect(kubeconfig(tmp_path, server.url), settings) as transport:
        hanging = [get(transport, timeout_s=0.3, lane=lane) for lane in (Lane.BULK, Lane.NORMAL) * 3]
        stuck = asyncio.gather(*hanging, watch(transport, idle_timeout_s=0.3), return_exceptions=True)
        await REAL.sleep(0.05)
        replies = [
            await transport.request("GET", "/lease", timeout_s=0.2, lane=lane)
            for lane in (Lane.LEASE, Lane.URGENT)
        ]
        results = await stuck

    assert [reply.status for reply in replies] == [200, 200]
    assert all(isinstance(result, TransientError) for result in results)
