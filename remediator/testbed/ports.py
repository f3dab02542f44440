"""Free TCP ports on 127.0.0.1 that stay ours until the program that uses them listens."""

from __future__ import annotations

import socket


class ReservedPorts:
    """Holds ports by bound sockets that never listen.

    Both our socket and a Go listener set SO_REUSEADDR, so the program can bind the port while it
    is still held; the kernel hands it to nobody who asks for *any* port, outgoing connections
    included. Picking a number and closing the socket, the usual way, loses that race now and then.
    """

    def __init__(self) -> None:
        self._sockets: dict[int, socket.socket] = {}

    def take(self) -> int:
        """Reserve one more port and return its number."""
        held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        port = int(held.getsockname()[1])
        self._sockets[port] = held
        return port

    def release(self) -> None:
        """Let go of all of them; each program listens by now, or never will."""
        for held in self._sockets.values():
            held.close()
        self._sockets.clear()
