"""The writer against a real API server: preconditions that bite, and refusals that are told apart."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import msgspec
import pytest

from remediator.adapters.kube.projection import job_decoder, node_decoder
from remediator.adapters.kube.reflector import Reflector
from remediator.adapters.kube.store import Store, node_changed
from remediator.adapters.kube.transport import KubeTransport
from remediator.adapters.kube.wire import resource_version_of
from remediator.adapters.kube.writer import KubeWriter
from remediator.errors import PermanentError
from remediator.model.action import Attribution, CreateJob, EvictPod, PatchNode
from remediator.model.views import NodeView
from remediator.ports import Outcome, Refusal
from remediator.testbed.api import Api
from remediator.testbed.audit import AuditLog, Mark
from remediator.testbed.launcher import ControlPlane
from tests.contract.live import CLOCK, NODES, a_node, a_pod, connected, fresh_namespace, remove_nodes, until

pytestmark = [pytest.mark.asyncio, pytest.mark.real_server]
WHO = Attribution(term=7, run="n1-3", step="fence", attempt=2)
GROUP = "writer-real"
NODE = f"{NODES}/writer-real"


@pytest.fixture
def node(api: Api) -> Iterator[dict[str, Any]]:
    """A Ready node from which the server's own controllers want nothing any more."""
    api.create(NODES, a_node("writer-real", GROUP))
    api.wait_for(NODE, settled, timeout_s=30)
    yield api.get(NODE)
    remove_nodes(api, GROUP)


def settled(found: dict[str, Any]) -> bool:
    """Node lifecycle has taken its taint back, and the TTL controller has left its annotation."""
    annotated = "node.alpha.kubernetes.io/ttl" in (found["metadata"].get("annotations") or {})
    return annotated and not found["spec"].get("taints")


def a_writer(transport: KubeTransport) -> KubeWriter:
    return KubeWriter(transport, may_write=lambda: None)


def a_patch(found: dict[str, Any], **patch: object) -> PatchNode:
    meta = found["metadata"]
    return PatchNode(meta["name"], meta["uid"], meta["resourceVersion"], patch)


async def test_patch_lands_once_and_a_stale_one_is_a_conflict(
    control_plane: ControlPlane, node: dict[str, Any], api: Api
):
    """Even where the second patch would change nothing: what it was decided on is gone."""
    patch = a_patch(
        node, spec={"unschedulable": True}, metadata={"annotations": {"remediator.dev/run": "r/s"}}
    )
    async with connected(control_plane.kubeconfig) as transport:
        first = await a_writer(transport).apply(patch, WHO)
        second = await a_writer(transport).apply(patch, WHO)
        missing = await a_writer(transport).apply(msgspec.structs.replace(patch, name="nobody"), WHO)

    found = api.get(NODE)
    assert first.outcome is Outcome.APPLIED
    assert int(resource_version_of(first.body)) > int(node["metadata"]["resourceVersion"])
    assert (second.outcome, second.refusal) == (Outcome.REFUSED, Refusal.CONFLICT)
    assert missing.refusal is Refusal.GONE
    assert found["spec"]["unschedulable"] is True
    assert found["metadata"]["annotations"]["remediator.dev/run"] == "r/s"
    assert found["metadata"]["annotations"]["remediator.dev/term"] == "7"


async def test_foreign_taints_survive_ours(control_plane: ControlPlane, node: dict[str, Any], api: Api):
    """The list is atomic: what we do not send back, we have deleted."""
    theirs = {"key": "team/x", "value": "v", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"}
    api.merge_patch(NODE, {"spec": {"taints": [theirs]}})
    ours = b'{"key":"remediator.dev/quarantine","value":"gpu","effect":"NoSchedule"}'
    async with connected(control_plane.kubeconfig) as transport:
        store: Store[NodeView] = Store(clock=CLOCK, changed=node_changed)
        decoder = node_decoder(gpu_resource="nvidia.com/gpu")
        query = {"labelSelector": f"test-group={GROUP}"}
        reflector = Reflector(
            transport, store, decoder, NODES, clock=CLOCK, rng=random.Random(1), query=query
        )
        task = asyncio.create_task(reflector.run())
        try:
            await until(lambda: store.synced, "node known")
            view = store.views()["writer-real"]
            taints = msgspec.Raw(view.taints_raw[:-1] + b"," + ours + b"]")
            patch = PatchNode(view.name, view.uid, view.resource_version, {"spec": {"taints": taints}})
            written = await a_writer(transport).apply(patch, WHO)
            assert await store.wait_for(resource_version_of(written.body), 10.0)
            assert store.views()["writer-real"].taint("remediator.dev/quarantine") is not None
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    assert api.get(NODE)["spec"]["taints"] == [theirs, msgspec.json.decode(ours)]


async def test_audit_log_names_run_step_and_attempt(
    control_plane: ControlPlane, node: dict[str, Any], audit: AuditLog, audit_mark: Mark
):
    """The proof of each rule is the server's own record, word for word."""
    async with connected(control_plane.kubeconfig) as transport:
        await a_writer(transport).apply(a_patch(node, spec={"unschedulable": True}), WHO)

    def mine() -> list[str]:
        log = control_plane.layout.audit_log.read_text(errors="replace").splitlines()
        return [line for line in log if "run=n1-3; step=fence; attempt=2" in line and '"patch"' in line]

    await until(mine, "audit record")
    record = msgspec.json.decode(mine()[-1])
    assert record["userAgent"].endswith("(term=7; run=n1-3; step=fence; attempt=2)")
    assert record["auditID"][14] == "4"  # the UUID that we drew, version 4


async def test_evictions_are_accepted_refused_and_bound_to_the_uid(control_plane: ControlPlane, api: Api):
    """The server alone decides; each kind of no has its own name here."""
    space = fresh_namespace(api, "evictions")
    pods = f"/api/v1/namespaces/{space}/pods"
    budgets = f"/apis/policy/v1/namespaces/{space}/poddisruptionbudgets"
    uids = {}
    for name in ("free", "kept", "torn"):
        uids[name] = api.create(pods, a_pod(name, "nowhere", app=name))["metadata"]["uid"]
        running = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}
        api.merge_patch(f"{pods}/{name}", running, subresource="status")
    for name, app in (("one", "kept"), ("two", "torn"), ("three", "torn")):
        spec = {"maxUnavailable": 0, "selector": {"matchLabels": {"app": app}}}
        body = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name}}
        api.create(budgets, {**body, "spec": spec})
        api.wait_for(
            f"{budgets}/{name}",
            lambda found: found.get("status", {}).get("observedGeneration") == 1,
            timeout_s=15,
        )
    async with connected(control_plane.kubeconfig) as transport:
        writer = a_writer(transport)
        kept = await writer.apply(EvictPod(space, "kept", uids["kept"]), WHO)
        torn = await writer.apply(EvictPod(space, "torn", uids["torn"]), WHO)
        other = await writer.apply(EvictPod(space, "free", uids["kept"]), WHO)
        free = await writer.apply(EvictPod(space, "free", uids["free"]), WHO)
        gone = await writer.apply(EvictPod(space, "nobody", uids["free"]), WHO)

    assert (kept.outcome, kept.refusal) == (Outcome.REFUSED, Refusal.BUDGET)
    assert (torn.outcome, torn.refusal) == (Outcome.REFUSED, Refusal.BUDGET)
    assert "more than one PodDisruptionBudget" in torn.message
    assert (other.outcome, other.refusal) == (Outcome.REFUSED, Refusal.CONFLICT)
    assert (free.outcome, gone.refusal) == (Outcome.APPLIED, Refusal.GONE)
    assert "deletionTimestamp" in api.get(f"{pods}/free")["metadata"]
    assert "deletionTimestamp" not in api.get(f"{pods}/kept")["metadata"]


async def test_repair_job_is_made_from_its_template_once(
    control_plane: ControlPlane, api: Api, node: dict[str, Any]
):
    """One attempt, one Job, one pod, on the node itself although that is cordoned and tainted."""
    space = fresh_namespace(api, "repairs")
    container = {"name": "c", "image": "none", "env": [{"name": "A", "value": "theirs"}]}
    template = {"metadata": {"labels": {"team": "hw"}}, "spec": {"containers": [container]}}
    body = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "reboot"}, "template": template}
    api.create(f"/api/v1/namespaces/{space}/podtemplates", body)
    taint = {"key": "remediator.dev/quarantine", "effect": "NoSchedule"}
    api.merge_patch(NODE, {"spec": {"unschedulable": True, "taints": [taint]}})
    job = CreateJob(
        namespace=space,
        name="n1-3-reboot-1",
        template="reboot",
        node="writer-real",
        labels={"remediator.dev/repair": "n1-3"},
        env={"A": "ours", "EXPECTED_BOOT_ID": "b"},
        deadline_s=600,
    )
    async with connected(control_plane.kubeconfig) as transport:
        first = await a_writer(transport).apply(job, WHO)
        second = await a_writer(transport).apply(job, WHO)
        with pytest.raises(PermanentError, match="nothing") as missing:
            await a_writer(transport).apply(msgspec.structs.replace(job, template="nothing"), WHO)

    assert first.outcome is Outcome.APPLIED
    assert (second.outcome, second.refusal) == (Outcome.REFUSED, Refusal.EXISTS)
    assert missing.value.status == 404
    created = job_decoder().listed(msgspec.Raw(first.body)).view
    assert created is not None
    assert (created.name, created.succeeded, created.failed) == ("n1-3-reboot-1", False, False)
    pods = f"/api/v1/namespaces/{space}/pods"
    await until(lambda: api.list(pods), "the Job's pod")
    (pod,) = api.list(pods)
    assert pod["spec"]["nodeName"] == "writer-real"
    assert pod["metadata"]["labels"]["remediator.dev/repair"] == "n1-3"
    assert {"name": "A", "value": "ours"} in pod["spec"]["containers"][0]["env"]
    made = api.get(f"/apis/batch/v1/namespaces/{space}/jobs/n1-3-reboot-1")
    assert (made["spec"]["backoffLimit"], made["spec"]["activeDeadlineSeconds"]) == (0, 600)
    assert made["metadata"]["annotations"]["remediator.dev/term"] == "7"
