"""The valves of the pipe do to connections what networks do, and nothing to those that were not chosen."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest

from remediator.testbed.pipe import Pipe, watches
from remediator.testbed.waiting import wait_until

QUICK_S = 0.1
LAST = b"x" * 1_000_000  # more than any buffer on the way takes at once


class Echo:
    """A server that answers each line with itself, and speaks when told to."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.clients: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._threads: list[threading.Thread] = []
        self._start(self._serve)

    def _start(self, work: Callable[..., None], *arguments: socket.socket) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.clients.append(client)
            self._start(self._answer, client)

    def _answer(self, client: socket.socket) -> None:
        try:
            while data := client.recv(4096):
                self.heard.append(data)
                client.sendall(data)
        except OSError:
            return

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for client in self.clients:
            client.close()
        for thread in self._threads:
            thread.join(5)


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def pipe(echo: Echo) -> Iterator[Pipe]:
    with Pipe(echo.port) as opened:
        yield opened


@pytest.fixture
def connect(pipe: Pipe) -> Iterator[list[socket.socket]]:
    """Clients of the pipe, as many as a test opens; closed at its end."""
    clients: list[socket.socket] = []
    yield clients
    for client in clients:
        client.close()


def a_client(pipe: Pipe, clients: list[socket.socket]) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", pipe.port), timeout=5)
    clients.append(client)
    return client


def ask(client: socket.socket, text: bytes) -> bytes:
    client.sendall(text)
    return client.recv(4096)


def is_silent(client: socket.socket) -> bool:
    client.settimeout(QUICK_S)
    try:
        return client.recv(4096) is None
    except TimeoutError:
        return True
    finally:
        client.settimeout(5)


def test_pipe_carries_bytes_both_ways(pipe: Pipe, connect: list[socket.socket]) -> None:
    """Without a valve it must not be noticed."""
    client = a_client(pipe, connect)

    assert ask(client, b"hello") == b"hello"
    assert pipe.accepted == 1
    assert [link.number for link in pipe.links()] == [1]


def test_held_request_goes_out_with_resume(pipe: Pipe, echo: Echo, connect: list[socket.socket]) -> None:
    """The write of an old leader arrives late: its client has long given up."""
    client = a_client(pipe, connect)
    ask(client, b"first")
    assert pipe.hold_requests() == 1
    client.sendall(b"late")
    assert is_silent(client)
    client.close()
    assert echo.heard == [b"first"]

    pipe.resume()
    wait_until(lambda: echo.heard == [b"first", b"late"], timeout_s=5, what="the held request")


def test_held_replies_freeze_the_chosen_only(pipe: Pipe, connect: list[socket.socket]) -> None:
    """A watch freezes while the Lease goes on."""
    frozen, free = a_client(pipe, connect), a_client(pipe, connect)
    ask(frozen, b"1")
    ask(free, b"2")
    first = pipe.links()[0].number

    assert pipe.hold_replies(lambda link: link.number == first) == 1
    assert ask(free, b"still here") == b"still here"
    frozen.sendall(b"anybody?")
    assert is_silent(frozen)
    pipe.resume()
    assert frozen.recv(4096) == b"anybody?"


def test_dropped_reply_resets_after_the_request_landed(
    pipe: Pipe, echo: Echo, connect: list[socket.socket]
) -> None:
    """Committed, and nobody was told."""
    client = a_client(pipe, connect)
    ask(client, b"first")
    pipe.drop_replies()

    client.sendall(b"second")
    with pytest.raises(ConnectionResetError):
        client.recv(4096)
    assert echo.heard == [b"first", b"second"]


def test_accept_only_connects_and_says_nothing(pipe: Pipe, echo: Echo, connect: list[socket.socket]) -> None:
    """A half-open server: the connection stands, and no byte comes."""
    pipe.accept_only()
    client = a_client(pipe, connect)
    client.sendall(b"hello?")

    assert is_silent(client)
    assert echo.heard == []


def test_reset_of_the_client_ends_the_link(pipe: Pipe, echo: Echo, connect: list[socket.socket]) -> None:
    """A client that is killed must not leave its last bytes going round for ever."""
    client = a_client(pipe, connect)
    ask(client, b"first")
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()

    wait_until(lambda: not pipe.links(), timeout_s=5, what="the end of the link")
    assert echo.heard == [b"first"]


def test_last_bytes_of_a_clean_end_arrive(pipe: Pipe, echo: Echo, connect: list[socket.socket]) -> None:
    """A server that answers and closes has answered."""
    client = a_client(pipe, connect)
    ask(client, b"first")
    echo.clients[0].sendall(LAST)
    echo.clients[0].shutdown(socket.SHUT_WR)
    found = b""
    while data := client.recv(65_536):
        found += data

    assert found == LAST


def test_cut_resets(pipe: Pipe, connect: list[socket.socket]) -> None:
    """A reset is not a clean end."""
    client = a_client(pipe, connect)
    ask(client, b"first")
    assert pipe.cut() == 1

    with pytest.raises(ConnectionResetError):
        client.recv(4096)


def test_delay_holds_every_byte_back(pipe: Pipe, connect: list[socket.socket]) -> None:
    """Latency is on the way there and on the way back."""
    client = a_client(pipe, connect)
    ask(client, b"first")
    pipe.delay(QUICK_S)
    client.sendall(b"second")

    assert is_silent(client)
    assert client.recv(4096) == b"second"


def test_server_that_speaks_unasked_is_told_apart(
    pipe: Pipe, echo: Echo, connect: list[socket.socket]
) -> None:
    """How a watch is told from a connection that waits in a pool, without looking inside."""
    for _ in range(2):  # one after the other, so that the server counts them as the pipe does
        ask(a_client(pipe, connect), b"hello")
    wait_until(
        lambda: all(link.silent_up_s > 0.6 for link in pipe.links()), timeout_s=5, what="half a second"
    )
    echo.clients[0].sendall(b"event")
    wait_until(lambda: any(map(watches, pipe.links())), timeout_s=5, what="the watch to be known")

    assert [link.number for link in pipe.links() if watches(link)] == [1]


def test_refused_connection_is_reset() -> None:
    """A server that is down must look down through the pipe, too."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
    with (
        Pipe(port) as pipe,
        pytest.raises(ConnectionResetError),  # the reset may even come before connect has returned
        socket.create_connection(("127.0.0.1", pipe.port), timeout=5) as client,
    ):
        client.recv(1)
