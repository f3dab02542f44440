"""One read, one watch, and servers that keep them waiting, for the tests of the transport."""

from __future__ import annotations

import asyncio

from remediator.adapters.clock import SystemClock
from remediator.ports import Lane, Response, Transport
from tests.contract.loopback import Received, answer

NODES = "/api/v1/nodes"
REAL = SystemClock()


async def get(transport: Transport, *, timeout_s: float = 5.0, lane: Lane = Lane.NORMAL) -> Response:
    return await transport.request("GET", NODES, timeout_s=timeout_s, lane=lane)


async def watch(
    transport: Transport, *, idle_timeout_s: float = 5.0, connect_timeout_s: float = 5.0
) -> list[bytes]:
    lines = transport.stream(
        NODES, query={"watch": "true"}, connect_timeout_s=connect_timeout_s, idle_timeout_s=idle_timeout_s
    )
    return [line async for line in lines]


async def hang(_: Received, writer: asyncio.StreamWriter) -> None:
    await writer.drain()
    await REAL.sleep(60)


async def slow_headers(_: Received, writer: asyncio.StreamWriter) -> None:
    for byte in answer(200):
        writer.write(bytes([byte]))
        await writer.drain()
        await REAL.sleep(0.02)
