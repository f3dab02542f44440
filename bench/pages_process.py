"""Serves one metrics page for ever, as cheaply as can be: what is measured is the reader.

    python -m bench.pages_process

Prints its port and the page's size; ends when its input does.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Final

from remediator.fleet.machines import machine_for
from remediator.fleet.pages import a_training_pod, page_for, render

NODE: Final = "gpu-a-01"
UPTIME_S: Final = 86_400.0


class _Static(asyncio.Protocol):
    """Answers each request head with the page. Requests have no body and are not pipelined."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._seen = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._seen += data
        if self._seen.endswith(b"\r\n\r\n") and self._transport is not None:
            self._seen = b""
            self._transport.write(self._answer)


async def serve() -> None:
    """Serve until standard input ends."""
    page = render(page_for(machine_for(NODE), pod=a_training_pod(NODE))).text(UPTIME_S)
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(page)}\r\n\r\n".encode()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Static(head + page), "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], len(page), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(serve())
