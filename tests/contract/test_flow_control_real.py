"""In which queue of the API server our requests wait: the server says it in each reply."""

from __future__ import annotations

import pytest

from remediator.ports import Lane
from tests.contract.guarded import PROBE, Guarded
from tests.contract.live import NODES, connected

pytestmark = [pytest.mark.asyncio, pytest.mark.real_server, pytest.mark.timeout(120)]
FLOW = "/apis/flowcontrol.apiserver.k8s.io/v1"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/remediator/leases"


@pytest.mark.parametrize(
    ("method", "path", "schema", "level"),
    [
        ("GET", f"{LEASES}/remediator", "remediator-lease", "leader-election"),
        ("PATCH", f"{NODES}/{PROBE}", "remediator-writes", "remediator"),
        ("POST", "/api/v1/namespaces/default/pods/none/eviction", "remediator-writes", "remediator"),
        ("GET", NODES, "remediator-reads", "remediator"),
        ("GET", "/version", "remediator-reads", "remediator"),
    ],
)
async def test_our_requests_wait_in_their_own_level(
    guarded: Guarded, method: str, path: str, schema: str, level: str
):
    """A storm of pods and agents fills the level of all service accounts, and would hold ours up with it."""
    async with connected(guarded.kubeconfig) as transport:
        headers = {"Content-Type": "application/merge-patch+json"} if method == "PATCH" else {}
        reply = await transport.request(
            method, path, headers=headers, body=b"{}", timeout_s=10.0, lane=Lane.NORMAL
        )

    wanted = {
        "x-kubernetes-pf-flowschema-uid": guarded.admin.get(f"{FLOW}/flowschemas/{schema}"),
        "x-kubernetes-pf-prioritylevel-uid": guarded.admin.get(f"{FLOW}/prioritylevelconfigurations/{level}"),
    }
    assert {key: reply.headers.get(key) for key in wanted} == {
        key: found["metadata"]["uid"] for key, found in wanted.items()
    }
