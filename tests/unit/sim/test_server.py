"""The simulated server's own troubles, and what only a server without controllers can be asked in peace."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest

from remediator.errors import PermanentError, TransientError
from remediator.ports import Lane
from remediator.sim.kinds import Kind
from remediator.sim.loop import run_virtual, virtual_clock
from remediator.sim.refusal import Json
from remediator.sim.request import User
from remediator.sim.server import Server
from remediator.sim.transport import SimTransport
from remediator.sim.watch import BACKLOG_MAX

NODES = "/api/v1/nodes"
PODS = "/api/v1/namespaces/default/pods"
BUDGETS = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
MERGE = {"Content-Type": "application/merge-patch+json"}


class Scene:
    """A server, one client, and every audit record."""

    def __init__(self) -> None:
        clock = virtual_clock()
        self.clock = clock
        self.records: list[Json] = []
        self.server = Server(clock, seed=1, audit=lambda line: self.records.append(msgspec.json.decode(line)))
        self.transport = SimTransport(self.server, User("somebody"), clock=clock, seed=1)

    @property
    def nodes(self) -> Kind:
        found = self.server.kind("", "v1", "nodes")
        assert found is not None
        return found

    async def ask(self, method: str, path: str, body: object = None, **query: str) -> tuple[int, Json]:
        sent = None if body is None else msgspec.json.encode(body)
        headers = MERGE if method == "PATCH" else {}
        reply = await self.transport.request(
            method, path, query=query, headers=headers, body=sent, timeout_s=10, lane=Lane.NORMAL
        )
        return reply.status, msgspec.json.decode(reply.body)

    async def make_node(self, name: str) -> str:
        code, made = await self.ask("POST", NODES, {"metadata": {"name": name}})
        assert code == 201, made
        return str(made["metadata"]["resourceVersion"])

    async def relabel(self, name: str, value: str) -> None:
        code, _ = await self.ask("PATCH", f"{NODES}/{name}", {"metadata": {"labels": {"n": value}}})
        assert code == 200

    async def watched(self, version: str, count: int, **query: str) -> list[Json]:
        """The first ``count`` events of a watch."""
        lines = self.transport.stream(
            NODES,
            query={"watch": "1", "resourceVersion": version, **query},
            connect_timeout_s=5,
            idle_timeout_s=90,
        )
        seen: list[Json] = []
        async for line in lines:
            seen.append(msgspec.json.decode(line))
            if len(seen) == count:
                break
        await lines.aclose()
        return seen


def play(story: Callable[[Scene], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        await story(Scene())

    run_virtual(main())


def test_history_that_was_forgotten_is_told_as_410() -> None:
    async def story(scene: Scene) -> None:
        version = await scene.make_node("a")
        await scene.relabel("a", "1")
        scene.server.expire(scene.nodes)
        with pytest.raises(PermanentError, match="too old resource version") as caught:
            await scene.watched(version, 1)
        assert caught.value.status == 410

    play(story)


def test_history_lives_for_75_seconds_and_longer_while_it_is_short() -> None:
    async def story(scene: Scene) -> None:
        version = await scene.make_node("a")
        for number in range(60):
            await scene.relabel("a", str(number))
        await scene.clock.sleep(200)
        for number in range(30):
            await scene.relabel("a", f"again {number}")
        assert len(await scene.watched(version, 90)) == 90, "under a hundred changes, none is forgotten"
        for number in range(100):
            await scene.relabel("a", f"more {number}")
        with pytest.raises(PermanentError, match="too old resource version"):
            await scene.watched(version, 1)

    play(story)


def test_page_after_an_expired_token_is_told_as_410() -> None:
    async def story(scene: Scene) -> None:
        for name in "abc":
            await scene.make_node(name)
        _, first = await scene.ask("GET", NODES, limit="1")
        token = first["metadata"]["continue"]
        await scene.clock.sleep(301)
        code, refused = await scene.ask("GET", NODES, **{"limit": "1", "continue": token})
        assert (code, refused["reason"]) == (410, "Expired")

    play(story)


def test_frozen_cache_shows_the_past_and_says_so_only_to_who_asks_for_the_present() -> None:
    async def story(scene: Scene) -> None:
        version = await scene.make_node("a")
        scene.server.freeze(scene.nodes)
        await scene.relabel("a", "new")
        _, cached = await scene.ask("GET", NODES, resourceVersion="0")
        _, fresh = await scene.ask("GET", NODES)
        assert cached["metadata"]["resourceVersion"] == version
        assert "labels" not in cached["items"][0]["metadata"]
        assert fresh["items"][0]["metadata"]["labels"] == {"n": "new"}
        mark = (await scene.watched(version, 1, allowWatchBookmarks="true"))[0]
        assert (mark["type"], mark["object"]["metadata"]["resourceVersion"]) == ("BOOKMARK", version)
        with pytest.raises(TransientError, match="Too large resource version"):
            await scene.watched("", 1, sendInitialEvents="true", resourceVersionMatch="NotOlderThan")
        scene.server.shelf(scene.nodes).thaw()
        assert (await scene.watched(version, 1))[0]["object"]["metadata"]["labels"] == {"n": "new"}

    play(story)


def test_watcher_that_does_not_read_is_cut_off() -> None:
    async def story(scene: Scene) -> None:
        version = await scene.make_node("a")
        lines = scene.transport.stream(
            NODES,
            query={"watch": "1", "resourceVersion": version},
            connect_timeout_s=5,
            idle_timeout_s=60,
        )
        await scene.relabel("a", "first")
        assert msgspec.json.decode(await anext(lines))["type"] == "MODIFIED"
        for number in range(BACKLOG_MAX + 1):
            await scene.relabel("a", str(number))
        with pytest.raises(StopAsyncIteration):
            await anext(lines)

    play(story)


def test_kind_whose_definition_is_deleted_is_gone_with_its_objects() -> None:
    definition = {
        "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Cluster",
            "names": {"kind": "Thing", "plural": "things"},
            "versions": [{"name": "v1", "served": True, "schema": {"openAPIV3Schema": {"type": "object"}}}],
        },
    }
    path, things = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "/apis/example.com/v1/things"

    async def story(scene: Scene) -> None:
        assert (await scene.ask("GET", things))[0] == 404
        assert (await scene.ask("POST", path, definition))[0] == 201
        assert (await scene.ask("POST", things, {"metadata": {"name": "a"}}))[0] == 201
        assert (await scene.ask("DELETE", f"{path}/things.example.com"))[0] == 200
        assert (await scene.ask("GET", things))[0] == 404
        await scene.ask("POST", path, definition)
        assert (await scene.ask("GET", things))[1]["items"] == []

    play(story)


async def guarded_pod(scene: Scene, *, budgets: int, allowed: int) -> None:
    pod = {"metadata": {"name": "a", "labels": {"app": "x"}}, "spec": {"nodeName": "n"}}
    await scene.ask("POST", PODS, pod)
    await scene.ask("PATCH", f"{PODS}/a/status", {"status": {"phase": "Running", "conditions": [READY]}})
    for number in range(budgets):
        name = f"budget-{number}"
        spec = {"selector": {"matchLabels": {"app": "x"}}, "minAvailable": 1}
        await scene.ask("POST", BUDGETS, {"metadata": {"name": name}, "spec": spec})
        status = {
            "observedGeneration": 1,
            "disruptionsAllowed": allowed,
            "desiredHealthy": 1,
            "currentHealthy": 1,
        }
        await scene.ask("PATCH", f"{BUDGETS}/{name}/status", {"status": status})


READY = {"type": "Ready", "status": "True"}
EVICTION = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a"}}


def test_eviction_that_a_budget_forbids_is_a_429_with_the_cause() -> None:
    async def story(scene: Scene) -> None:
        await guarded_pod(scene, budgets=1, allowed=0)
        code, refused = await scene.ask("POST", f"{PODS}/a/eviction", EVICTION)
        assert (code, refused["reason"]) == (429, "TooManyRequests")
        assert refused["details"]["causes"][0]["reason"] == "DisruptionBudget"
        assert "deletionTimestamp" not in (await scene.ask("GET", f"{PODS}/a"))[1]["metadata"]

    play(story)


def test_eviction_counts_its_budget_down() -> None:
    async def story(scene: Scene) -> None:
        await guarded_pod(scene, budgets=1, allowed=1)
        assert (await scene.ask("POST", f"{PODS}/a/eviction", EVICTION))[0] == 201
        status = (await scene.ask("GET", f"{BUDGETS}/budget-0"))[1]["status"]
        assert (status["disruptionsAllowed"], list(status["disruptedPods"])) == (0, ["a"])

    play(story)


def test_eviction_under_two_budgets_is_a_500() -> None:
    async def story(scene: Scene) -> None:
        await guarded_pod(scene, budgets=2, allowed=5)
        code, refused = await scene.ask("POST", f"{PODS}/a/eviction", EVICTION)
        assert code == 500
        assert "more than one PodDisruptionBudget" in refused["message"]

    play(story)


def test_audit_record_has_who_what_and_both_bodies() -> None:
    async def story(scene: Scene) -> None:
        await scene.make_node("a")
        made = scene.records[-1]
        assert made["user"]["username"] == "somebody"
        assert (made["verb"], made["stage"], made["level"]) == (
            "create",
            "ResponseComplete",
            "RequestResponse",
        )
        assert made["objectRef"]["name"] == "a"
        assert made["objectRef"]["uid"] == made["responseObject"]["metadata"]["uid"]
        assert made["requestObject"] == {"metadata": {"name": "a"}}
        assert made["responseStatus"]["code"] == 201
        await scene.ask("GET", f"{NODES}/nobody")
        read = scene.records[-1]
        assert (read["verb"], read["responseStatus"]["reason"]) == ("get", "NotFound")
        assert "responseObject" not in read

    play(story)
