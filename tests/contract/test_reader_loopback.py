"""Reads over a real connection: what the client and the socket make of paths, queries and bodies."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from remediator.adapters.kube.reader import KubeReader
from remediator.model.meta import LabelRequirement, LabelSelector
from tests.contract.loopback import Received, answer, connect, serve
from tests.unit.adapters.kube.kubeconfigs import kubeconfig
from tests.unit.adapters.kube.manual_clock import ManualClock
from tests.unit.adapters.kube.scripted import a_page

pytestmark = pytest.mark.asyncio
POLICY = {
    "apiVersion": "remediator.dev/v1alpha1",
    "kind": "RemediationPolicy",
    "metadata": {"name": "cluster", "resourceVersion": "7"},
    "spec": {"maxMode": "Enforce", "future": {"key": 1}},
}
POD = {
    "metadata": {"name": "a", "namespace": "gpu", "uid": "u", "resourceVersion": "5"},
    "spec": {"nodeName": "n1"},
    "status": {"phase": "Running", "podIP": "10.0.0.1"},
}
ABSENT = {
    "kind": "Status",
    "reason": "NotFound",
    "message": '"x" not found',
    "details": {"name": "x", "group": "x", "kind": "things"},
}


async def test_reads_over_a_real_connection(tmp_path: Path):
    """Paths, queries and bodies survive the client, the socket and a real HTTP answer."""
    selector = LabelSelector(
        match_expressions=(
            LabelRequirement(key="example.com/app", operator="In", values=("a", "b")),
            LabelRequirement(key="old", operator="DoesNotExist"),
        )
    )

    async def script(received: Received, writer: asyncio.StreamWriter) -> None:
        path = received.target.split("?")[0]
        if path == "/api/v1/namespaces/gpu/pods":
            writer.write(answer(200, a_page(9, POD).body))
        elif path == "/apis/remediator.dev/v1alpha1/remediationpolicies/cluster":
            writer.write(answer(200, msgspec.json.encode(POLICY)))
        else:
            writer.write(answer(404, msgspec.json.encode(ABSENT)))
        await writer.drain()

    async with serve(script) as server, connect(kubeconfig(tmp_path, server.url)) as transport:
        reader = KubeReader(
            transport, clock=ManualClock(), gpu_resource="nvidia.com/gpu", pod_annotations=frozenset()
        )
        assert await reader.pod_addresses("gpu", selector) == {"n1": ("10.0.0.1",)}
        found = await reader.policy()
        assert found is not None
        assert msgspec.json.decode(found.raw) == POLICY
        assert await reader.run_exists("m-1") is False
        assert await reader.job("repair", "j") is None

    query = server.requests[0].target.split("?")[1]
    assert "labelSelector=example.com%2Fapp+in+%28a%2Cb%29%2C%21old" in query.replace("%20", "+")
