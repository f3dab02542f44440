"""The bare baseline: sees a condition, posts an intent, patches the node. No limits, no state, no checks.

    python -m bench.bare KUBECONFIG INTENT.json

The least that is safe: an intent that stands before the effect, and a patch that carries the
version of the node it was decided on. It runs as a process of its own, as the controller does.
"""

from __future__ import annotations

import asyncio
import json
import sys
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from bench.wire import MERGE_PATCH, RawApi
from remediator.errors import PermanentError

CONDITION: Final = "BareFault"
TAINT: Final = "bench.example.com/quarantine"
INTENTS: Final = "/apis/bench.example.com/v1alpha1/intents"
NODES: Final = "/api/v1/nodes"
READY: Final = "watching"
ATTEMPTS_MAX: Final = 5
AT_ONCE: Final = 64  # as many connections as the controller has for what is urgent


class _Meta(Struct, rename="camel"):
    name: str
    resource_version: str


class _Condition(Struct):
    type: str
    status: str


class _Status(Struct, frozen=True):
    conditions: tuple[_Condition, ...] = ()


class _Spec(Struct, frozen=True):
    taints: tuple[dict[str, Any], ...] = ()


class _Node(Struct):
    metadata: _Meta
    status: _Status = _Status()
    spec: _Spec = _Spec()


class _Event(Struct):
    type: str
    object: _Node


async def run(kubeconfig: Path, intent: dict[str, Any]) -> None:
    """Answer every condition, until it is ended."""
    decoder = msgspec.json.Decoder(_Event)
    answered: set[str] = set()
    number = 0
    at_once = asyncio.Semaphore(AT_ONCE)
    async with RawApi(kubeconfig) as api, asyncio.TaskGroup() as group:
        listed = msgspec.json.decode(await api.send("GET", f"{NODES}?limit=1"))
        version = listed["metadata"]["resourceVersion"]
        print(READY, flush=True)
        while True:  # the server cuts off a watcher that is too slow in a burst
            async for line in api.watch(f"{NODES}?watch=1&resourceVersion={version}"):
                node = decoder.decode(line).object
                name, version = node.metadata.name, node.metadata.resource_version
                if not any(
                    each.type == CONDITION and each.status == "True" for each in node.status.conditions
                ):
                    answered.discard(name)
                elif name not in answered:
                    answered.add(name)
                    number += 1
                    made = {**intent, "metadata": {"name": f"{name}-{number}"}}
                    group.create_task(_answer(api, node, made, at_once))


async def _answer(api: RawApi, node: _Node, intent: dict[str, Any], at_once: asyncio.Semaphore) -> None:
    async with at_once:
        await _answer_now(api, node, intent)


async def _answer_now(api: RawApi, node: _Node, intent: dict[str, Any]) -> None:
    await api.send("POST", INTENTS, msgspec.json.encode(intent))
    path = f"{NODES}/{node.metadata.name}"
    for _ in range(ATTEMPTS_MAX):
        try:
            await api.send("PATCH", path, _patch(node), content_type=MERGE_PATCH)
            return
        except PermanentError as error:
            if error.status != HTTPStatus.CONFLICT:
                raise
        # Somebody else wrote in between: a heartbeat, most often.
        node = msgspec.json.decode(await api.send("GET", path), type=_Node)


def _patch(node: _Node) -> bytes:
    taint = {"key": TAINT, "value": "bare", "effect": "NoSchedule"}
    return msgspec.json.encode(
        {
            "metadata": {"resourceVersion": node.metadata.resource_version},
            "spec": {"taints": [*node.spec.taints, taint], "unschedulable": True},
        }
    )


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_bytes())))
