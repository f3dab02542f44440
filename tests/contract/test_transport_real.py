"""The transport against a real API server: what the loopback fakes claim, the server must do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from remediator.adapters.clock import SystemClock
from remediator.adapters.kube.config import ConnectionSettings
from remediator.adapters.kube.errors import check_read, classify_write
from remediator.adapters.kube.server_clock import ServerClock
from remediator.adapters.kube.transport import KubeTransport, TransportSettings, open_transport
from remediator.errors import InputError, PermanentError, TransientError
from remediator.ports import Lane, Outcome, Refusal, Response
from remediator.testbed.api import Api
from remediator.testbed.audit import AuditLog, Mark
from remediator.testbed.certificates import Authority
from remediator.testbed.kubeconfig import read
from remediator.testbed.launcher import ControlPlane
from tests.contract.live import a_caller

pytestmark = [pytest.mark.asyncio, pytest.mark.real_server]

MAPS = "/api/v1/namespaces/default/configmaps"
SELF = "/api"  # every authenticated account may read it
CLOCK = ServerClock(SystemClock())


@asynccontextmanager
async def opened(kubeconfig: Path) -> AsyncIterator[KubeTransport]:
    connection = ConnectionSettings(kubeconfig=str(kubeconfig), environment={})
    async with open_transport(TransportSettings(connection=connection), CLOCK, a_caller()) as transport:
        yield transport


async def send(
    transport: KubeTransport, method: str, path: str, body: object = None, **headers: str
) -> Response:
    return await transport.request(
        method,
        path,
        headers=headers,
        body=None if body is None else msgspec.json.encode(body),
        timeout_s=10,
        lane=Lane.NORMAL,
    )


def a_map(name: str, **data: str) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


async def test_open_transport_knows_server_and_user(control_plane: ControlPlane):
    """Certificates and TLS of a real server, and its own word on who we are."""
    async with opened(control_plane.kubeconfig) as transport:
        user = await transport.check_identity()
        target = transport.describe()

    assert user
    assert target.server.startswith("https://127.0.0.1:")
    assert (target.auth, target.source) == ("client certificate", str(control_plane.kubeconfig))


async def test_replies_of_the_server_are_classified(control_plane: ControlPlane, api: Api):
    """The texts and reasons that the classification relies on belong to the server."""
    api.delete_all(MAPS)
    merge = {"Content-Type": "application/merge-patch+json"}
    async with opened(control_plane.kubeconfig) as transport:
        created = classify_write(await send(transport, "POST", MAPS, a_map("a")), "POST")
        again = classify_write(await send(transport, "POST", MAPS, a_map("a")), "POST")
        stale = {"metadata": {"resourceVersion": "1"}, "data": {"x": "y"}}
        conflict = classify_write(await send(transport, "PATCH", f"{MAPS}/a", stale, **merge), "PATCH")
        gone = classify_write(await send(transport, "PATCH", f"{MAPS}/none", {}, **merge), "PATCH")
        with pytest.raises(PermanentError) as wrong:
            classify_write(await send(transport, "POST", MAPS, a_map("Not A Name")), f"POST {MAPS}")
        with pytest.raises(PermanentError) as kind:
            check_read(
                await send(transport, "GET", "/apis/remediator.dev/v9/things"),
                "GET /apis/remediator.dev/v9/things",
            )
        with pytest.raises(PermanentError) as resource:
            check_read(await send(transport, "GET", "/api/v1/things"), "GET /api/v1/things")
        with pytest.raises(PermanentError) as missing:
            check_read(await send(transport, "GET", f"{MAPS}/none"), f"GET {MAPS}/none")

    assert created.outcome is Outcome.APPLIED
    assert b'"name":"a"' in created.body
    assert (again.refusal, conflict.refusal, gone.refusal) == (Refusal.EXISTS, Refusal.CONFLICT, Refusal.GONE)
    assert wrong.value.status == 422
    assert "kubectl apply -f deploy/crds" in str(kind.value)
    assert "does not serve that kind" in str(resource.value)
    assert "does not serve" not in str(missing.value)


async def test_forbidden_names_the_rule_that_is_missing(
    control_plane: ControlPlane, api: Api, tmp_path: Path
):
    """The sentence that the server writes is parsed; it must not change unnoticed."""
    path = a_nobody(api, tmp_path, "without-rights")
    async with opened(path) as transport:
        with pytest.raises(PermanentError) as nodes:
            check_read(await send(transport, "GET", "/api/v1/nodes"), "GET /api/v1/nodes")
        leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
        with pytest.raises(PermanentError) as lease:
            classify_write(await send(transport, "POST", leases, {}), f"POST {leases}")

    assert "missing RBAC rule: list nodes core" in str(nodes.value)
    assert "missing RBAC rule: create leases coordination.k8s.io namespace=default" in str(lease.value)


def a_nobody(api: Api, folder: Path, name: str) -> Path:
    """A kubeconfig of a service account that may do nothing."""
    accounts = "/api/v1/namespaces/default/serviceaccounts"
    if api.find(f"{accounts}/{name}") is None:
        api.create(accounts, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}})
    return api.service_account_kubeconfig("default", name, folder / f"{name}.kubeconfig")


async def test_eviction_that_a_budget_forbids_is_a_refusal(control_plane: ControlPlane, api: Api):
    """Told apart from overload by its cause, and two budgets by a text without a reason."""
    name, pods, budgets = (
        "kept",
        "/api/v1/namespaces/default/pods",
        "/apis/policy/v1/namespaces/default/poddisruptionbudgets",
    )
    labels = {"contract": "eviction"}
    meta = {"name": name, "labels": labels}
    container = {"name": "c", "image": "i"}
    api.create(
        pods, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [container]}}
    )
    # An eviction of a pod that never ran ignores budgets; no kubelet runs it here, so we say so.
    ready = {"type": "Ready", "status": "True"}
    api.merge_patch(
        f"{pods}/{name}", {"status": {"phase": "Running", "conditions": [ready]}}, subresource="status"
    )
    budget = {"selector": {"matchLabels": labels}, "maxUnavailable": 0}
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    answers = []
    try:
        async with opened(control_plane.kubeconfig) as transport:
            for number in ("one", "two"):
                body = {
                    "apiVersion": "policy/v1",
                    "kind": "PodDisruptionBudget",
                    "metadata": {"name": number},
                }
                api.create(budgets, body | {"spec": budget})
                answers.append(await send(transport, "POST", f"{pods}/{name}/eviction", eviction))
    finally:
        api.delete_all(budgets)
        api.delete(f"{pods}/{name}", grace_s=0)

    assert [answer.status for answer in answers] == [429, 500]
    assert {classify_write(answer, "POST eviction").refusal for answer in answers} == {Refusal.BUDGET}


async def test_audit_log_shows_the_callers_headers_and_each_request_once(
    control_plane: ControlPlane, api: Api, audit: AuditLog, audit_mark: Mark
):
    """Every rule is proved from these records."""
    api.delete_all(MAPS)
    agent = "remediator/0 (term=7; run=a-1; step=drain; attempt=2)"
    headers = {"User-Agent": agent, "Audit-ID": "3f1c1a52-0000-4000-8000-000000000001"}
    async with opened(control_plane.kubeconfig) as transport:
        await send(transport, "POST", MAPS, a_map("audited"), **headers)
        await send(transport, "DELETE", f"{MAPS}/audited", **headers)

    audit.wait_for(
        lambda record: record.audit_id == headers["Audit-ID"] and record.verb == "delete",
        since=audit_mark,
        timeout_s=5,
        what="the record of our delete",
    )
    ours = [record for record in audit.since(audit_mark) if record.audit_id == headers["Audit-ID"]]
    assert [(record.verb, record.user_agent) for record in ours] == [("create", agent), ("delete", agent)]


async def test_watch_delivers_lines_and_ends_when_the_server_ends_it(control_plane: ControlPlane, api: Api):
    """A clean end is normal; silence is not."""
    api.delete_all(MAPS)
    version = api.get(MAPS)["metadata"]["resourceVersion"]
    query = {
        "watch": "true",
        "resourceVersion": version,
        "timeoutSeconds": "2",
        "fieldSelector": "metadata.name=big",
    }
    lines: list[bytes] = []
    async with opened(control_plane.kubeconfig) as transport:
        async with aclosing(
            transport.stream(MAPS, query=query, connect_timeout_s=5, idle_timeout_s=30)
        ) as stream:
            await send(transport, "POST", MAPS, a_map("big", text="x" * 900_000))
            async for line in stream:
                lines.append(line)
        silent = transport.stream(
            MAPS, query={"watch": "true", "resourceVersion": version}, connect_timeout_s=5, idle_timeout_s=1
        )
        with pytest.raises(TransientError, match="silent for 1 s"):
            await drain(silent)

    assert [msgspec.json.decode(line)["type"] for line in lines] == ["ADDED"]
    assert len(lines[0]) > 900_000


async def drain(lines: AsyncIterator[bytes]) -> None:
    async for _ in lines:
        pass


async def test_watch_of_a_forbidden_or_missing_kind_is_permanent(
    control_plane: ControlPlane, api: Api, tmp_path: Path
):
    """Both come as a status before any line."""
    async with opened(a_nobody(api, tmp_path, "without-rights")) as transport:
        for path, status in (("/api/v1/nodes", 403), ("/apis/remediator.dev/v9/things", 403)):
            with pytest.raises(PermanentError) as caught:
                await drain(
                    transport.stream(path, query={"watch": "1"}, connect_timeout_s=5, idle_timeout_s=5)
                )
            assert caught.value.status == status
    async with opened(control_plane.kubeconfig) as transport:
        with pytest.raises(PermanentError, match="deploy/crds") as missing:
            await drain(
                transport.stream(
                    "/apis/remediator.dev/v9/things",
                    query={"watch": "1"},
                    connect_timeout_s=5,
                    idle_timeout_s=5,
                )
            )
    assert missing.value.status == 404


def a_kubeconfig(folder: Path, server: str, authority: bytes, user: dict[str, str]) -> Path:
    """Write a kubeconfig from its parts."""
    (folder / "ca.crt").write_bytes(authority)
    cluster = {"server": server, "certificate-authority": "ca.crt"}
    document = {
        "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        "clusters": [{"name": "x", "cluster": cluster}],
        "users": [{"name": "x", "user": user}],
    }
    path = folder / "changed"
    path.write_bytes(msgspec.json.encode(document))
    return path


async def test_rotated_token_is_used_once_the_server_refuses_the_old_one(
    control_plane: ControlPlane, api: Api, tmp_path: Path
):
    """As a pod sees it: the old token is dead, the file has changed, and no request fails."""
    access = read(a_nobody(api, tmp_path, "rotating"))
    token = tmp_path / "token"
    token.write_text(access.token)
    path = a_kubeconfig(tmp_path, access.server, access.authority, {"tokenFile": "token"})
    accounts = "/api/v1/namespaces/default/serviceaccounts"
    async with opened(path) as transport:
        # A new account under the old name: its tokens are others.
        api.delete(f"{accounts}/rotating")
        fresh = read(a_nobody(api, tmp_path, "rotating"))
        for _ in range(150):  # the server remembers a good token for ten seconds
            refused = await send(transport, "GET", SELF)
            if refused.status == 401:
                break
            await CLOCK.sleep(0.1)
        token.write_text(fresh.token)
        accepted = await send(transport, "GET", SELF)

    assert (refused.status, accepted.status) == (401, 200)


async def test_wrong_authority_dead_port_and_bad_token_are_told_apart(
    control_plane: ControlPlane, tmp_path: Path
):
    """Three things that people mix up when they install it."""
    access = read(control_plane.kubeconfig)
    foreign = Authority.create(tmp_path)
    token = {"token": "wrong"}
    cases = [
        (PermanentError, "does not verify", access.server, foreign.certificate, token),
        (InputError, r"ca\.crt", access.server, b"", token),
        (TransientError, "127", "https://127.0.0.1:1", access.authority, token),
        (PermanentError, "credentials", access.server, access.authority, token),
    ]
    for kind, text, server, authority, user in cases:
        path = a_kubeconfig(tmp_path, server, authority, user)
        with pytest.raises(kind, match=text):
            async with opened(path):
                pass


async def test_server_that_stands_still_ends_in_a_time_out(quick_control_plane: ControlPlane):
    """The half-open connection of a hung server, with its own kernel still answering."""
    async with opened(quick_control_plane.kubeconfig) as transport:
        await send(transport, "GET", "/version")
        quick_control_plane.pause_component("kube-apiserver")
        try:
            with pytest.raises(TransientError, match=r"no complete reply within 0\.5 s"):
                await transport.request("GET", "/version", timeout_s=0.5, lane=Lane.URGENT)
        finally:
            quick_control_plane.resume_component("kube-apiserver")
        reply = await send(transport, "GET", "/version")

    assert reply.status == 200


async def test_many_requests_share_few_connections(control_plane: ControlPlane):
    """A TLS handshake per request would cost more than the request."""
    async with opened(control_plane.kubeconfig) as transport:
        replies = await asyncio.gather(*(send(transport, "GET", "/version") for _ in range(100)))

    assert {reply.status for reply in replies} == {200}
