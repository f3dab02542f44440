"""What a reader is shown, page by page and change by change: alike on the simulated server and the real."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from remediator.errors import PermanentError
from tests.contract.both import BOTH, NOTES, Client, Play, Reply, a_note, playing
from tests.contract.live import NODES, a_node, a_pod

PODS = "/api/v1/namespaces/default/pods"


@pytest.fixture(params=BOTH)
def play(request: pytest.FixtureRequest) -> Iterator[Play]:
    """The same story on either server."""
    with playing(request) as found:
        yield found


async def make(client: Client, *names: str) -> list[Reply]:
    return [await client.post(NODES, a_node(f"{client.group}-{name}", client.group)) for name in names]


async def bookmarks_until_the_end(event: Callable[[], Awaitable[dict[str, Any]]]) -> int:
    """Read to the end of a watch that has nothing else; how many there were."""
    count = 0
    with suppress(StopAsyncIteration):
        while True:
            assert (await event())["type"] == "BOOKMARK"
            count += 1
    return count


def names(found: Reply) -> list[str]:
    return [each["metadata"]["name"].rpartition("-")[2] for each in found.body["items"]]


def test_what_is_not_there_is_named(play: Play) -> None:
    async def story(client: Client) -> None:
        found = await client.get(f"{NODES}/nobody")
        assert found.code == 404
        assert found.body == {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": 'nodes "nobody" not found',
            "reason": "NotFound",
            "details": {"name": "nobody", "kind": "nodes"},
            "code": 404,
        }
        assert (await client.get("/apis/example.com/v1/things")).code == 404

    play(story)


def test_list_is_ordered_by_name_and_selected_by_labels(play: Play) -> None:
    async def story(client: Client) -> None:
        await make(client, "c", "a", "b")
        found = await client.get(NODES, labelSelector=f"test-group={client.group}")
        assert names(found) == ["a", "b", "c"]
        assert found.body["kind"] == "NodeList"
        patch = {"metadata": {"labels": {"colour": "red"}}}
        await client.patch(f"{NODES}/{client.group}-a", patch)
        ours = f"test-group={client.group}"
        for selector, wanted in (
            ("colour", ["a"]),
            ("!colour", ["b", "c"]),
            ("colour!=red", ["b", "c"]),
            ("colour in (red,blue)", ["a"]),
            ("colour notin (red)", ["b", "c"]),
        ):
            assert names(await client.get(NODES, labelSelector=f"{ours},{selector}")) == wanted, selector

    play(story)


def test_list_is_selected_by_the_fields_of_its_kind(play: Play) -> None:
    async def story(client: Client) -> None:
        await make(client, "a", "b")
        await client.patch(f"{NODES}/{client.group}-a", {"spec": {"unschedulable": True}})
        ours = {"labelSelector": f"test-group={client.group}"}
        assert names(await client.get(NODES, fieldSelector="spec.unschedulable=true", **ours)) == ["a"]
        by_name = f"metadata.name={client.group}-b"
        assert names(await client.get(NODES, fieldSelector=by_name)) == ["b"]
        pod = client.short
        await client.post(PODS, a_pod(pod, "no-such-node", t=pod))
        on_node = "spec.nodeName=no-such-node"
        found = await client.get("/api/v1/pods", fieldSelector=on_node, labelSelector=f"t={pod}")
        assert [each["metadata"]["name"] for each in found.body["items"]] == [pod]
        assert (await client.get(NODES, fieldSelector="spec.colour=red")).code == 400
        await client.delete(f"{PODS}/{pod}", gracePeriodSeconds="0")

    play(story)


def test_pages_show_one_moment(play: Play) -> None:
    """What is made after the first page is on none of the others."""

    async def story(client: Client) -> None:
        await make(client, "a", "b", "c")
        ours = {"labelSelector": f"test-group={client.group}", "limit": "2"}
        first = await client.get(NODES, **ours)
        assert names(first) == ["a", "b"]
        await make(client, "d")
        token = first.meta["continue"]
        second = await client.get(NODES, **{"continue": token}, **ours)
        assert names(second) == ["c"]
        assert second.version == first.version
        assert not second.meta.get("continue")

    play(story)


def test_continue_token_that_makes_no_sense_is_refused(play: Play) -> None:
    async def story(client: Client) -> None:
        refused = await client.get(NODES, **{"continue": "nonsense", "limit": "1"})
        assert refused.code in (400, 410)

    play(story)


def test_list_of_a_version_from_the_future_times_out(play: Play) -> None:
    async def story(client: Client) -> None:
        made = (await make(client, "a"))[0]
        future = str(int(made.version) + 1_000_000)
        refused = await client.get(NODES, resourceVersion=future, resourceVersionMatch="NotOlderThan")
        assert (refused.code, refused.body["reason"]) == (504, "Timeout")
        assert refused.body["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"

    play(story)


def test_watch_tells_each_change_in_order(play: Play) -> None:
    async def story(client: Client) -> None:
        made = await client.post(NOTES, a_note(client))
        path = f"{NOTES}/{made.meta['name']}"
        ours = f"test-group={client.group}"
        async with client.watch(NOTES, labelSelector=ours, resourceVersion=made.version) as event:
            changed = await client.patch(path, {"data": {"a": "1"}})
            seen = await event()
            assert (seen["type"], seen["object"]["metadata"]["resourceVersion"]) == (
                "MODIFIED",
                changed.version,
            )
            assert seen["object"]["data"] == {"a": "1"}
            await client.delete(path)
            last = await event()
            assert last["type"] == "DELETED"
            assert int(last["object"]["metadata"]["resourceVersion"]) > int(changed.version)
            assert last["object"]["data"] == {"a": "1"}

    play(story)


def test_leaving_a_selection_is_a_deletion_and_entering_it_an_addition(play: Play) -> None:
    async def story(client: Client) -> None:
        made = await client.post(NOTES, a_note(client))
        path = f"{NOTES}/{made.meta['name']}"
        ours = f"test-group={client.group},colour=red"
        async with client.watch(NOTES, labelSelector=ours, resourceVersion=made.version) as event:
            await client.patch(path, {"metadata": {"labels": {"colour": "red"}}})
            assert (await event())["type"] == "ADDED"
            left = await client.patch(path, {"metadata": {"labels": {"colour": "blue"}}})
            gone = await event()
            assert gone["type"] == "DELETED"
            assert gone["object"]["metadata"]["resourceVersion"] == left.version
            assert gone["object"]["metadata"]["labels"]["colour"] == "red", "as it was when it was selected"

    play(story)


@pytest.mark.watch_list
def test_watch_list_ends_its_first_state_with_a_mark(play: Play) -> None:
    async def story(client: Client) -> None:
        await make(client, "b", "a")
        asked = {
            "labelSelector": f"test-group={client.group}",
            "sendInitialEvents": "true",
            "resourceVersionMatch": "NotOlderThan",
            "allowWatchBookmarks": "true",
        }
        async with client.watch(NODES, **asked) as event:
            first = [await event(), await event()]
            assert [each["type"] for each in first] == ["ADDED", "ADDED"]
            mark = await event()
            assert mark["type"] == "BOOKMARK"
            assert mark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
            assert mark["object"]["kind"] == "Node"
            listed = await client.get(NODES)
            assert int(mark["object"]["metadata"]["resourceVersion"]) <= int(listed.version)

    play(story)


@pytest.mark.timeout(200)
def test_bookmark_comes_before_the_server_ends_the_watch(play: Play) -> None:
    """A server whose cores are taken may miss the two seconds in which it is due: then in the next watch."""

    async def story(client: Client) -> None:
        made = (await make(client, "a"))[0]
        asked = {"fieldSelector": "metadata.name=nobody", "allowWatchBookmarks": "true"}
        found = 0
        for _ in range(4):
            began = client.clock.monotonic()
            async with client.watch(
                NODES, resourceVersion=made.version, timeoutSeconds="6", **asked
            ) as event:
                found += await bookmarks_until_the_end(event)
            assert 5.0 <= client.clock.monotonic() - began <= 20.0, "the six seconds that were asked for"
            if found:
                return
        raise AssertionError("no bookmark in four watches")

    play(story)


def test_watch_with_a_broken_selector_is_refused(play: Play) -> None:
    async def story(client: Client) -> None:
        with pytest.raises(PermanentError) as caught:
            async with client.watch(NODES, labelSelector="a in b") as event:
                await event()
        assert caught.value.status == 400

    play(story)
