"""Fetching pages from loopback servers that behave, dawdle, lie or never end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from remediator.adapters.exporters.fetch import HttpPages
from remediator.errors import PageError

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

PAGE = b"# TYPE x gauge\nx 1\n"


def answer(body=PAGE, *, status="200 OK", headers=()):
    length = f"Content-Length: {len(body)}"
    return "\r\n".join([f"HTTP/1.1 {status}", length, *headers, "", ""]).encode() + body


class Server:
    """Answers each request with the same bytes; remembers what it saw."""

    def __init__(self, reply: bytes) -> None:
        self.reply = reply
        self.connections = 0
        self.requests: list[bytes] = []

    async def __call__(self, reader, writer):
        self.connections += 1
        while True:
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(self.reply)
            await writer.drain()


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    handling: set[asyncio.Task[None]] = set()

    async def handle(reader, writer):
        try:
            await handler(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client hung up
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    def accept(reader, writer):
        handling.add(asyncio.get_running_loop().create_task(handle(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/metrics"
    finally:
        server.close()
        await server.wait_closed()
        if handling:
            await asyncio.wait(handling, timeout=5)


def some_pages(*, connections_max=4, keepalive_s=45.0):
    return HttpPages(connections_max=connections_max, keepalive_s=keepalive_s, user_agent="remediator/test")


async def fetch(handler, *, timeout_s=5.0, bytes_max=1_000_000):
    async with serving(handler) as url, some_pages() as pages:
        return await pages.fetch(url, timeout_s=timeout_s, bytes_max=bytes_max)


@pytest.mark.asyncio
async def test_fetch_returns_the_page_and_keeps_the_connection():
    """A new connection for each page of each node costs a third of the scraper's speed."""
    server = Server(answer())
    async with serving(server) as url, some_pages() as pages:
        got = [await pages.fetch(url, timeout_s=5, bytes_max=1_000) for _ in range(3)]

    assert got == [PAGE] * 3
    assert server.connections == 1
    assert b"Accept-Encoding: identity" in server.requests[0]
    assert b"User-Agent: remediator/test" in server.requests[0]


@pytest.mark.asyncio
async def test_fetch_closes_connections_that_it_may_not_keep():
    """Ten thousand idle connections need as many file descriptors."""
    server = Server(answer())
    async with serving(server) as url, some_pages(keepalive_s=0) as pages:
        for _ in range(3):
            await pages.fetch(url, timeout_s=5, bytes_max=1_000)

    assert server.connections == 3


@pytest.mark.parametrize("size", [999, 1_000, 1_001], ids=["below", "at", "above"])
@pytest.mark.asyncio
async def test_fetch_bounds_the_page(size):
    """Exactly at the limit the page is whole."""
    server = Server(answer(b"x" * size))
    if size <= 1_000:
        assert await fetch(server, bytes_max=1_000) == b"x" * size
    else:
        with pytest.raises(PageError, match="page of more than 1000 bytes"):
            await fetch(server, bytes_max=1_000)


@pytest.mark.asyncio
async def test_fetch_ends_an_endless_page():
    """A page without end must cost its limit and not our memory."""

    async def endless(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
            await writer.drain()

    with pytest.raises(PageError, match="page of more than 200000 bytes") as caught:
        await fetch(endless, bytes_max=200_000)

    assert caught.value.kind == "TooLarge"


@pytest.mark.parametrize(
    "begin",
    [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"],
    ids=["no answer", "half the headers", "half the page"],
)
@pytest.mark.asyncio
async def test_fetch_gives_up_on_a_server_that_drips(begin):
    """Each byte comes in time, the page never does: the time-out covers all."""

    async def drip(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(begin)
        while True:
            try:
                await asyncio.wait_for(reader.read(1), 0.02)
                return  # the client hung up
            except TimeoutError:
                writer.write(b"" if not begin else b"x" if b"Length" in begin else b"x: y\r\n")

    with pytest.raises(PageError, match=r"no complete page within 0\.2 s"):
        await fetch(drip, timeout_s=0.2)


@pytest.mark.asyncio
async def test_fetch_follows_no_redirect():
    """A page from elsewhere is another node's page."""
    reply = answer(status="302 Found", headers=["Location: http://127.0.0.1:1/other"])

    with pytest.raises(PageError, match=r"HTTP 302 to http://127\.0\.0\.1:1/other \(not followed\)"):
        await fetch(Server(reply))


@pytest.mark.parametrize("status", ["206 Partial Content", "404 Not Found", "500 Oops", "503 Busy"])
@pytest.mark.asyncio
async def test_fetch_takes_only_200(status):
    """An error page may look like a page."""
    with pytest.raises(PageError, match=f"HTTP {status[:3]}"):
        await fetch(Server(answer(status=status)))


@pytest.mark.asyncio
async def test_fetch_refuses_a_packed_page():
    """What was not asked for is not unpacked: a small packed page may be a large one."""
    with pytest.raises(PageError, match="Content-Encoding 'gzip'"):
        await fetch(Server(answer(b"\x1f\x8b", headers=["Content-Encoding: gzip"])))


@pytest.mark.parametrize(
    "reply",
    [b"nonsense\r\n\r\n", answer()[:-5]],
    ids=["not HTTP", "ends early"],
)
@pytest.mark.asyncio
async def test_fetch_translates_broken_answers(reply):
    """Whatever the client library raises, callers know one kind of error."""

    async def once(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)

    with pytest.raises(PageError, match=r"^http://127\.0\.0\.1:"):
        await fetch(once)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/metrics", "http://[bad/", "nonsense", "http://x..y/", "ftp://127.0.0.1/"]
)
@pytest.mark.asyncio
async def test_fetch_translates_refused_and_bad_addresses(url):
    """A typing error in the policy must not end the scraper."""
    async with some_pages() as pages:
        with pytest.raises(PageError) as caught:
            await pages.fetch(url, timeout_s=5, bytes_max=1_000)

    assert str(caught.value).startswith(url)


@pytest.mark.asyncio
async def test_fetch_waits_for_a_connection_within_its_time_out():
    """The wait in front of a full pool counts, or a fetch could take for ever."""
    held = asyncio.Event()

    async def hang(reader, writer):
        await held.wait()

    async with serving(hang) as url, some_pages(connections_max=1) as pages:
        fetches = [pages.fetch(url, timeout_s=0.2, bytes_max=1_000) for _ in range(3)]
        results = await asyncio.gather(*fetches, return_exceptions=True)
        held.set()

    assert [type(result) for result in results] == [PageError] * 3
