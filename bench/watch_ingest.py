"""Watch events per second and core: decode, keep, compare, diagnose; on lines of a real server.

The path is the product's own from the stream's lines on: reflector, store, indexes, diagnosis with
all shipped playbooks in force. Only the transport is replaced, by one that has the lines in memory.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final

import msgspec

from bench.context import Context
from bench.machine import ROOT
from bench.results import Finding, a_series, at_least
from bench.scene import Scene
from bench.wire import RawApi
from remediator.adapters.clock import SystemClock
from remediator.adapters.files.loader import load_objects
from remediator.adapters.telemetry.metrics import Metrics
from remediator.app.feeds import NODES, Feeds
from remediator.errors import ContractError
from remediator.model.playbook import Playbook
from remediator.model.policy import PolicySpec
from remediator.model.pool import ResourcePool
from remediator.ports import Response
from remediator.runtime.diagnosis import Diagnoses
from remediator.runtime.world import World

FLEET: Final = 66
EVENTS: Final = 5_000
ROUNDS: Final = 15
CLONES: Final = 15  # of each recorded node, so that no burst holds two events of one node
EVENTS_PER_S_MIN: Final = 10_000
LINE_BYTES_MIN: Final = 18_000
_TOUCH: Final = "bench.example.com/touched"


class _Versioned(msgspec.Struct):
    class Meta(msgspec.Struct, rename="camel"):
        resource_version: str

    metadata: Meta


class _Line(msgspec.Struct):
    type: str
    object: _Versioned


class Recorded:
    """``ports.Transport`` of one watch: the initial state, then the lines, then silence."""

    def __init__(self, initial: Sequence[bytes], lines: Sequence[bytes]) -> None:
        self._initial = initial
        self._lines = lines
        self.began_s = 0.0
        self.used_s = 0.0
        self.over = asyncio.Event()

    async def request(self, method: str, path: str, **_: Any) -> Response:
        raise ContractError(f"{method} {path}: nothing but a watch was recorded")

    async def stream(self, path: str, **_: Any) -> AsyncIterator[bytes]:
        if path != NODES:
            raise ContractError(f"GET {path}: only nodes were recorded")
        for line in self._initial:
            yield line
        await asyncio.sleep(1.0)  # until the first diagnosis of every node is done
        self.began_s = time.process_time()
        for line in self._lines:
            yield line
        await asyncio.sleep(0)
        self.used_s = time.process_time() - self.began_s
        self.over.set()
        await asyncio.Event().wait()


@dataclass(frozen=True, slots=True)
class Tape:
    """Watch lines of one fleet. ``heartbeats`` change times and versions only, ``changes`` a condition."""

    initial: list[bytes]
    heartbeats: list[bytes]
    changes: list[bytes]


def measure(context: Context) -> Finding:
    """Record, then play heartbeats, changes and two bare decoders in turns."""
    with Scene(context.directory / "scene", context.binaries, nodes=FLEET, size="full") as scene:
        lines = asyncio.run(_record(scene))
    tape = make_tape(lines, EVENTS)
    sizes = [len(line) for line in tape.heartbeats[:FLEET]]
    if min(sizes) < LINE_BYTES_MIN:
        raise RuntimeError(f"recorded lines of {min(sizes)} bytes; nodes should have 20 KB")
    found: dict[str, list[float]] = {name: [] for name in ("beats", "changes", "typed", "msgspec", "json")}
    for number in range(ROUNDS):
        found["beats"].append(asyncio.run(_ingest(tape.initial, tape.heartbeats, changes=0)))
        found["changes"].append(asyncio.run(_ingest(tape.initial, tape.changes, changes=EVENTS)))
        found["typed"].append(_bare(msgspec.json.Decoder(_Line).decode, tape.heartbeats))
        found["msgspec"].append(_bare(msgspec.json.decode, tape.heartbeats))
        found["json"].append(_bare(json.loads, tape.heartbeats))
        context.tell(f"round {number + 1} of {ROUNDS}: {found['beats'][-1]:.0f} events/s")
    series = (
        a_series("remediator, heartbeats", "1/s", found["beats"]),
        a_series("remediator, every event changes a condition", "1/s", found["changes"]),
        a_series("bare, msgspec into a type with the version only", "1/s", found["typed"]),
        a_series("bare, msgspec into dicts", "1/s", found["msgspec"]),
        a_series("bare, json into dicts", "1/s", found["json"]),
    )
    beats, changes = series[0].summary.p50, series[1].summary.p50
    return Finding(
        series=series,
        checks=(
            at_least("heartbeats per second and core", beats, EVENTS_PER_S_MIN),
            at_least("changes per second and core", changes, 0.0),
            at_least("heartbeats to bare msgspec into dicts", beats / series[3].summary.p50, 0.0),
            at_least("heartbeats to bare json", beats / series[4].summary.p50, 0.0),
        ),
        conditions={
            "nodes": FLEET * CLONES,
            "bytesPerLineMin": min(sizes),
            "bytesPerLineMax": max(sizes),
            "eventsPerRound": EVENTS,
            "rounds": ROUNDS,
            "playbooks": "all shipped ones",
            "core": "CPU seconds of the process",
        },
        notes=("Lines were recorded from a watch on the real API server; versions and times are moved on.",),
    )


async def _record(scene: Scene) -> list[bytes]:
    """One MODIFIED line of every node."""
    found: dict[str, bytes] = {}
    async with RawApi(scene.cluster.kubeconfig) as raw:
        listed = msgspec.json.decode(await raw.send("GET", f"{NODES}?limit=1"))
        version = listed["metadata"]["resourceVersion"]

        async def follow() -> None:
            async for line in raw.watch(f"{NODES}?watch=1&resourceVersion={version}"):
                event = msgspec.json.decode(line)
                if _TOUCH in event["object"]["metadata"].get("annotations", {}):
                    found[event["object"]["metadata"]["name"]] = line.rstrip()
                if len(found) == len(scene.specs):
                    return

        following = asyncio.ensure_future(follow())
        body = msgspec.json.encode({"metadata": {"annotations": {_TOUCH: "1"}}})
        for spec in scene.specs:
            path = f"{NODES}/{spec.name}"
            await raw.send("PATCH", path, body, content_type="application/merge-patch+json")
        await asyncio.wait_for(following, 30.0)
    return [found[name] for name in sorted(found)]


def make_tape(lines: Sequence[bytes], events: int) -> Tape:
    """Make a whole watch out of one recorded line per node: versions grow, heartbeats pass.

    Args:
        lines: ``{"type":"MODIFIED","object":…}``, one per node.
        events: how many lines of each kind to make.
    """
    recorded: list[dict[str, Any]] = [msgspec.json.decode(line)["object"] for line in lines]
    objects = [_clone(each, number) for number in range(CLONES) for each in recorded]
    version = 1_000_000
    initial = []
    for each in objects:
        version += 1
        initial.append(_line("ADDED", each, version, beat=0, deadlock=False))
    mark = {"kind": "Node", "apiVersion": "v1", "metadata": {"resourceVersion": str(version)}}
    mark["metadata"]["annotations"] = {"k8s.io/initial-events-end": "true"}  # type: ignore[index]
    initial.append(msgspec.json.encode({"type": "BOOKMARK", "object": mark}))
    heartbeats, changes = [], []
    for number in range(events):
        version += 1
        each = objects[number % len(objects)]
        turn = number // len(objects) + 1
        heartbeats.append(_line("MODIFIED", each, version, beat=turn, deadlock=False))
        changes.append(_line("MODIFIED", each, version, beat=turn, deadlock=bool(turn % 2)))
    return Tape(initial, heartbeats, changes)


def _clone(node: dict[str, Any], number: int) -> dict[str, Any]:
    """Another machine of the same kind: names and identities differ, all else is as recorded."""
    metadata, info = node["metadata"], node["status"]["nodeInfo"]
    name = f"{metadata['name']}-{number}"
    moved = {**metadata, "name": name, "uid": f"{metadata['uid'][:-2]}{number:02d}"}
    system = f"{info['systemUUID'][:-2]}{number:02d}"
    status = {**node["status"], "nodeInfo": {**info, "systemUUID": system}}
    return {**node, "metadata": moved, "status": status}


def _line(type_: str, node: dict[str, Any], version: int, *, beat: int, deadlock: bool) -> bytes:
    at = f"2026-01-01T{beat // 3600 % 24:02d}:{beat // 60 % 60:02d}:{beat % 60:02d}Z"
    conditions = [
        {
            **each,
            "lastHeartbeatTime": at,
            "status": "True" if deadlock and each["type"] == "KernelDeadlock" else each["status"],
        }
        for each in node["status"]["conditions"]
    ]
    moved = {
        **node,
        "metadata": {**node["metadata"], "resourceVersion": str(version)},
        "status": {**node["status"], "conditions": conditions},
    }
    return msgspec.json.encode({"type": type_, "object": moved})


async def _ingest(initial: Sequence[bytes], lines: Sequence[bytes], *, changes: int) -> float:
    """Events per CPU second through the product's whole path; ``changes`` of them must be diagnosed."""
    transport, clock = Recorded(initial, lines), SystemClock()
    feeds = Feeds(transport, clock=clock, rng=Random(0), policy=PolicySpec())
    world = World(feeds.caches, clock=clock)
    diagnoses = Diagnoses(world=world, clock=clock, telemetry=Metrics())
    world.on_rules = diagnoses.rules_changed
    world.on_node = lambda name, _, after: diagnoses.node_changed(name, after)
    news = 0

    def count(_: str) -> None:
        nonlocal news
        news += 1

    diagnoses.on_change = count
    _follow_shipped_rules(feeds)
    jobs = [asyncio.ensure_future(feeds.jobs()[0]()), asyncio.ensure_future(diagnoses.run())]
    try:
        await asyncio.wait_for(transport.over.wait(), 120.0)
    finally:
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
    nodes, expected = len(initial) - 1, changes + len(initial) - 1
    # A node that changes twice before it is looked at is looked at once.
    if len(feeds.nodes) != nodes or not 0.9 * expected <= news <= expected:
        raise RuntimeError(
            f"{len(feeds.nodes)} of {nodes} nodes known, {news} of {expected} changes diagnosed"
        )
    return len(lines) / transport.used_s


def _follow_shipped_rules(feeds: Feeds) -> None:
    """Put the shipped playbooks and the example pools in force, as objects of the server would be."""
    paths = [*sorted((ROOT / "playbooks").glob("*.yaml")), ROOT / "deploy" / "examples" / "pools.yaml"]
    for store in (feeds.runs, feeds.playbooks, feeds.pools, feeds.policies, feeds.ledgers):
        store.synced = True
    for number, loaded in enumerate(load_objects(paths), 1):
        match loaded.value:
            case Playbook() as playbook:
                feeds.playbooks.put(playbook.metadata.name, number, playbook)
            case ResourcePool() as pool:
                feeds.pools.put(pool.metadata.name, number, pool)


def _bare(decode: Any, lines: Sequence[bytes]) -> float:
    began = time.process_time()
    for line in lines:
        decode(line)
    return len(lines) / (time.process_time() - began)
