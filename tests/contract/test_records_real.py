"""Our own objects and Events on a real API server: created, patched, put, deleted and looked up."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from remediator.adapters.kube.discovery import RESOURCES, Rule, check_installed, missing_rules
from remediator.adapters.kube.records import KubeRecords
from remediator.adapters.kube.reflector import Reflector
from remediator.adapters.kube.store import Store, raw_object_changed
from remediator.adapters.kube.transport import KubeTransport
from remediator.adapters.kube.wire import RawKeepingDecoder, RawObject, resource_version_of
from remediator.errors import PermanentError
from remediator.model.action import (
    Attribution,
    CreateLedger,
    CreateRun,
    DeleteRun,
    PublishEvent,
    SavePolicy,
    SaveRun,
)
from remediator.model.ledger import ManagedNode, ManagedNodeStatus, Out
from remediator.model.meta import ObjectMeta
from remediator.model.policy import Grant, PolicyStatus, RateState, RemediationPolicy
from remediator.model.remediation import (
    NodeRef,
    PlaybookRef,
    Remediation,
    RemediationSpec,
    RemediationStatus,
    StepStatus,
)
from remediator.ports import Outcome, Refusal
from remediator.testbed.api import Api
from remediator.testbed.launcher import ControlPlane
from tests.contract.live import CLOCK, NODES, ROOT, a_node, connected, install_crds, remove_nodes, until

pytestmark = [pytest.mark.asyncio, pytest.mark.real_server]
WHO = Attribution(term=7, run="n1-3", step="fence")
AT = "2026-01-01T00:00:00Z"
RUN = Remediation(
    metadata=ObjectMeta(name="records-1"),
    spec=RemediationSpec(
        machine="records",
        node=NodeRef(name="n1", uid="11111111-1111-1111-1111-111111111111"),
        trigger="Fault",
        mode="Enforce",
        fault_class="gpu.fallen-off",
        severity="Hard",
        playbook=PlaybookRef(name="p", text="{}"),
    ),
    status=RemediationStatus(state="Granted"),
)


@pytest.fixture(autouse=True)
def _installed(api: Api) -> None:
    install_crds(api)


def a_door(transport: KubeTransport) -> KubeRecords:
    return KubeRecords(transport, may_write=lambda: None, instance="contract")


async def test_run_lives_from_intent_to_deletion(control_plane: ControlPlane, api: Api):
    """The audit record: born without status, patched field by field, deleted only as last seen."""
    path = f"{ROOT}/remediations/records-1"
    step = StepStatus(id="fence", action="quarantine", state="Intent", started_at=AT)
    waiting = RemediationStatus(state="Draining", waits_for="PDB a/b", until=AT, steps=(step,))
    done = RemediationStatus(
        state="Detached", steps=(msgspec.structs.replace(step, state="Done", finished_at=AT),)
    )
    async with connected(control_plane.kubeconfig) as transport:
        door = a_door(transport)
        created = await door.save(CreateRun(run=RUN), WHO)
        again = await door.save(CreateRun(run=RUN), WHO)
        born = api.get(path)
        version = resource_version_of(created.body)
        first = await door.save(SaveRun("records-1", version, RemediationStatus(), waiting), WHO)
        stale = await door.save(SaveRun("records-1", version, waiting, done), WHO)
        version = resource_version_of(first.body)
        second = await door.save(SaveRun("records-1", version, waiting, done), WHO)
        now = api.get(path)
        uid, latest = now["metadata"]["uid"], resource_version_of(second.body)
        older = await door.save(DeleteRun("records-1", uid, version), WHO)
        deleted = await door.save(DeleteRun("records-1", uid, latest), WHO)
        gone = await door.save(DeleteRun("records-1", uid, latest), WHO)

    assert (created.outcome, again.refusal) == (Outcome.APPLIED, Refusal.EXISTS)
    assert "status" not in born
    assert stale.refusal is Refusal.CONFLICT
    assert now["status"] == msgspec.to_builtins(done) | {"steps": now["status"]["steps"]}
    assert "waitsFor" not in now["status"]
    assert [each["state"] for each in now["status"]["steps"]] == ["Done"]
    assert (older.refusal, deleted.outcome, gone.refusal) == (
        Refusal.CONFLICT,
        Outcome.APPLIED,
        Refusal.GONE,
    )
    assert api.find(path) is None


async def test_ledger_is_created_with_its_story(control_plane: ControlPlane, api: Api):
    """Custody of a taint hangs on it."""
    out = Out(run="records-1", since=AT, fault_class="gpu.fallen-off")
    ledger = ManagedNode(
        metadata=ObjectMeta(name="records-ledger"), status=ManagedNodeStatus(state="Out", out=out)
    )
    async with connected(control_plane.kubeconfig) as transport:
        written = await a_door(transport).save(CreateLedger(node=ledger), WHO)
        again = await a_door(transport).save(CreateLedger(node=ledger), WHO)

    found = api.get(f"{ROOT}/managednodes/records-ledger")
    api.delete(f"{ROOT}/managednodes/records-ledger")
    assert (written.outcome, again.refusal) == (Outcome.APPLIED, Refusal.EXISTS)
    assert resource_version_of(written.body) == found["metadata"]["resourceVersion"]
    assert found["status"] == {"state": "Out", "out": msgspec.to_builtins(out)}


async def test_grants_are_put_by_compare_and_swap(control_plane: ControlPlane, api: Api):
    """Two leaders, one version: the server lets exactly one of them through."""
    path = f"{ROOT}/remediationpolicies"
    body = {"apiVersion": RUN.api_version, "kind": "RemediationPolicy", "metadata": {"name": "cluster"}}
    if api.find(f"{path}/cluster") is None:
        api.create(path, {**body, "spec": {"maxMode": "Enforce", "maxConcurrent": 3}})
    async with connected(control_plane.kubeconfig) as transport:
        store: Store[RawObject[RemediationPolicy]] = Store(clock=CLOCK, changed=raw_object_changed)
        decoder = RawKeepingDecoder(RemediationPolicy)
        reflector = Reflector(transport, store, decoder, path, clock=CLOCK, rng=random.Random(1))
        task = asyncio.create_task(reflector.run())
        try:
            await until(lambda: "cluster" in store, "policy known")
            seen = store.views()["cluster"].raw
            status = PolicyStatus(
                term=4,
                grants=(Grant(run="records-1", uid="u"),),
                rates=(RateState(scope="fleet", tokens=1.5, at=AT),),
            )
            first = await a_door(transport).save(SavePolicy(raw=seen, status=status), WHO)
            rival = await a_door(transport).save(SavePolicy(raw=seen, status=PolicyStatus(term=5)), WHO)
            assert await store.wait_for(resource_version_of(first.body), 10.0)
            kept = store.views()["cluster"]
            emptied = await a_door(transport).save(SavePolicy(kept.raw, PolicyStatus(term=4)), WHO)
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    assert (first.outcome, rival.refusal) == (Outcome.APPLIED, Refusal.CONFLICT)
    assert kept.object.status == status
    assert kept.object.spec.max_concurrent == msgspec.json.decode(seen)["spec"]["maxConcurrent"]
    assert emptied.outcome is Outcome.APPLIED
    found: dict[str, Any] = api.get(f"{path}/cluster")
    api.remove(f"{path}/cluster")  # the server is shared, and others begin without a policy
    assert found["status"] == {"term": 4}


async def test_events_are_accepted_for_a_node_with_its_real_uid(control_plane: ControlPlane, api: Api):
    """`kubectl describe node` is where people look first."""
    node = api.create(NODES, a_node("records-events", "records"))
    event = PublishEvent(
        machine="records-events",
        node="records-events",
        node_uid=node["metadata"]["uid"],
        type="Warning",
        reason="Quarantined",
        action="Quarantine",
        note="ä" * 2_000,
        at=datetime.now(UTC),
        run="records-1",
        run_uid="11111111-1111-1111-1111-111111111111",
    )
    async with connected(control_plane.kubeconfig) as transport:
        first = await a_door(transport).save(event, WHO)
        again = await a_door(transport).save(event, WHO)
        with pytest.raises(PermanentError) as nameless:
            await a_door(transport).save(msgspec.structs.replace(event, reason=""), WHO)
    described = control_plane.kubectl("describe", "node", "records-events").stdout
    remove_nodes(api, "records")

    assert (first.outcome, again.refusal) == (Outcome.APPLIED, Refusal.EXISTS)
    assert nameless.value.status == 422
    assert "Quarantined" in described
    assert "remediator.dev/controller" in described


@pytest.mark.watch_list
async def test_discovery_tells_what_is_there(control_plane: ControlPlane):
    """Start-up must say what to install before the first pass fails on it."""
    async with connected(control_plane.kubeconfig) as transport:
        installed = await check_installed(transport)

    assert (installed.missing, installed.watch_list) == ((), True)
    assert installed.server_version.startswith("v1.")
    assert "remediations/status" in RESOURCES


async def test_missing_rules_are_named_one_by_one(control_plane: ControlPlane, api: Api, tmp_path: Path):
    """An administrator lacks none; an account that may only read nodes lacks exactly the rest."""
    rules = (
        Rule("", "nodes", "watch"),
        Rule("", "nodes", "patch"),
        Rule("", "pods/eviction", "create"),
        Rule("batch", "jobs", "create", "repairs"),
    )
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader"}}
    api.create("/api/v1/namespaces/default/serviceaccounts", account)
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "reader"},
    }
    allowed = [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["watch"]}]
    api.create(f"{rbac}/clusterroles", {**role, "rules": allowed})
    subject = {"kind": "ServiceAccount", "name": "reader", "namespace": "default"}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reader"}
    binding = {**role, "kind": "ClusterRoleBinding", "subjects": [subject], "roleRef": reference}
    api.create(f"{rbac}/clusterrolebindings", binding)
    path = api.service_account_kubeconfig("default", "reader", tmp_path / "reader")
    async with connected(control_plane.kubeconfig) as transport:
        assert await missing_rules(transport, rules) == ()
    async with connected(path) as transport:
        missing = await missing_rules(transport, rules)

    assert [str(each) for each in missing] == [
        "patch nodes core",
        "create pods/eviction core",
        "create jobs batch namespace=repairs",
    ]
