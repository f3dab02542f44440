"""The metrics port with TLS and token review: a real API server, and the rights of the shipped component."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from remediator.adapters.kube.reviewer import ALLOWED_S, TokenReviewer
from remediator.adapters.telemetry.certificate import REREAD_S, ServingCertificate
from remediator.adapters.telemetry.health import HealthServer
from remediator.adapters.telemetry.metrics import Metrics
from remediator.errors import PermanentError
from remediator.testbed.certificates import Authority
from tests.contract.guarded import NAMESPACE, Guarded
from tests.contract.live import connected
from tests.deploy.manifests import DEPLOY, load
from tests.unit.adapters.kube.manual_clock import ManualClock

pytestmark = [pytest.mark.asyncio, pytest.mark.real_server, pytest.mark.timeout(120)]
HOST = "127.0.0.1"
ACCOUNTS = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts"
BINDINGS = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
ROLES = "/apis/rbac.authorization.k8s.io/v1/clusterroles"


@pytest.fixture(scope="module")
def reviewed(guarded: Guarded) -> Iterator[Guarded]:
    """The component's rights, a Prometheus that may read, and a stranger who may not."""
    binding, reader = load(DEPLOY / "components/metrics-auth/rbac.yaml")
    guarded.admin.create(BINDINGS, binding)
    guarded.admin.create(ROLES, reader)
    for name in ("prometheus", "stranger"):
        guarded.admin.create(ACCOUNTS, {"metadata": {"name": name}})
    may_read = {
        "metadata": {"name": "prometheus-reads-remediator"},
        "roleRef": {**binding["roleRef"], "name": reader["metadata"]["name"]},
        "subjects": [{"kind": "ServiceAccount", "name": "prometheus", "namespace": NAMESPACE}],
    }
    guarded.admin.create(BINDINGS, may_read)
    yield guarded
    for path in (
        f"{BINDINGS}/prometheus-reads-remediator",
        f"{BINDINGS}/{binding['metadata']['name']}",
        f"{ROLES}/{reader['metadata']['name']}",
        f"{ACCOUNTS}/prometheus",
        f"{ACCOUNTS}/stranger",
    ):
        guarded.admin.remove(path)


def bearer(guarded: Guarded, account: str) -> dict[str, str]:
    spec = {"spec": {"expirationSeconds": 600}}
    made = guarded.admin.create(f"{ACCOUNTS}/{account}/token", spec)
    return {"Authorization": f"Bearer {made['status']['token']}"}


class Port:
    """Our port with a certificate of its own authority, and clients that believe in that alone."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = Authority.create(directory)
        self.clock = ManualClock()
        self.exchange()

    def exchange(self) -> None:
        """Put another certificate there, as cert-manager does."""
        pair = self.authority.serving("remediator", addresses=(HOST,))
        (self.directory / "tls.crt").write_bytes(pair.certificate)
        (self.directory / "tls.key").write_bytes(pair.key)

    @asynccontextmanager
    async def serving(self, kubeconfig: Path) -> AsyncIterator[str]:
        async with connected(kubeconfig) as transport:
            server = HealthServer(
                HOST,
                0,
                Metrics(),
                ready=tuple,
                alive=lambda: None,
                measure=lambda: None,
                status=dict,
                certificate=ServingCertificate(self.directory, clock=self.clock),
                guard=TokenReviewer(transport, clock=self.clock),
            )
            async with server:
                yield f"https://{HOST}:{server.port}"

    async def get(self, url: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
        """Status and text, over a connection of its own that believes in our authority alone."""
        context = ssl.create_default_context(cadata=self.authority.certificate.decode())
        connector = aiohttp.TCPConnector(ssl=context, force_close=True)
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get(url, headers=headers) as reply,
        ):
            return reply.status, await reply.text()

    async def shown(self, url: str) -> str:
        """The certificate that a new connection is shown now."""
        await self.get(f"{url}/healthz")  # a probe
        return await asyncio.to_thread(ssl.get_server_certificate, (HOST, int(url.rpartition(":")[2])))


@pytest.fixture
def port(tmp_path: Path) -> Port:
    return Port(tmp_path)


async def test_metrics_are_for_those_whom_rbac_lets(reviewed: Guarded, port: Port):
    """Token and right are the cluster's own; probes need neither."""
    async with port.serving(reviewed.kubeconfig) as url:
        allowed = await port.get(f"{url}/metrics", bearer(reviewed, "prometheus"))
        stranger = await port.get(f"{url}/metrics", bearer(reviewed, "stranger"))
        garbage = await port.get(f"{url}/statusz", {"Authorization": "Bearer garbage"})
        nobody = await port.get(f"{url}/metrics")
        probe = await port.get(f"{url}/healthz")

    assert allowed[0] == 200
    assert "# TYPE remediator_" in allowed[1]
    assert stranger[0] == 403
    assert f"system:serviceaccount:{NAMESPACE}:stranger may not get /metrics" in stranger[1]
    assert (garbage[0], nobody[0], probe[0]) == (401, 401, 200)


async def test_right_that_is_taken_away_ends_within_a_minute(reviewed: Guarded, port: Port):
    binding = f"{BINDINGS}/prometheus-reads-remediator"
    async with port.serving(reviewed.kubeconfig) as url:
        token = bearer(reviewed, "prometheus")
        assert (await port.get(f"{url}/metrics", token))[0] == 200
        taken = reviewed.admin.get(binding)
        reviewed.admin.remove(binding)
        try:
            await port.clock.advance(ALLOWED_S + 1)
            refused = (await port.get(f"{url}/metrics", token))[0]
        finally:
            taken["metadata"] = {"name": taken["metadata"]["name"]}
            reviewed.admin.create(BINDINGS, taken)

    assert refused == 403


async def test_exchanged_certificate_is_shown_without_a_restart(reviewed: Guarded, port: Port):
    """It is looked for with the probes that come anyway; the connection after the next shows it."""
    async with port.serving(reviewed.kubeconfig) as url:
        first = await port.shown(url)
        port.exchange()
        await port.clock.advance(REREAD_S + 1)
        second = await port.shown(url)
        (port.directory / "tls.key").write_bytes(b"half of a pair")
        await port.clock.advance(REREAD_S + 1)
        third = await port.shown(url)

    assert first != second
    assert second == third, "what was good is good until it ends"


async def test_certificate_that_is_not_there_is_told_with_its_fix(tmp_path: Path):
    with pytest.raises(PermanentError, match=r"tls\.crt and tls\.key .* mount a Secret"):
        ServingCertificate(tmp_path, clock=ManualClock())
