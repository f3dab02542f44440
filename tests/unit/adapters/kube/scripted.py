"""An API server of a few lines behind the transport seam: it says what the test wrote down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from remediator.errors import TransientError
from remediator.ports import Clock, Lane, Response


class Silence:
    """The connection stays open and nothing comes."""


class End:
    """The server ends the body cleanly."""


@dataclass(frozen=True)
class Pause:
    """The stream says nothing for a while, and then goes on."""

    seconds: float


Item = bytes | Exception | Silence | End | Pause


@dataclass
class Asked:
    """One request or stream as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    lane: Lane | None = None
    timeout_s: float = 0.0
    at: float = 0.0

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Stream:
    """What one watch is going to say; more may be pushed while it is open."""

    def __init__(self, *items: Item) -> None:
        self._items: asyncio.Queue[Item] = asyncio.Queue()
        self.open = False
        self.push(*items)

    def push(self, *items: Item) -> None:
        for item in items:
            self._items.put_nowait(item)

    async def next(self) -> Item:
        return await self._items.get()


class ScriptedTransport:
    """``ports.Transport``. Streams are served in order; without one more a watch stays silent."""

    def __init__(self, clock: Clock) -> None:
        self.asked: list[Asked] = []
        self.streams: list[Stream] = []
        self.answer: Callable[[Asked], Response | Exception] = lambda asked: Response(404, {}, b"")
        self._clock = clock

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float,
        lane: Lane,
    ) -> Response:
        asked = Asked(method, path, dict(query or {}), dict(headers or {}), body or b"", lane, timeout_s)
        asked.at = self._clock.monotonic()
        self.asked.append(asked)
        answer = self.answer(asked)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def stream(
        self,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        connect_timeout_s: float,
        idle_timeout_s: float,
    ) -> AsyncIterator[bytes]:
        now = self._clock.monotonic()
        self.asked.append(Asked("WATCH", path, dict(query or {}), dict(headers or {}), at=now))
        stream = self.streams.pop(0) if self.streams else Stream(Silence())
        stream.open = True
        try:
            while True:
                match await stream.next():
                    case bytes() as line:
                        yield line
                    case Exception() as error:
                        raise error
                    case Silence():
                        await self._clock.sleep(idle_timeout_s)
                        raise TransientError(f"WATCH {path}: silent")
                    case Pause(seconds=seconds):
                        await self._clock.sleep(seconds)
                    case End():
                        return
        finally:
            stream.open = False

    @property
    def watches(self) -> list[Asked]:
        return [each for each in self.asked if each.method == "WATCH"]

    @property
    def lists(self) -> list[Asked]:
        return [each for each in self.asked if each.method == "GET"]


def json_reply(status: int, body: object) -> Response:
    return Response(status, {}, msgspec.json.encode(body))


def a_node(name: str, version: int, **spec: object) -> dict[str, Any]:
    """A Node as JSON; ``spec`` may bring labels, conditions, taints, unschedulable."""
    conditions = spec.pop("conditions", [{"type": "Ready", "status": "True", "reason": "KubeletReady"}])
    return {
        "kind": "Node",
        "metadata": {
            "name": name,
            "uid": f"uid-{name}",
            "resourceVersion": str(version),
            "labels": spec.pop("labels", {}),
        },
        "spec": spec,
        "status": {"conditions": conditions},
    }


def an_event(type_: str, body: object) -> bytes:
    return msgspec.json.encode({"type": type_, "object": body})


def a_bookmark(version: int, *, initial_end: bool = False) -> bytes:
    annotations = {"annotations": {"k8s.io/initial-events-end": "true"}} if initial_end else {}
    metadata = {"resourceVersion": str(version), **annotations}
    return an_event("BOOKMARK", {"kind": "Node", "metadata": metadata, "spec": {}, "status": {}})


def a_page(version: int, *items: object, token: str = "") -> Response:
    metadata = {"resourceVersion": str(version), **({"continue": token} if token else {})}
    return json_reply(200, {"kind": "NodeList", "metadata": metadata, "items": items})
