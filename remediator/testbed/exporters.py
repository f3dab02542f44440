"""Serves the fake exporters over HTTP: one thread, one loop, any number of nodes.

Every node's page is at ``/nodes/<node>/metrics`` of the base address and, on request, at
``/metrics`` of a loopback address of its own, all with one port, so that discovery by an address
template can be tried. ``POST /control`` changes what they show. Listens on loopback only.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import json
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import FrameType, TracebackType
from typing import Final, Self

from aiohttp import web

from remediator.errors import PermanentError, RemediatorError
from remediator.fleet.exporter_state import ExporterStates
from remediator.fleet.layout import (
    standard_fleet,
)
from remediator.fleet.machines import address_for, machine_for
from remediator.fleet.pages import Trouble
from remediator.testbed.exporter_answers import send
from remediator.testbed.exporter_control import CONTROL_BYTES_MAX, apply_operation
from remediator.testbed.waiting import monotonic

BASE_HOST: Final = "127.0.0.1"
CALL_S_MAX: Final = 30.0
NODES_MAX: Final = 20_000


class ExporterServer:
    """Runs the server in a thread of its own.

    Args:
        states: what to show; change it from any thread while the server runs.
        port: of the base address; 0 picks a free one.
        addresses: loopback address of each node, or None to serve under the base address only.
        node_port: port of all these addresses; 0 picks one.
        control: does what one message to ``/control`` asks for; None for changes of ``states``.
    """

    def __init__(
        self,
        states: ExporterStates,
        *,
        port: int = 0,
        addresses: dict[str, str] | None = None,
        node_port: int = 0,
        control: Callable[[object], None] | None = None,
    ) -> None:
        for node, address in (addresses or {}).items():
            _check_loopback(node, address)
        self.states = states
        self.port = port
        self.node_port = node_port
        self._apply = control or partial(apply_operation, states)
        self._addresses = dict(addresses or {})
        self._nodes = {address: node for node, address in self._addresses.items()}
        self._listeners: dict[str, asyncio.Server] = {}
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._server: web.Server | None = None  # needs the running loop
        self._thread = threading.Thread(target=self._run, name="exporters", daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://{BASE_HOST}:{self.port}"

    @property
    def address_template(self) -> str:
        """For discovery by node address: ``{address}`` stands for the node's internal address."""
        return f"http://{{address}}:{self.node_port}/metrics"

    def url(self, node: str) -> str:
        """Where the page of ``node`` is, under the base address."""
        return f"{self.base_url}/nodes/{node}/metrics"

    def start(self) -> None:
        """Listen; return when every address answers. Harmless when it runs already.

        Raises:
            OSError: a port is taken, or the system allows no more sockets.
        """
        if self._thread.ident is not None:
            return
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(CALL_S_MAX)
        except BaseException:
            self.stop()
            raise
        self.states.on_reach(self._reach)

    def stop(self) -> None:
        """Close everything and join the thread. Harmless when called twice."""
        if self._thread.ident is None or self._loop.is_closed():
            return
        self.states.on_reach(None)
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(CALL_S_MAX)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_S_MAX)
        self._loop.close()

    def listen(self, node: str, address: str) -> None:
        """Serve the page of ``node`` at this loopback address, and at no other one but the base.

        For discovery by pod: pods of the test bed have addresses in 127.8.0.0/16.
        """
        _check_loopback(node, address)
        self.states.machine(node)  # refuses an unknown node
        asyncio.run_coroutine_threadsafe(self._move(node, address), self._loop).result(CALL_S_MAX)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _open(self) -> None:
        self._server = web.Server(self._serve, access_log=None)
        base = await self._loop.create_server(self._server, BASE_HOST, self.port, backlog=1024)
        self.port = base.sockets[0].getsockname()[1]
        self._listeners[""] = base
        for node in self._addresses:
            await self._listen(node)

    async def _listen(self, node: str) -> None:
        if node in self._listeners or self._server is None:
            return
        server = await self._loop.create_server(self._server, self._addresses[node], self.node_port)
        self.node_port = server.sockets[0].getsockname()[1]
        self._listeners[node] = server

    async def _move(self, node: str, address: str) -> None:
        if node in self._listeners:
            self._listeners.pop(node).close()
        self._nodes.pop(self._addresses.get(node, ""), None)
        self._addresses[node] = address
        self._nodes[address] = node
        if self.states.trouble(node) is not Trouble.DOWN:
            await self._listen(node)

    async def _close(self) -> None:
        self._stopping.set()
        for server in self._listeners.values():
            server.close()
        self._listeners.clear()
        if self._server is not None:
            await self._server.shutdown(timeout=1.0)
        await self._loop.shutdown_default_executor()

    def _reach(self, node: str, up: bool) -> None:
        # Called by whichever thread changes the state. The change must have happened when it returns;
        # else a test that takes an exporter down could still be answered.
        if node in self._addresses:
            asyncio.run_coroutine_threadsafe(self._set_reach(node, up), self._loop).result(CALL_S_MAX)

    async def _set_reach(self, node: str, up: bool) -> None:
        if up:
            await self._listen(node)
        elif node in self._listeners:
            self._listeners.pop(node).close()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        if path == "/metrics":
            return await self._page(request, self._nodes.get(_own_address(request), ""))
        if path.startswith("/nodes/") and path.endswith("/metrics"):
            return await self._page(request, path[len("/nodes/") : -len("/metrics")])
        if path == "/control" and request.method == "POST":
            return await self._control(request)
        if path == "/healthz":
            return web.Response(text="ok")
        if path == "/nodes":
            return web.json_response({node: self.states.trouble(node).value for node in self.states.nodes})
        return web.Response(status=404, text=f"nothing at {path}; try /nodes\n")

    async def _page(self, request: web.BaseRequest, node: str) -> web.StreamResponse:
        try:
            answer = self.states.answer(node)
        except PermanentError as error:
            return web.Response(status=404, text=f"{error}\n")
        if answer.slow_s:
            await self._pause(answer.slow_s)
        return await send(request, answer, stopping=self._stopping)

    async def _control(self, request: web.BaseRequest) -> web.Response:
        body = await request.content.read(CONTROL_BYTES_MAX + 1)
        try:
            wanted = json.loads(body) if len(body) <= CONTROL_BYTES_MAX else None
            # In a thread: taking an exporter down waits for this very loop.
            await self._loop.run_in_executor(None, self._apply, wanted)
        except (PermanentError, ValueError) as error:
            return web.json_response({"error": str(error)}, status=400)
        except RemediatorError as error:
            return web.json_response({"error": str(error)}, status=503)
        return web.json_response({"done": True})

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return


def serve(
    nodes: Sequence[str], *, port: int = 0, per_node_addresses: bool = False, node_port: int = 9400
) -> ExporterServer:
    """Start a server for healthy machines with these names; the caller stops it.

    Args:
        nodes: names; their order gives each its loopback address (``machines.address_for``).
        port: of the base address; 0 picks a free one.
        per_node_addresses: also listen on one address per node.
        node_port: port of these addresses; 0 picks one.
    """
    if not 1 <= len(nodes) <= NODES_MAX:
        raise PermanentError(f"{len(nodes)} nodes; 1 to {NODES_MAX} can be served")
    machines = [machine_for(node) for node in nodes]
    addresses = {node: address_for(index) for index, node in enumerate(nodes)}
    server = ExporterServer(
        ExporterStates(machines, clock=monotonic),
        port=port,
        addresses=addresses if per_node_addresses else None,
        node_port=node_port,
    )
    server.start()
    return server


def main(arguments: Iterable[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m remediator.testbed.exporters", description=__doc__)
    parser.add_argument(
        "--nodes", required=True, help="names with commas between, or how many, or 'standard'"
    )
    parser.add_argument("--port", type=int, default=9401, help="of 127.0.0.1; 0 picks a free one")
    parser.add_argument("--per-node-addresses", action="store_true", help="listen at 127.9.x.y as well")
    parser.add_argument("--node-port", type=int, default=9400, help="port of these addresses")
    options = parser.parse_args(None if arguments is None else list(arguments))
    nodes = _named(options.nodes)
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        del number, frame
        stop.set()

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    server = serve(
        nodes,
        port=options.port,
        per_node_addresses=options.per_node_addresses,
        node_port=options.node_port,
    )
    # One line for a program that started us: base URL, then the template of the nodes' own addresses.
    template = server.address_template if options.per_node_addresses else ""
    sys.stdout.write(f"{server.base_url} {template}".rstrip() + "\n")
    sys.stdout.flush()
    stop.wait()
    server.stop()
    return 0


def _named(text: str) -> list[str]:
    if text == "standard":
        return [spec.name for spec in standard_fleet()]
    if text.isdigit():
        return [f"gpu-{number:04d}" for number in range(1, int(text) + 1)]
    return text.split(",")


def _check_loopback(node: str, address: str) -> None:
    if not ipaddress.ip_address(address).is_loopback:
        raise PermanentError(f"{node}: {address} is not a loopback address; use one of 127.0.0.0/8")


def _own_address(request: web.BaseRequest) -> str:
    name = request.transport.get_extra_info("sockname") if request.transport else None
    return name[0] if name else ""


if __name__ == "__main__":
    raise SystemExit(main())
