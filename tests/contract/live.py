"""What the contract tests of the Kubernetes adapter share: a connection, and a few small objects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

from ruamel.yaml import YAML

from remediator.adapters.clock import SystemClock
from remediator.adapters.dice import draw_seed
from remediator.adapters.kube.caller import Caller
from remediator.adapters.kube.config import ConnectionSettings
from remediator.adapters.kube.server_clock import ServerClock
from remediator.adapters.kube.transport import KubeTransport, TransportSettings, open_transport
from remediator.testbed.api import Api, ApiError
from remediator.testbed.waiting import wait_until

CLOCK = ServerClock(SystemClock())
NODES = "/api/v1/nodes"
WAIT_S = 15.0
ROOT = "/apis/remediator.dev/v1alpha1"
_CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_CRD_FILES = Path(__file__).resolve().parents[2] / "deploy" / "crds"


def a_caller() -> Caller:
    """Somebody new: one audit log holds what many tests send, and no Audit-ID may be there twice."""
    return Caller("contract", rng=Random(draw_seed()))


@asynccontextmanager
async def connected(kubeconfig: Path) -> AsyncIterator[KubeTransport]:
    connection = ConnectionSettings(kubeconfig=str(kubeconfig), environment={})
    async with open_transport(TransportSettings(connection=connection), CLOCK, a_caller()) as transport:
        yield transport


async def until(true: Callable[[], object], what: str, *, timeout_s: float = WAIT_S) -> None:
    """Wait for something that the server is about to do, with a bound."""
    for _ in range(int(timeout_s / 0.02)):
        if true():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"not within {timeout_s:g} s: {what}")


def a_node(name: str, group: str, **spec: object) -> dict[str, Any]:
    """A Node that no kubelet stands behind. It says Ready, so that nobody taints it."""
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "fine"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"test-group": group}},
        "spec": spec,
        "status": {"conditions": [ready], "allocatable": {"nvidia.com/gpu": "8"}},
    }


def a_pod(name: str, node: str = "", **labels: str) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "containers": [{"name": "c", "image": "none"}],
        "terminationGracePeriodSeconds": 30,
    }
    if node:
        spec["nodeName"] = node
    spec["automountServiceAccountToken"] = False
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}


def fresh_namespace(api: Api, name: str) -> str:
    """Make a namespace for one test; the control plane is shared, so names are never used twice."""
    api.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    api.wait_for(
        f"/api/v1/namespaces/{name}/serviceaccounts/default", lambda found: bool(found), timeout_s=WAIT_S
    )
    return name


def remove_nodes(api: Api, group: str) -> None:
    api.delete_all(NODES, label_selector=f"test-group={group}")


def install_crds(api: Api) -> None:
    """Apply the shipped custom resources and wait until they are served. Idempotent."""
    for file in sorted(_CRD_FILES.glob("*.yaml")):
        document = YAML(typ="safe", pure=True).load(file)
        path = f"{_CRDS}/{document['metadata']['name']}"
        api.apply(path, document)
        api.wait_for(path, _established, timeout_s=WAIT_S)
        _await_served(api, f"{ROOT}/{document['spec']['names']['plural']}")


def _established(found: dict[str, Any]) -> bool:
    conditions = found.get("status", {}).get("conditions") or []  # null at first
    return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)


def _await_served(api: Api, collection: str) -> None:
    def served() -> bool:
        try:
            return api.find(collection) is not None
        except ApiError as error:
            if error.status != 429:  # "storage is (re)initializing", just after Established
                raise
            return False

    wait_until(served, timeout_s=WAIT_S, what=collection)
