"""One story against two servers: the real one in real time, and the simulated one in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from remediator.adapters.kube.transport import KubeTransport
from remediator.adapters.kube.wire import close_lines
from remediator.app.simulation import shipped_objects
from remediator.ports import Clock, Lane, Transport
from remediator.sim.loop import run_virtual, virtual_clock
from remediator.sim.patches import MERGE
from remediator.sim.request import User
from remediator.sim.server import Server
from remediator.sim.transport import SimTransport
from remediator.testbed.api import Api
from remediator.testbed.launcher import ControlPlane
from tests.contract.live import CLOCK, ROOT, WAIT_S, connected, install_crds, remove_nodes

T = TypeVar("T")
Json = dict[str, Any]

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
NOTES = "/api/v1/namespaces/default/configmaps"
POOLS = f"{ROOT}/resourcepools"
ADMIN = User("admin", ("system:masters", "system:authenticated"))


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    code: int
    body: Json

    @property
    def meta(self) -> Json:
        found: Json = self.body["metadata"]
        return found

    @property
    def version(self) -> str:
        return str(self.meta["resourceVersion"])


@dataclass(frozen=True, slots=True)
class Client:
    """The verbs of a story. ``group`` is a name of its own, for whatever it makes."""

    transport: Transport
    clock: Clock
    group: str

    @property
    def short(self) -> str:
        """The end of it, where a name must be shorter."""
        return self.group[-40:].strip("-")

    async def send(
        self, method: str, path: str, body: object = None, *, content_type: str = "", **query: str
    ) -> Reply:
        sent = None if body is None else msgspec.json.encode(body)
        headers = {"Content-Type": content_type} if content_type else {}
        found = await self.transport.request(
            method, path, query=query, headers=headers, body=sent, timeout_s=20.0, lane=Lane.NORMAL
        )
        # An unknown path is answered in plain text.
        is_json = found.headers["content-type"].startswith("application/json")
        return Reply(found.status, msgspec.json.decode(found.body) if is_json else {})

    async def get(self, path: str, **query: str) -> Reply:
        return await self.send("GET", path, **query)

    async def post(self, path: str, body: Json, **query: str) -> Reply:
        return await self.send("POST", path, body, **query)

    async def put(self, path: str, body: Json, **query: str) -> Reply:
        return await self.send("PUT", path, body, **query)

    async def patch(self, path: str, body: object, content_type: str = MERGE, **query: str) -> Reply:
        return await self.send("PATCH", path, body, content_type=content_type, **query)

    async def delete(self, path: str, body: Json | None = None, **query: str) -> Reply:
        return await self.send("DELETE", path, body, **query)

    @asynccontextmanager
    async def watch(self, path: str, **query: str) -> AsyncIterator[Callable[[], Awaitable[Json]]]:
        """Open a watch; what it yields waits for the next event."""
        lines = self.transport.stream(
            path, query={"watch": "1", **query}, connect_timeout_s=10.0, idle_timeout_s=130.0
        )

        async def event() -> Json:
            found: Json = msgspec.json.decode(await anext(lines))
            return found

        try:
            yield event
        finally:
            await close_lines(lines)


def custom_resources() -> tuple[Json, ...]:
    """The shipped definitions."""
    return tuple(item for item in shipped_objects() if item["kind"] == "CustomResourceDefinition")


def a_note(client: Client, **data: str) -> Json:
    """An object that nobody else writes: node lifecycle has a hand in every Node."""
    meta = {"name": client.short, "labels": {"test-group": client.group}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


Story = Callable[[Client], Coroutine[Any, Any, T]]
Play = Callable[[Story[None]], None]


def play_simulated(story: Story[None], group: str) -> None:
    """On a server of its own, with the shipped custom resources."""

    async def main() -> None:
        clock = virtual_clock()
        server = Server(clock, seed=7)
        client = Client(SimTransport(server, ADMIN, clock=clock, seed=7), clock, group)
        for definition in custom_resources():
            made = await client.post(DEFINITIONS, definition)
            assert made.code == 201, made
        await story(client)

    run_virtual(main())


def play_real(story: Story[None], group: str, kubeconfig: Path) -> None:
    """On the control plane that all contract tests share."""

    async def main() -> None:
        transport: KubeTransport
        async with connected(kubeconfig) as transport:
            await story(Client(transport, CLOCK, group))

    asyncio.run(main())


@contextmanager
def playing(request: pytest.FixtureRequest) -> Iterator[Play]:
    """What the fixture ``play`` of each module yields, for its parameter."""
    group = request.node.originalname.replace("_", "-")[-50:].strip("-")
    if request.param == "simulated":
        yield lambda story: play_simulated(story, group)
        return
    plane: ControlPlane = request.getfixturevalue("control_plane")
    api: Api = request.getfixturevalue("api")
    install_crds(api)
    account = "/api/v1/namespaces/default/serviceaccounts/default"  # no pod is taken before it is there
    api.wait_for(account, bool, timeout_s=WAIT_S)
    yield lambda story: play_real(story, group, plane.kubeconfig)
    remove_nodes(api, group)
    for path in (f"{POOLS}/{group}", f"{NOTES}/{group[-40:].strip('-')}"):
        if api.find(path) is not None:
            api.remove(path)


BOTH = ["simulated", pytest.param("real", marks=pytest.mark.real_server)]
