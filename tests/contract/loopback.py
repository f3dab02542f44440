"""A scripted HTTP/1.1 server on 127.0.0.1 that can misbehave at the level of bytes."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from random import Random

from remediator.adapters.clock import SystemClock
from remediator.adapters.kube.caller import Caller
from remediator.adapters.kube.config import ConnectionSettings, load_connection
from remediator.adapters.kube.server_clock import ServerClock
from remediator.adapters.kube.transport import KubeTransport, TransportSettings


@dataclass(frozen=True)
class Received:
    """One request as it arrived; header names are lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


Script = Callable[[Received, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Loopback:
    """A running server: what it received, and which connections the client closed."""

    url: str
    requests: list[Received] = field(default_factory=list)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    connections: int = 0


def answer(status: int, body: bytes = b"", **headers: str) -> bytes:
    """One complete reply; ``Retry_After="7"`` becomes the header Retry-After."""
    fields = {"Content-Length": str(len(body)), "Content-Type": "application/json"}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} Status\r\n{head}\r\n".encode() + body


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


def always(data: bytes) -> Script:
    async def script(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return script


def then_close(data: bytes) -> Script:
    async def script(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        writer.close()

    return script


def then_reset(data: bytes) -> Script:
    """Send ``data``, then break the connection with RST instead of FIN."""

    async def script(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    return script


async def _read_request(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = head[0].split(" ", 2)
    headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)
    }
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(method, target, headers, body)


@asynccontextmanager
async def serve(script: Script, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Loopback]:
    """Answer each request by ``script``; connections stay open until it or the client closes them."""

    tasks: set[asyncio.Task[None]] = set()

    async def serve_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        server.connections += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while not writer.is_closing():
                received = await _read_request(reader)
                server.requests.append(received)
                await script(received, writer)
        server.closed.set()
        if not writer.is_closing():
            writer.transport.abort()

    listener = await asyncio.start_server(serve_connection, "127.0.0.1", 0, ssl=tls, limit=2**20)
    port = listener.sockets[0].getsockname()[1]
    server = Loopback(f"{'https' if tls else 'http'}://127.0.0.1:{port}")
    try:
        yield server
    finally:
        listener.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def connect(
    path: str, settings: TransportSettings | None = None, *, caller: Caller | None = None
) -> AsyncIterator[KubeTransport]:
    """Open a transport without the question who we are, so that tests can count requests."""
    clock = ServerClock(SystemClock())
    connection = await load_connection(ConnectionSettings(kubeconfig=path, environment={}), clock=clock)
    transport = KubeTransport(
        connection,
        settings=settings or TransportSettings(),
        clock=clock,
        caller=caller or Caller("test", rng=Random(1)),
    )
    try:
        yield transport
    finally:
        await transport.close()
