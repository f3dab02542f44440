"""A raw TCP pipe in front of one server of this machine, with valves: for what networks do to connections.

It sees bytes and connections only, never what is in them, so TLS passes through untouched and the
certificate of 127.0.0.1 is good for it. Which connection is which is told by how its bytes flow.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from remediator.errors import PermanentError
from remediator.testbed.waiting import monotonic

T = TypeVar("T")

LINKS_MAX: Final = 1024
CHUNK_BYTES: Final = 64 * 1024
CHUNKS_MAX: Final = 64  # held per direction; what is more waits in the sender's own buffers
UNASKED_AFTER_S: Final = 0.5
# The server drops a request whose client is gone; one that was held back gets time to be done.
LAST_WORDS_S: Final = 1.0
CALL_S_MAX: Final = 10.0
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER that makes a close a RST


@dataclass(frozen=True, slots=True)
class Link:
    """One connection as it flows: what a valve may choose by.

    ``number`` counts from 1 in the order of connecting. ``silent_up_s`` is the time since the client
    last sent anything. ``spoke_unasked``: the server sent something when nothing had been asked for
    half a second, as only a watch does.
    """

    number: int
    silent_up_s: float
    spoke_unasked: bool


Chosen = Callable[[Link], bool]


def every(link: Link) -> bool:
    """All connections."""
    del link
    return True


def watches(link: Link) -> bool:
    """Connections on which the server spoke unasked: make each kind of object change once before."""
    return link.spoke_unasked


class _Way:
    """One direction of one connection."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.delay_s = 0.0
        self.dropping = False
        self.last_at = monotonic()
        self._queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(CHUNKS_MAX)

    async def take_in(self, reader: asyncio.StreamReader, seen: Callable[[], None]) -> None:
        """Read until the end; an empty chunk marks it."""
        while True:
            try:
                data = await reader.read(CHUNK_BYTES)
            except OSError:
                data = b""
            if data:
                seen()
            await self._queue.put((monotonic() + self.delay_s, data))
            if not data:
                return

    async def give_out(self, writer: asyncio.StreamWriter) -> bool:
        """Write until the end; False where a chunk had to be dropped instead."""
        held = False
        while True:
            due, data = await self._queue.get()
            held = held or not self.open.is_set()
            await self.open.wait()
            await asyncio.sleep(max(0.0, due - monotonic()))
            if not data:
                await asyncio.sleep(LAST_WORDS_S if held else 0)
                return True
            if self.dropping:
                return False
            writer.write(data)
            with suppress(OSError):
                await writer.drain()


class _Connection:
    """A client's connection and ours to the server."""

    def __init__(self, number: int, client: asyncio.StreamWriter) -> None:
        self.number = number
        self.up, self.down = _Way(), _Way()
        self.spoke_unasked = False
        self._writers = [client]

    def facts(self) -> Link:
        return Link(self.number, monotonic() - self.up.last_at, self.spoke_unasked)

    async def run(self, reader: asyncio.StreamReader, port: int) -> bool:
        """Carry bytes both ways until one side ends. False: no server, or a reply was dropped."""
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        self._writers.append(to_server)
        client = self._writers[0]
        intakes = [
            asyncio.create_task(self.up.take_in(reader, self._asked)),
            asyncio.create_task(self.down.take_in(from_server, self._answered)),
        ]
        outlets = [
            asyncio.create_task(self.up.give_out(to_server)),
            asyncio.create_task(self.down.give_out(client)),
        ]
        try:
            done, _ = await asyncio.wait(outlets, return_when=asyncio.FIRST_COMPLETED)
            return all(task.result() for task in done)
        finally:
            for task in (*intakes, *outlets):
                task.cancel()
            await asyncio.gather(*intakes, *outlets, return_exceptions=True)

    def _asked(self) -> None:
        self.up.last_at = monotonic()

    def _answered(self) -> None:
        self.down.last_at = now = monotonic()
        self.spoke_unasked |= now - self.up.last_at > UNASKED_AFTER_S

    def close(self) -> None:
        """Close both connections once what was written is out."""
        for writer in self._writers:
            writer.close()

    def cut(self) -> None:
        """Reset both connections."""
        for writer in self._writers:
            raw = writer.get_extra_info("socket")
            with suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()


class Pipe:
    """Carries connections to ``port`` of 127.0.0.1; a thread of its own does the work.

    Valves act on the connections that there are, of those that ``chosen`` picks, and stay until
    ``resume``. New connections are carried as usual, but for ``accept_only`` and ``delay``.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="pipe", daemon=True)
        self._server: asyncio.Server | None = None
        self._links: dict[int, _Connection] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._accept_only = False
        self._delay_s = 0.0
        self._accepted = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._open())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_S_MAX)
        self._loop.close()

    # -- what is seen

    @property
    def port(self) -> int:
        """Where it listens, on 127.0.0.1."""
        if self._server is None:
            raise PermanentError("the pipe is not open")
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        """What a kubeconfig names instead of the API server."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def accepted(self) -> int:
        """How many connections were opened to it so far."""
        return self._accepted

    def links(self) -> list[Link]:
        """The connections that there are, oldest first."""

        async def look() -> list[Link]:
            return [link.facts() for link in self._links.values()]

        return self._call(look())

    # -- valves

    def hold_requests(self, chosen: Chosen = every) -> int:
        """Let nothing more through to the server. Return how many connections that concerns.

        What is held goes out with ``resume``, also where the client has given up meanwhile.
        """
        return self._turn(chosen, lambda link: link.up.open.clear())

    def hold_replies(self, chosen: Chosen = every) -> int:
        """Let nothing more through to the client: with ``watches``, they freeze."""
        return self._turn(chosen, lambda link: link.down.open.clear())

    def drop_replies(self, chosen: Chosen = every) -> int:
        """Drop the next thing that the server says, and reset the connection."""

        def turn(link: _Connection) -> None:
            link.down.dropping = True

        return self._turn(chosen, turn)

    def cut(self, chosen: Chosen = every) -> int:
        """Reset connections."""
        return self._turn(chosen, lambda link: link.cut())

    def accept_only(self) -> None:
        """From now on accept connections and say nothing: the server's host hangs."""
        self._accept_only = True

    def delay(self, seconds: float) -> None:
        """Carry every byte, in each direction, so much later; on new connections too."""
        self._delay_s = seconds

        def turn(link: _Connection) -> None:
            link.up.delay_s = link.down.delay_s = seconds

        self._turn(every, turn)

    def resume(self) -> None:
        """Open all valves. Connections that were only accepted are reset."""
        self._accept_only = False
        self.delay(0.0)

        def turn(link: _Connection) -> None:
            link.down.dropping = False
            link.up.open.set()
            link.down.open.set()

        self._turn(every, turn)

    def _turn(self, chosen: Chosen, turn: Callable[[_Connection], None]) -> int:
        async def turn_all() -> int:
            concerned = [link for link in self._links.values() if chosen(link.facts())]
            for link in concerned:
                turn(link)
            return len(concerned)

        return self._call(turn_all())

    # -- in the pipe's own thread

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_S_MAX)

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._accepted += 1
        link = _Connection(self._accepted, client)
        link.up.delay_s = link.down.delay_s = self._delay_s
        self._links[link.number] = link
        clean = False
        try:
            if self._accept_only or len(self._links) > LINKS_MAX:
                await self._say_nothing(reader)
            else:
                clean = await link.run(reader, self._target)
        except asyncio.CancelledError:
            pass  # the pipe closes; a handler that ends cancelled would be told as an error
        finally:
            del self._links[link.number]
            # The last bytes of a clean end must arrive: a reset would throw them away.
            link.close() if clean else link.cut()

    async def _say_nothing(self, reader: asyncio.StreamReader) -> None:
        with suppress(OSError):
            while await reader.read(CHUNK_BYTES):
                pass
