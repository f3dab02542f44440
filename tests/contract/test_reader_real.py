"""The reader against a real API server: selectors, absent objects and Events as they really are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from remediator.adapters.kube.listing import consistent_list
from remediator.adapters.kube.reader import KubeReader, kind_decoder, policy_decoder
from remediator.adapters.kube.records import POLICIES, RUNS, KubeRecords
from remediator.adapters.kube.transport import KubeTransport
from remediator.errors import PermanentError
from remediator.model.action import Attribution, PublishEvent
from remediator.model.meta import LabelRequirement, LabelSelector
from remediator.model.policy import RemediationPolicy
from remediator.model.remediation import Remediation
from remediator.ports import Outcome
from remediator.testbed.api import Api
from remediator.testbed.launcher import ControlPlane
from tests.contract.live import (
    CLOCK,
    NODES,
    a_node,
    a_pod,
    connected,
    fresh_namespace,
    install_crds,
    remove_nodes,
)

pytestmark = [pytest.mark.asyncio, pytest.mark.real_server]
GROUP = "reader"


@pytest.fixture
def node(request: pytest.FixtureRequest, api: Api) -> Iterator[str]:
    """One Node for this test, removed afterwards."""
    name = request.node.name.replace("_", "-")[-60:].strip("-")
    api.create(NODES, a_node(name, name))
    yield name
    remove_nodes(api, name)


@asynccontextmanager
async def reading(kubeconfig: Path) -> AsyncIterator[tuple[KubeReader, KubeTransport]]:
    async with connected(kubeconfig) as transport:
        yield (
            KubeReader(
                transport, clock=CLOCK, gpu_resource="nvidia.com/gpu", pod_annotations=frozenset(("keep",))
            ),
            transport,
        )


def run_pod(api: Api, namespace: str, name: str, node: str, address: str = "", **labels: str) -> None:
    """Create a pod on ``node`` and play its kubelet: Running, with an address."""
    api.create(f"/api/v1/namespaces/{namespace}/pods", a_pod(name, node, **labels))
    status: dict[str, Any] = {"phase": "Running"}
    if address:
        status |= {"podIP": address, "podIPs": [{"ip": address}]}
    api.merge_patch(f"/api/v1/namespaces/{namespace}/pods/{name}", {"status": status}, subresource="status")


def a_budget(name: str, **labels: str) -> dict[str, Any]:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": name},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": labels}},
    }


async def test_pods_of_sees_every_pod_that_was_bound_before_the_call(
    api: Api, control_plane: ControlPlane, node: str
):
    """The end of a drain rests on this list: it may never be older than the call."""
    namespace, other = fresh_namespace(api, f"{GROUP}-pods"), fresh_namespace(api, f"{GROUP}-pods-other")
    api.create(
        f"/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets", a_budget("keep-one", app="train")
    )
    api.create(f"/apis/policy/v1/namespaces/{other}/poddisruptionbudgets", a_budget("elsewhere", app="train"))
    async with reading(control_plane.kubeconfig) as (reader, _):
        assert (await reader.pods_of(node)).pods == ()
        for number in range(5):
            name = f"train-{number}"
            await asyncio.to_thread(run_pod, api, namespace, name, node, app="train")
            found = await reader.pods_of(node)
            assert [pod.name for pod in found.pods] == [f"train-{each}" for each in range(number + 1)]
        await asyncio.to_thread(api.create, f"/api/v1/namespaces/{other}/pods", a_pod("unbound", app="train"))
        found = await reader.pods_of(node)

    assert {pod.phase for pod in found.pods} == {"Running"}
    assert {pod.node for pod in found.pods} == {node}
    assert [(pdb.namespace, pdb.name) for pdb in found.pdbs] == [(namespace, "keep-one")]
    assert dict(found.pdbs[0].match_labels) == {"app": "train"}


async def test_pod_addresses_select_as_the_server_does(api: Api, control_plane: ControlPlane, node: str):
    """Every operator of a selector, in the grammar that only the server can judge."""
    namespace = fresh_namespace(api, f"{GROUP}-addresses")
    run_pod(api, namespace, "a", node, "10.0.0.1", app="dcgm", tier="one")
    run_pod(api, namespace, "b", node, "10.0.0.2", app="dcgm", tier="two")
    run_pod(api, namespace, "c", node, "10.0.0.3", app="dcgm")
    run_pod(api, namespace, "no-address", node, "", app="dcgm")
    api.create(f"/api/v1/namespaces/{namespace}/pods", a_pod("pending", node, app="dcgm"))
    expected: list[tuple[LabelSelector, tuple[str, ...]]] = [
        (LabelSelector(match_labels={"app": "dcgm"}), ("10.0.0.1", "10.0.0.2", "10.0.0.3")),
        (LabelSelector(match_labels={"app": "dcgm", "tier": "two"}), ("10.0.0.2",)),
        (selecting("tier", "In", "one", "two"), ("10.0.0.1", "10.0.0.2")),
        (selecting("tier", "NotIn", "one"), ("10.0.0.2", "10.0.0.3")),
        (selecting("tier", "Exists"), ("10.0.0.1", "10.0.0.2")),
        (selecting("tier", "DoesNotExist"), ("10.0.0.3",)),
        (selecting("tier", "In", "three"), ()),
    ]

    async with reading(control_plane.kubeconfig) as (reader, _):
        for selector, addresses in expected:
            found = await reader.pod_addresses(namespace, selector)
            assert dict(found) == ({node: addresses} if addresses else {}), selector
        everywhere = await reader.pod_addresses("", selecting("tier", "In", "two"))

    assert dict(everywhere) == {node: ("10.0.0.2",)}


def selecting(key: str, operator: Any, *values: str) -> LabelSelector:
    return LabelSelector(match_expressions=(LabelRequirement(key=key, operator=operator, values=values),))


async def test_events_of_finds_old_and_new_events_of_this_node_only(
    api: Api, control_plane: ControlPlane, node: str
):
    """Both API groups show one store; the field selector has to be one that the server indexes."""
    uid = api.get(f"{NODES}/{node}")["metadata"]["uid"]
    at = datetime(2026, 1, 1, 0, 0, 2, 500_000, tzinfo=UTC)
    for name, about in (("kubelet", node), ("ours", uid), ("earlier", "0000-before")):
        api.create("/api/v1/namespaces/default/events", an_old_event(f"{node}.{name}", node, about))
    api.create("/api/v1/namespaces/default/events", an_old_event(f"{node}.else", f"{node}-else", uid))

    async with reading(control_plane.kubeconfig) as (reader, transport):
        records = KubeRecords(transport, may_write=lambda: None, instance="test")
        written = await records.save(
            PublishEvent(
                machine=node,
                node=node,
                node_uid=uid,
                type="Normal",
                reason="Quarantined",
                action="Fence",
                note="fenced",
                at=at,
            ),
            Attribution(term=1),
        )
        found = await reader.events_of(node, uid, newest=40)
        newest = await reader.events_of(node, uid, newest=1)

    assert written.outcome is Outcome.APPLIED
    # The node controller tells of the new Node too, at some time or other.
    known = [each.line for each in found if "2026-01-01T" in each.line]
    assert known == [
        f"2026-01-01T00:00:01Z Warning XidSeen {node}.kubelet x7",
        f"2026-01-01T00:00:01Z Warning XidSeen {node}.ours x7",
        "2026-01-01T00:00:02.500000Z Normal Quarantined fenced",
    ]
    assert len(newest) == 1


def an_old_event(name: str, node: str, uid: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name},
        "involvedObject": {"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid},
        "type": "Warning",
        "reason": "XidSeen",
        "message": name,
        "count": 7,
        "firstTimestamp": "2026-01-01T00:00:00Z",
        "lastTimestamp": "2026-01-01T00:00:01Z",
    }


async def test_job_is_read_and_its_absence_is_proved(api: Api, control_plane: ControlPlane):
    """None stands for the server's own word, also where not even the namespace is there."""
    namespace = fresh_namespace(api, f"{GROUP}-jobs")
    pod = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "none"}]}}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "m-1-fix-1", "labels": {"remediator.dev/repair": "m-1"}},
        "spec": {"suspend": True, "backoffLimit": 0, "template": pod},
    }
    async with reading(control_plane.kubeconfig) as (reader, _):
        assert await reader.job(namespace, "m-1-fix-1") is None
        assert await reader.job("no-such-namespace", "m-1-fix-1") is None
        await asyncio.to_thread(api.create, f"/apis/batch/v1/namespaces/{namespace}/jobs", job)
        found = await reader.job(namespace, "m-1-fix-1")

    assert found is not None
    assert (found.succeeded, found.failed) == (False, False)
    assert found.labels["remediator.dev/repair"] == "m-1"


async def test_run_and_policy_are_read_with_the_shipped_kinds(api: Api, control_plane: ControlPlane):
    """What decides about a leader's first write and about a lost create."""
    install_crds(api)
    run = {
        "apiVersion": "remediator.dev/v1alpha1",
        "kind": "Remediation",
        "metadata": {"name": f"{GROUP}-1"},
        "spec": {
            "machine": GROUP,
            "node": {"name": "n1", "uid": "u"},
            "trigger": "Fault",
            "mode": "Enforce",
            "faultClass": "gpu-lost",
            "severity": "Hard",
            "playbook": {"name": "p", "text": "{}"},
        },
    }
    policy = {
        "apiVersion": "remediator.dev/v1alpha1",
        "kind": "RemediationPolicy",
        "metadata": {"name": "cluster"},
    }
    try:
        async with reading(control_plane.kubeconfig) as (reader, transport):
            assert await reader.run_exists(f"{GROUP}-1") is False
            assert await reader.policy() is None
            await asyncio.to_thread(api.create, RUNS, run)
            await asyncio.to_thread(api.create, POLICIES, policy | {"spec": {"maxMode": "Enforce"}})

            assert await reader.run_exists(f"{GROUP}-1") is True
            found = await reader.policy()
            runs = await consistent_list(transport, RUNS, kind_decoder(Remediation), clock=CLOCK)
            policies = await consistent_list(transport, POLICIES, policy_decoder(), clock=CLOCK)
    finally:
        api.delete_all(RUNS)
        api.delete_all(POLICIES)

    assert found is not None
    assert found.policy.spec.max_mode == "Enforce"
    assert msgspec.json.decode(found.raw)["metadata"]["managedFields"]
    assert runs.undecodable == {}
    assert runs.views[f"{GROUP}-1"].spec.fault_class == "gpu-lost"
    listed = policies.views["cluster"]
    assert isinstance(listed.policy, RemediationPolicy)
    # The PUT is built from these bytes: unlike built-in kinds, items of a list have apiVersion and kind.
    raw = msgspec.json.decode(listed.raw)
    assert (raw["kind"], raw["apiVersion"]) == ("RemediationPolicy", "remediator.dev/v1alpha1")
    assert raw["metadata"]["uid"] == found.policy.metadata.uid


async def test_missing_permission_is_named_and_no_absence(
    api: Api, control_plane: ControlPlane, tmp_path: Path
):
    """An account without rights must not believe that a node is empty or a run is gone."""
    install_crds(api)
    namespace = fresh_namespace(api, f"{GROUP}-rights")
    kubeconfig = api.service_account_kubeconfig(namespace, "default", tmp_path / "kubeconfig")
    async with reading(kubeconfig) as (reader, _):
        for ask in (
            reader.pods_of("n1"),
            reader.events_of("n1", "u", newest=1),
            reader.job(namespace, "j"),
            reader.pod_addresses(namespace, LabelSelector()),
            reader.run_exists("m-1"),
            reader.policy(),
        ):
            with pytest.raises(PermanentError, match="missing RBAC rule"):
                await ask
