"""The reflector against a real API server: what the scripted one claims, the real one must do."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from remediator.adapters.kube.listing import ReflectorSettings, consistent_list
from remediator.adapters.kube.projection import pod_decoder
from remediator.adapters.kube.reflector import Ending, Reflector
from remediator.adapters.kube.store import Store, object_changed
from remediator.adapters.kube.transport import KubeTransport
from remediator.adapters.kube.wire import ObjectDecoder
from remediator.model.keys import API_VERSION
from remediator.model.ledger import ManagedNode
from remediator.model.views import NodeView, PodView
from remediator.testbed.api import Api
from remediator.testbed.launcher import ControlPlane
from tests.contract.live import (
    CLOCK,
    NODES,
    ROOT,
    a_node,
    a_pod,
    connected,
    fresh_namespace,
    install_crds,
    remove_nodes,
    until,
)
from tests.contract.watched import DECODER, Meddling, watched_nodes

pytestmark = [pytest.mark.asyncio, pytest.mark.real_server]


@pytest.fixture
def group(request: pytest.FixtureRequest, api: Api) -> Iterator[str]:
    """A label value for this test's nodes, which are removed afterwards."""
    name = request.node.name.replace("_", "-").replace("[", "-").replace("]", "")[-60:].strip("-")
    yield name
    remove_nodes(api, name)


@pytest.mark.watch_list
async def test_watch_list_and_pages_agree_with_the_server(control_plane: ControlPlane, api: Api, group: str):
    """Two ways to the first state, and both must be the server's."""
    for n in range(5):
        api.create(NODES, a_node(f"{group[:40]}-{n}", group))
    async with connected(control_plane.kubeconfig) as transport:
        meddling = Meddling(transport)
        streamed = watched_nodes(meddling, group)
        paged = watched_nodes(transport, group, watch_list=False, settings=ReflectorSettings(page_items=2))
        async with streamed.running(), paged.running():
            await until(lambda: streamed.store.views() == paged.store.views(), "both equal")
            listed = {
                each["metadata"]["name"] for each in api.list(NODES, label_selector=f"test-group={group}")
            }

            assert set(streamed.store) == listed
            assert len(listed) == 5
            assert "sendInitialEvents" in meddling.watches[0]
            assert (streamed.reflector.relists, paged.reflector.relists) == (1, 1)
            assert streamed.reflector.endings[Ending.NO_WATCH_LIST] == 0
            assert all(view.gpus == 8 and view.ready for view in streamed.store.views().values())


async def test_changes_and_deletions_arrive_in_order_without_alarm(
    control_plane: ControlPlane, api: Api, group: str
):
    """A real DELETED carries a version above the object's last one."""
    name = f"{group[:40]}-a"
    async with connected(control_plane.kubeconfig) as transport:
        watched = watched_nodes(transport, group)
        async with watched.running():
            for _ in range(3):
                api.create(NODES, a_node(name, group))
                api.merge_patch(f"{NODES}/{name}", {"spec": {"unschedulable": True}})
                api.delete(f"{NODES}/{name}")
                await until(lambda: name not in watched.store and watched.told, "deleted")
                assert watched.told[0][1] is None
                assert watched.told[-1][2] is None
                assert any(after and after.unschedulable for _, _, after in watched.told)
                watched.told.clear()

            assert (watched.reflector.alarms, watched.reflector.stale, watched.reflector.relists) == (0, 0, 1)


async def test_a_version_that_is_too_old_leads_to_a_new_list(
    control_plane: ControlPlane, api: Api, group: str
):
    """The server says 410 inside an HTTP 200; nothing may be lost over it."""
    install_crds(api)  # the server knows nothing of these kinds from before they were installed
    async with connected(control_plane.kubeconfig) as transport:
        meddling = Meddling(transport)
        store: Store[ManagedNode] = Store(clock=CLOCK, changed=object_changed)
        born: list[str] = []
        store.subscribe(lambda key, before, _: born.append(key) if before is None else None)
        decoder = ObjectDecoder(ManagedNode, lambda found: found)
        path = f"{ROOT}/managednodes"
        reflector = Reflector(meddling, store, decoder, path, clock=CLOCK, rng=random.Random(1))
        task = asyncio.create_task(reflector.run())
        try:
            await until(lambda: store.synced, "first state")
            meddling.next_version = "1"
            meddling.cut.set()  # after the next line, which is the first ledger
            for name in ("too-old-a", "too-old-b"):
                body = {"apiVersion": API_VERSION, "kind": "ManagedNode", "metadata": {"name": name}}
                api.create(path, body)
            await until(lambda: {"too-old-a", "too-old-b"} <= set(store), "list after 410")
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    assert (reflector.endings[Ending.EXPIRED], reflector.relists, reflector.alarms) == (1, 2, 0)
    assert "410" in reflector.last_ending
    assert sorted(born) == sorted(store)


async def test_a_replay_of_the_past_is_noticed(control_plane: ControlPlane, api: Api, group: str):
    """A server whose cache lags sends what we have seen already: the node must not go back in time."""
    name = f"{group[:40]}-a"
    api.create(NODES, a_node(name, group))
    api.merge_patch(f"{NODES}/{name}", {"spec": {"unschedulable": True}})
    before = str(int(api.get(f"{NODES}/{name}")["metadata"]["resourceVersion"]) - 3)
    async with connected(control_plane.kubeconfig) as transport:
        meddling = Meddling(transport)
        watched = watched_nodes(meddling, group)
        async with watched.running():
            meddling.next_version = before
            meddling.cut.set()
            version = api.merge_patch(f"{NODES}/{name}", {"metadata": {"annotations": {"a": "b"}}})
            await until(lambda: watched.reflector.relists == 2, "list after the replay")

            assert (watched.reflector.alarms, watched.reflector.endings[Ending.BACKWARDS]) == (1, 1)
            assert watched.store.observed(version["metadata"]["resourceVersion"])
            assert all(after and after.unschedulable for _, _, after in watched.told)


async def test_a_watch_resumes_without_losing_what_happened_meanwhile(
    control_plane: ControlPlane, api: Api, group: str
):
    """Between two connections nodes come and go."""
    async with connected(control_plane.kubeconfig) as transport:
        meddling = Meddling(transport)
        watched = watched_nodes(meddling, group)
        async with watched.running():
            meddling.cut.set()
            for n in range(4):
                api.create(NODES, a_node(f"{group[:40]}-{n}", group))
            api.delete(f"{NODES}/{group[:40]}-0")
            await until(lambda: len(watched.store) == 3 and len(meddling.watches) > 1, "resumed")

            assert watched.reflector.relists == 1
            assert watched.reflector.endings[Ending.CLEAN] == 1
            assert "resourceVersion" in meddling.watches[1]


async def test_heartbeats_wake_nobody(control_plane: ControlPlane, api: Api, group: str):
    """A kubelet's status write changes the version and two times, and nothing else."""
    name = f"{group[:40]}-a"
    api.create(NODES, a_node(name, group))
    async with connected(control_plane.kubeconfig) as transport:
        watched = watched_nodes(transport, group)
        async with watched.running():
            await until(lambda: name in watched.store, "node seen")
            await asyncio.sleep(1.0)  # the node lifecycle controller may take its taint away first
            watched.told.clear()
            conditions = api.get(f"{NODES}/{name}")["status"]["conditions"]
            for second in range(3):
                stamp = f"2030-01-01T00:00:0{second}Z"
                beat = [{**each, "lastHeartbeatTime": stamp} for each in conditions]
                patch = {"status": {"conditions": beat}}
                version = api.merge_patch(f"{NODES}/{name}", patch, subresource="status")["metadata"][
                    "resourceVersion"
                ]

            assert await watched.store.wait_for(version, 5.0)
            assert watched.told == []
            assert watched.store.views()[name].resource_version == version


async def test_conditions_that_stand_twice_keep_the_worse(control_plane: ControlPlane, api: Api, group: str):
    """The server accepts them; a monitor that appends its own Ready must be heard."""
    body = a_node(f"{group[:40]}-a", group)
    twins = [
        {"type": "GpuBroken", "status": "True", "reason": "Xid79"},
        {"type": "GpuBroken", "status": "False", "reason": "Fine"},
    ]
    body["status"]["conditions"] += twins
    created = api.create(NODES, body)
    assert len(created["status"]["conditions"]) == 3
    async with connected(control_plane.kubeconfig) as transport:
        listing = await consistent_list(
            transport, NODES, DECODER, clock=CLOCK, query={"labelSelector": f"test-group={group}"}
        )

    (view,) = listing.views.values()
    assert [(each.type, each.status) for each in view.conditions] == [
        ("Ready", "True"),
        ("GpuBroken", "True"),
    ]


async def test_a_kind_that_is_not_served_is_unknown(control_plane: ControlPlane, group: str):
    """Without the custom resources nothing is known, and nothing is deleted."""
    async with connected(control_plane.kubeconfig) as transport:
        watched = watched_nodes(transport, group, path="/apis/remediator.dev/v0/nothings")
        async with watched.running():
            assert watched.store.synced is False
            assert watched.reflector.endings[Ending.REFUSED] == 1
            assert "the custom resources are not installed" in str(watched.reflector.problem)


async def test_a_missing_permission_is_named(
    control_plane: ControlPlane, api: Api, group: str, tmp_path: Path
):
    """The person who reads the condition must know which rule to add."""
    accounts = "/api/v1/namespaces/default/serviceaccounts"
    api.create(accounts, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "no-watch"}})
    path = api.service_account_kubeconfig("default", "no-watch", tmp_path / "kubeconfig")
    async with connected(path) as transport:
        watched = watched_nodes(transport, group)
        async with watched.running():
            assert "missing RBAC rule: watch nodes core" in str(watched.reflector.problem)
            assert not watched.store.synced


class _StrictMeta(msgspec.Struct, rename="camel"):
    name: str
    resource_version: str


class _StrictSpec(msgspec.Struct):
    unschedulable: int = 0  # the server says true here


class _Strict(msgspec.Struct):
    metadata: _StrictMeta
    spec: _StrictSpec


def _strict_view(found: _Strict) -> NodeView:
    return NodeView(name=found.metadata.name, uid="", resource_version=found.metadata.resource_version)


async def test_one_bad_object_stops_no_other(control_plane: ControlPlane, api: Api, group: str):
    """A decoder that is stricter than the server stands for an object of another version of ours."""

    good, bad = f"{group[:40]}-good", f"{group[:40]}-bad"
    api.create(NODES, a_node(good, group))
    api.create(NODES, a_node(bad, group, unschedulable=True))
    async with connected(control_plane.kubeconfig) as transport:
        watched = watched_nodes(transport, group, decoder=ObjectDecoder(_Strict, _strict_view))
        async with watched.running():
            assert (list(watched.store), list(watched.reflector.undecodable)) == ([good], [bad])
            assert "unschedulable" in watched.reflector.undecodable[bad]
            api.merge_patch(f"{NODES}/{bad}", {"spec": {"unschedulable": None}})
            await until(lambda: sorted(watched.store) == [bad, good], "repaired")
            assert dict(watched.reflector.undecodable) == {}


async def test_pods_of_one_node_are_watched_by_field_selector(
    control_plane: ControlPlane, api: Api, group: str
):
    """A drain must see each pod of its node, and no other; and one list proves it empty."""
    space = fresh_namespace(api, "pods-of-one-node")
    mine, other = f"{group[:40]}-a", f"{group[:40]}-b"
    for name in (mine, other):
        api.create(NODES, a_node(name, group))
    pods = f"/api/v1/namespaces/{space}/pods"
    decoder = pod_decoder(gpu_resource="nvidia.com/gpu")
    query = {"fieldSelector": f"spec.nodeName={mine}"}
    async with connected(control_plane.kubeconfig) as transport:
        api.create(pods, a_pod("there", other))
        store = await _watch_pods(transport, api, pods, mine, query)
        listing = await consistent_list(transport, "/api/v1/pods", decoder, clock=CLOCK, query=query)

    assert store == {f"{space}/here"}
    assert set(listing.views) == {f"{space}/here"}
    assert listing.version > 0


async def _watch_pods(
    transport: KubeTransport, api: Api, pods: str, node: str, query: dict[str, str]
) -> set[str]:
    store: Store[PodView] = Store(clock=CLOCK)
    decoder = pod_decoder(gpu_resource="nvidia.com/gpu")
    reflector = Reflector(
        transport, store, decoder, "/api/v1/pods", clock=CLOCK, rng=random.Random(1), query=query
    )
    task = asyncio.create_task(reflector.run())
    try:
        await until(lambda: store.synced, "pods known")
        assert len(store) == 0
        api.create(pods, a_pod("here", node))
        api.create(pods, a_pod("gone", node))
        await until(lambda: len(store) == 2, "pods seen")
        api.delete(f"{pods}/gone", grace_s=0)
        await until(lambda: len(store) == 1, "pod gone")
        return set(store)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
