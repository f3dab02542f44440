"""Ports that the test bed keeps for programs which are not up yet."""

from __future__ import annotations

import socket

from remediator.testbed.ports import ReservedPorts


def test_reserved_port_can_be_listened_on_while_it_is_held():
    """That is what keeps it from everybody else until the program is up."""
    ports = ReservedPorts()
    port = ports.take()
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Go's listeners do
        server.bind(("127.0.0.1", port))
        server.listen()
        others = [ports.take() for _ in range(50)]

        assert port not in others
    ports.release()
