"""Watches of servers that cut lines, fall silent or flood us, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from remediator.adapters.kube.transport import TransportSettings
from remediator.errors import PermanentError, TransientError
from tests.contract.loopback import (
    CHUNKED,
    LAST_CHUNK,
    Received,
    always,
    answer,
    chunk,
    connect,
    serve,
    then_close,
    then_reset,
)
from tests.contract.transport_calls import NODES, REAL, hang, slow_headers, watch
from tests.unit.adapters.kube.kubeconfigs import kubeconfig

pytestmark = pytest.mark.asyncio


async def collect(lines: AsyncIterator[bytes], seen: list[bytes]) -> None:
    """Read to the end; what came before an error is kept in ``seen``."""
    async for line in lines:
        seen.append(line)


async def test_watch_yields_lines_however_they_are_cut(tmp_path):
    """TCP and chunks know no lines, and a node can be bigger than any buffer."""
    big = b"b" * (3 * 1024 * 1024)
    parts = (b'{"a":', b"1}\n{}\n\n", big[:1000], big[1000:], b"\n", b"\xff\xfe", b"\n")
    script = always(CHUNKED + b"".join(map(chunk, parts)) + LAST_CHUNK)
    async with serve(script) as server, connect(kubeconfig(tmp_path, server.url)) as transport:
        lines = await watch(transport)

    assert lines == [b'{"a":1}', b"{}", big, b"\xff\xfe"]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (then_close(CHUNKED + chunk(b'{}\n{"half"') + LAST_CHUNK), "in the middle of a line, after 7 bytes"),
        (then_close(CHUNKED + chunk(b'{}\n{"half"')), "WATCH /api/v1/nodes"),
        (then_reset(CHUNKED + chunk(b"{}\n")), "WATCH /api/v1/nodes"),
        (always(CHUNKED + chunk(b"{}\n" + b"x" * 5000)), "longer than 4000 bytes"),
        (always(CHUNKED + chunk(b"{}\n" + b"x" * 5000 + b"\n")), "longer than 4000 bytes"),
        (always(CHUNKED + chunk(b"{}\n")), r"silent for 0\.15 s"),
    ],
    ids=["half line", "closed in line", "reset", "endless line", "long line", "silence"],
)
async def test_broken_watch_yields_what_was_whole_and_raises(tmp_path, script, message):
    """An event that is lost silently is never seen again; an error leads to a relist."""
    seen: list[bytes] = []
    settings = TransportSettings(line_bytes_max=4000)
    async with serve(script) as server, connect(kubeconfig(tmp_path, server.url), settings) as transport:
        lines = transport.stream(NODES, connect_timeout_s=5, idle_timeout_s=0.15)
        with pytest.raises(TransientError, match=message):
            await collect(lines, seen)

    assert seen in ([b"{}"], [])
    assert seen or message == "WATCH /api/v1/nodes"


async def test_idle_time_out_counts_silence_not_the_length_of_the_watch(tmp_path):
    """A watch lives for half an hour; only silence is suspicious."""

    async def script(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED)
        for _i in range(6):
            writer.write(chunk(b"{}\n"))
            await writer.drain()
            await REAL.sleep(0.04)
        writer.write(LAST_CHUNK)

    async with serve(script) as server, connect(kubeconfig(tmp_path, server.url)) as transport:
        lines = await watch(transport, idle_timeout_s=0.15)

    assert len(lines) == 6


@pytest.mark.parametrize("script", [hang, slow_headers], ids=["silent", "slow head"])
async def test_watch_that_does_not_start_is_transient(tmp_path, script):
    """A version in the future makes the server silent."""
    async with serve(script) as server, connect(kubeconfig(tmp_path, server.url)) as transport:
        with pytest.raises(TransientError, match=r"no answer within 0\.1 s"):
            await watch(transport, connect_timeout_s=0.1)


async def test_watch_status_is_permanent_or_transient(tmp_path):
    """410 means relist, 429 and 5xx mean wait."""
    for status, kind in (
        (410, PermanentError),
        (403, PermanentError),
        (429, TransientError),
        (504, TransientError),
    ):
        body = b'{"kind":"Status","message":"too old resource version"}'
        async with (
            serve(always(answer(status, body, Retry_After="7"))) as server,
            connect(kubeconfig(tmp_path, server.url)) as transport,
        ):
            with pytest.raises(kind, match="too old resource version") as caught:
                await watch(transport)

        expected = status if kind is PermanentError else 7.0
        assert getattr(caught.value, "status", getattr(caught.value, "retry_after_s", None)) == expected


async def test_closing_a_watch_closes_its_connection(tmp_path):
    """Otherwise each ended run would leave a pod watch behind, here and on the server."""
    async with (
        serve(always(CHUNKED + chunk(b"{}\n"))) as server,
        connect(kubeconfig(tmp_path, server.url)) as transport,
    ):
        async with aclosing(transport.stream(NODES, connect_timeout_s=5, idle_timeout_s=5)) as lines:
            first = await anext(lines)
        await asyncio.wait_for(server.closed.wait(), 1)

    assert first == b"{}"


async def test_slow_reader_holds_the_server_back_instead_of_buffering(tmp_path):
    """A blocked loop must cost a bounded amount of memory."""
    sent = 0

    async def script(_: Received, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(CHUNKED)
        line = chunk(b"x" * 65535 + b"\n")
        while sent < 200 * 2**20:
            writer.write(line)
            await writer.drain()
            sent += len(line)

    async with (
        serve(script) as server,
        connect(kubeconfig(tmp_path, server.url)) as transport,
        aclosing(transport.stream(NODES, connect_timeout_s=5, idle_timeout_s=5)) as lines,
    ):
        await anext(lines)
        await REAL.sleep(0.2)

    assert sent < 50 * 2**20
