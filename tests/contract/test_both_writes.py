"""What a write may do, and how it is refused: alike on the simulated server and the real one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from remediator.sim.patches import JSON_PATCH, MERGE, STRATEGIC
from tests.contract.both import BOTH, NOTES, POOLS, Client, Play, a_note, playing
from tests.contract.live import NODES, a_node, a_pod


@pytest.fixture(params=BOTH)
def play(request: pytest.FixtureRequest) -> Iterator[Play]:
    """The same story on either server."""
    with playing(request) as found:
        yield found


def a_pool(name: str, **spec: Any) -> dict[str, Any]:
    pool = {"apiVersion": "remediator.dev/v1alpha1", "kind": "ResourcePool", "metadata": {"name": name}}
    membership = {"key": "example.com/pool", "value": name[-40:]}
    return pool | {"spec": {"role": "Repair", "membership": membership} | spec}


def test_create_fills_in_what_only_the_server_may_say(play: Play) -> None:
    """uid, version and time are the server's, whatever was sent."""

    async def story(client: Client) -> None:
        node = a_node(client.group, client.group)
        node["metadata"] |= {"uid": "mine", "creationTimestamp": "2001-01-01T00:00:00Z"}
        made = await client.post(NODES, node)
        assert made.code == 201
        assert len(made.meta["uid"]) == 36
        assert made.meta["creationTimestamp"] > "2026"
        assert made.version.isdigit()
        assert "generation" not in made.meta
        assert made.body["kind"] == "Node"
        assert {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"} in made.body["spec"]["taints"]

    play(story)


def test_create_twice_is_refused_by_name(play: Play) -> None:
    async def story(client: Client) -> None:
        await client.post(NODES, a_node(client.group, client.group))
        again = await client.post(NODES, a_node(client.group, client.group))
        assert (again.code, again.body["reason"]) == (409, "AlreadyExists")
        assert again.body["message"] == f'nodes "{client.group}" already exists'

    play(story)


@pytest.mark.parametrize("name", ["-a", "a-", "A", "a_b", "a" * 254])
def test_create_under_an_odd_name_is_refused(play: Play, name: str) -> None:
    async def story(client: Client) -> None:
        refused = await client.post(NODES, a_node(name, client.group))
        assert (refused.code, refused.body["reason"]) == (422, "Invalid")
        assert refused.body["details"]["causes"][0]["field"] == "metadata.name"

    play(story)


def test_create_with_a_version_is_refused(play: Play) -> None:
    async def story(client: Client) -> None:
        node = a_node(client.group, client.group)
        node["metadata"]["resourceVersion"] = "5"
        refused = await client.post(NODES, node)
        assert refused.code in (400, 500)  # the real one says 500 in words of etcd
        assert "resourceVersion should not be set on objects to be created" in refused.body["message"]

    play(story)


def test_create_with_status_leaves_the_status_out(play: Play) -> None:
    async def story(client: Client) -> None:
        pool = a_pool(client.group) | {"status": {"nodes": 7}}
        made = await client.post(POOLS, pool)
        assert made.code == 201, made
        assert "status" not in made.body
        assert made.meta["generation"] == 1

    play(story)


@pytest.mark.parametrize("content_type", [MERGE, STRATEGIC])
def test_patch_from_an_old_version_is_a_conflict(play: Play, content_type: str) -> None:
    """Also where it would change nothing: whoever quotes a version has seen that one."""

    async def story(client: Client) -> None:
        path = f"{NODES}/{client.group}"
        old = await client.post(NODES, a_node(client.group, client.group))
        await client.patch(path, {"metadata": {"labels": {"a": "b"}}})
        body = {"metadata": {"resourceVersion": old.version, "labels": {"a": "b"}}}
        refused = await client.patch(path, body, content_type)
        assert (refused.code, refused.body["reason"]) == (409, "Conflict")
        assert refused.body["message"] == (
            f'Operation cannot be fulfilled on nodes "{client.group}": the object has been modified; '
            "please apply your changes to the latest version and try again"
        )

    play(story)


def test_patch_that_changes_nothing_leaves_the_version(play: Play) -> None:
    async def story(client: Client) -> None:
        made = await client.post(NOTES, a_note(client, a="1"))
        same = await client.patch(f"{NOTES}/{made.meta['name']}", {"data": {"a": "1"}})
        assert (same.code, same.version) == (200, made.version)

    play(story)


def test_merge_patch_removes_by_null_and_replaces_lists(play: Play) -> None:
    async def story(client: Client) -> None:
        taints = [{"key": key, "effect": "NoSchedule"} for key in ("a", "b")]
        await client.post(NODES, a_node(client.group, client.group, taints=taints, unschedulable=True))
        patch = {"spec": {"unschedulable": None, "taints": taints[:1]}, "metadata": {"labels": {"x": "1"}}}
        found = await client.patch(f"{NODES}/{client.group}", patch)
        assert found.body["spec"] == {"taints": taints[:1]}
        assert found.meta["labels"] == {"test-group": client.group, "x": "1"}

    play(story)


def test_patch_of_no_taints_leaves_no_empty_list(play: Play) -> None:
    """What is nothing is not there: a reader need not tell null, [] and absence apart."""

    async def story(client: Client) -> None:
        await client.post(NODES, a_node(client.group, client.group))
        found = await client.patch(f"{NODES}/{client.group}", {"spec": {"taints": []}})
        assert "taints" not in found.body["spec"]

    play(story)


def test_strategic_patch_merges_conditions_by_type_and_replaces_taints(play: Play) -> None:
    async def story(client: Client) -> None:
        path = f"{NODES}/{client.group}"
        await client.post(NODES, a_node(client.group, client.group))
        new = {"type": "Custom", "status": "True"}
        found = await client.patch(f"{path}/status", {"status": {"conditions": [new]}}, STRATEGIC)
        assert {each["type"] for each in found.body["status"]["conditions"]} == {"Ready", "Custom"}
        gone = {"status": {"conditions": [{"type": "Custom", "$patch": "delete"}]}}
        found = await client.patch(f"{path}/status", gone, STRATEGIC)
        assert [each["type"] for each in found.body["status"]["conditions"]] == ["Ready"]
        taints = {"spec": {"taints": [{"key": "z", "effect": "NoSchedule"}]}}
        found = await client.patch(path, taints, STRATEGIC)
        assert [each["key"] for each in found.body["spec"]["taints"]] == ["z"]

    play(story)


def test_json_patch_with_a_test_that_fails_changes_nothing(play: Play) -> None:
    async def story(client: Client) -> None:
        path = f"{NODES}/{client.group}"
        made = await client.post(NODES, a_node(client.group, client.group))
        label = "/metadata/labels/test-group"
        operations = [
            {"op": "add", "path": "/metadata/labels/new", "value": "1"},
            {"op": "test", "path": label, "value": "other"},
        ]
        refused = await client.patch(path, operations, JSON_PATCH)
        assert refused.code == 422
        operations[1]["value"] = client.group
        found = await client.patch(path, operations, JSON_PATCH)
        assert found.meta["labels"]["new"] == "1"
        assert int(found.version) > int(made.version)

    play(story)


def test_strategic_patch_of_a_custom_resource_is_refused(play: Play) -> None:
    async def story(client: Client) -> None:
        await client.post(POOLS, a_pool(client.group))
        refused = await client.patch(f"{POOLS}/{client.group}", {"metadata": {}}, STRATEGIC)
        assert (refused.code, refused.body["reason"]) == (415, "UnsupportedMediaType")

    play(story)


def test_uid_in_a_patch_is_refused_for_a_node_and_passed_over_in_a_status(play: Play) -> None:
    async def story(client: Client) -> None:
        await client.post(NODES, a_node(client.group, client.group))
        refused = await client.patch(f"{NODES}/{client.group}", {"metadata": {"uid": "other"}})
        assert (refused.code, refused.body["reason"]) == (422, "Invalid")
        made = await client.post(POOLS, a_pool(client.group))
        patch = {"metadata": {"uid": "other", "labels": {"a": "b"}}, "status": {"observedGeneration": 1}}
        found = await client.patch(f"{POOLS}/{client.group}/status", patch)
        assert found.code == 200, found
        assert found.meta["uid"] == made.meta["uid"]
        assert "labels" not in found.meta, "a status write of a custom resource leaves metadata alone"

    play(story)


def test_update_of_a_custom_resource_needs_a_version_and_a_node_does_not(play: Play) -> None:
    async def story(client: Client) -> None:
        await client.post(POOLS, a_pool(client.group))
        refused = await client.put(f"{POOLS}/{client.group}", a_pool(client.group))
        assert refused.code == 422
        assert "must be specified for an update" in refused.body["message"]
        made = await client.post(NODES, a_node(client.group, client.group))
        blind = a_node(client.group, client.group, unschedulable=True)
        found = await client.put(f"{NODES}/{client.group}", blind)
        assert found.code == 200
        assert found.body["spec"]["unschedulable"] is True
        assert int(found.version) > int(made.version)

    play(story)


def test_update_for_another_uid_is_a_conflict(play: Play) -> None:
    """The name came back, the object did not."""

    async def story(client: Client) -> None:
        made = await client.post(NODES, a_node(client.group, client.group))
        body = made.body | {"metadata": made.meta | {"uid": "11111111-2222-4333-8444-555555555555"}}
        refused = await client.put(f"{NODES}/{client.group}", body)
        assert refused.code == 409
        assert "UID in precondition" in refused.body["message"]

    play(story)


def test_generation_counts_changes_of_spec_only(play: Play) -> None:
    async def story(client: Client) -> None:
        path = f"{POOLS}/{client.group}"
        await client.post(POOLS, a_pool(client.group))
        labelled = await client.patch(path, {"metadata": {"labels": {"a": "b"}}})
        assert labelled.meta["generation"] == 1
        seen = await client.patch(f"{path}/status", {"status": {"observedGeneration": 1}})
        assert seen.meta["generation"] == 1
        changed = await client.patch(path, {"spec": {"membership": {"value": "other"}}})
        assert changed.code == 200, changed
        assert changed.meta["generation"] == 2
        assert changed.body["status"] == {"observedGeneration": 1}

    play(story)


def test_unknown_fields_are_dropped_or_refused_as_asked(play: Play) -> None:
    async def story(client: Client) -> None:
        wrong = a_pool(client.group, colour="red")
        strict = await client.post(POOLS, wrong, fieldValidation="Strict")
        assert strict.code == 400
        assert 'unknown field "spec.colour"' in strict.body["message"]
        lenient = await client.post(POOLS, wrong, fieldValidation="Ignore")
        assert lenient.code == 201
        assert "colour" not in lenient.body["spec"]

    play(story)


def test_values_against_the_schema_are_refused_by_path(play: Play) -> None:
    async def story(client: Client) -> None:
        refused = await client.post(POOLS, a_pool(client.group, membership="all"))
        assert (refused.code, refused.body["reason"]) == (422, "Invalid")
        message = refused.body["message"]
        assert message.startswith(f'ResourcePool.remediator.dev "{client.group}" is invalid: ')
        assert "spec.membership: Invalid value" in message
        assert refused.body["details"]["causes"][0]["field"] == "spec.membership"

    play(story)


def test_dry_run_answers_and_stores_nothing(play: Play) -> None:
    async def story(client: Client) -> None:
        path = f"{NODES}/{client.group}"
        made = await client.post(NODES, a_node(client.group, client.group), dryRun="All")
        assert made.code == 201
        assert (await client.get(path)).code == 404
        await client.post(NODES, a_node(client.group, client.group))
        tried = await client.patch(path, {"spec": {"unschedulable": True}}, dryRun="All")
        assert tried.body["spec"]["unschedulable"] is True
        await client.delete(path, dryRun="All")
        assert "unschedulable" not in (await client.get(path)).body["spec"]

    play(story)


def test_delete_holds_to_its_preconditions(play: Play) -> None:
    async def story(client: Client) -> None:
        made = await client.post(NOTES, a_note(client))
        path = f"{NOTES}/{made.meta['name']}"
        for wrong in ({"uid": "11111111-2222-4333-8444-555555555555"}, {"resourceVersion": "1"}):
            refused = await client.delete(path, {"preconditions": wrong})
            assert (refused.code, refused.body["reason"]) == (409, "Conflict"), wrong
        right = {"uid": made.meta["uid"], "resourceVersion": made.version}
        gone = await client.delete(path, {"preconditions": right})
        assert (gone.code, gone.body["status"]) == (200, "Success")
        assert (await client.delete(path)).code == 404

    play(story)


def test_finalizer_keeps_an_object_until_it_is_taken_off(play: Play) -> None:
    async def story(client: Client) -> None:
        pool = a_pool(client.group)
        pool["metadata"]["finalizers"] = ["example.com/mine"]
        path = f"{POOLS}/{client.group}"
        await client.post(POOLS, pool)
        marked = await client.delete(path)
        assert marked.meta["deletionTimestamp"]
        assert marked.meta["deletionGracePeriodSeconds"] == 0
        assert (await client.get(path)).code == 200
        done = await client.patch(path, {"metadata": {"finalizers": None}})
        assert done.code == 200
        assert (await client.get(path)).code == 404

    play(story)


def test_pod_on_a_node_is_given_its_grace_and_one_without_is_gone(play: Play) -> None:
    async def story(client: Client) -> None:
        pods = "/api/v1/namespaces/default/pods"
        name = client.short
        await client.post(pods, a_pod(f"{name}-bound", "no-such-node", t=name))
        marked = await client.delete(f"{pods}/{name}-bound")
        assert marked.meta["deletionGracePeriodSeconds"] == 30
        assert marked.meta["deletionTimestamp"]
        gone = await client.delete(f"{pods}/{name}-bound", gracePeriodSeconds="0")
        assert gone.code == 200
        assert (await client.get(f"{pods}/{name}-bound")).code == 404

    play(story)


def test_eviction_is_a_deletion_with_preconditions(play: Play) -> None:
    async def story(client: Client) -> None:
        pods = "/api/v1/namespaces/default/pods"
        name = client.short
        made = await client.post(pods, a_pod(name, "no-such-node", t=name))
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
        wrong = {"deleteOptions": {"preconditions": {"uid": "11111111-2222-4333-8444-555555555555"}}}
        assert (await client.post(f"{pods}/{name}/eviction", body | wrong)).code == 409
        right = {"deleteOptions": {"preconditions": {"uid": made.meta["uid"]}}}
        evicted = await client.post(f"{pods}/{name}/eviction", body | right)
        assert (evicted.code, evicted.body["status"]) == (201, "Success")
        assert (await client.get(f"{pods}/{name}")).meta["deletionTimestamp"]
        again = await client.post(f"{pods}/{name}/eviction", body | right)
        assert again.code == 201, "a pod that is on its way out is let go again"
        await client.delete(f"{pods}/{name}", gracePeriodSeconds="0")
        assert (await client.post(f"{pods}/{name}/eviction", body)).code == 404

    play(story)
