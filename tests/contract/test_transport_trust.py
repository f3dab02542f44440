"""Who we are and whom we believe: tokens that rotate, certificates, the first answer."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from pathlib import Path
from random import Random

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from remediator.adapters.clock import SystemClock
from remediator.adapters.kube.caller import Caller
from remediator.adapters.kube.config import ConnectionSettings
from remediator.adapters.kube.errors import NotSentError
from remediator.adapters.kube.server_clock import ServerClock
from remediator.adapters.kube.transport import KubeTransport, TransportSettings, open_transport
from remediator.errors import PermanentError, TransientError
from tests.contract.loopback import Received, Script, always, answer, connect, serve
from tests.contract.transport_calls import REAL, get, watch
from tests.unit.adapters.kube.kubeconfigs import kubeconfig

pytestmark = pytest.mark.asyncio


def rotating(token: Path, new: str) -> Script:
    """Refuse every token but ``new``, which appears in the file at the first refusal."""

    async def script(received: Received, writer: asyncio.StreamWriter) -> None:
        good = received.headers.get("authorization") == f"Bearer {new}"
        token.write_text(new + "\n")
        await always(answer(200, b"{}\n") if good else answer(401))(received, writer)

    return script


@pytest.mark.parametrize("call", [get, watch])
async def test_rotated_token_is_read_again_after_a_401(tmp_path, call):
    """A projected token is replaced every hour; waiting for the next re-read would fail writes."""
    token = tmp_path / "token"
    token.write_text("old\n")
    async with (
        serve(rotating(token, "new")) as server,
        connect(kubeconfig(tmp_path, server.url, user={"tokenFile": "token"})) as transport,
    ):
        await call(transport)

    assert [request.headers["authorization"] for request in server.requests] == ["Bearer old", "Bearer new"]
    assert len({request.headers["audit-id"] for request in server.requests}) == 1  # one request, tried twice


async def test_unchanged_token_is_not_tried_again(tmp_path):
    """Repeating it would double the load of a revoked account."""
    (tmp_path / "token").write_text("old")
    async with (
        serve(always(answer(401))) as server,
        connect(kubeconfig(tmp_path, server.url, user={"tokenFile": "token"})) as transport,
    ):
        reply = await get(transport)
        with pytest.raises(PermanentError) as caught:
            await watch(transport)

    assert (reply.status, caught.value.status, len(server.requests)) == (401, 401, 2)


async def test_token_that_changes_all_the_time_is_tried_once_more_only(tmp_path):
    """The retry has a bound even if each re-read gives another value."""
    token = tmp_path / "token"
    token.write_text("0")

    async def script(received: Received, writer: asyncio.StreamWriter) -> None:
        token.write_text(received.headers["authorization"].removeprefix("Bearer ") + "0")
        await always(answer(401))(received, writer)

    async with (
        serve(script) as server,
        connect(kubeconfig(tmp_path, server.url, user={"tokenFile": "token"})) as transport,
    ):
        reply = await get(transport)

    assert (reply.status, len(server.requests)) == (401, 2)


def certificates(folder: Path) -> ssl.SSLContext:
    """Make a CA that signs nothing, and a server that signs itself for 127.0.0.1 and 'api'."""
    for name in ("other", "server"):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        names = x509.SubjectAlternativeName(
            [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("api")]
        )
        start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject).issuer_name(subject).public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start).not_valid_after(start + datetime.timedelta(days=36500))
            .add_extension(names, critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )  # fmt: skip
        (folder / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (folder / f"{name}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    return context


async def test_certificate_that_does_not_verify_is_permanent_and_says_where(tmp_path):
    """Waiting cannot cure it, and 'SSL error' alone sends people the wrong way."""
    async with serve(always(answer(200)), tls=certificates(tmp_path)) as server:
        path = kubeconfig(tmp_path, server.url, cluster={"certificate-authority": "other.crt"})
        async with connect(path) as transport:
            with pytest.raises(PermanentError, match="does not verify") as caught:
                await get(transport)
            with pytest.raises(PermanentError, match="does not verify"):
                await watch(transport)

    assert all(text in str(caught.value) for text in (server.url, "other.crt", "certificate-authority", path))
    assert server.requests == []


async def test_authority_that_is_replaced_is_read_again_where_nothing_verifies(tmp_path):
    """The cluster's authority was rotated: a restart would cost the Lease, and every run a minute."""
    async with serve(always(answer(200)), tls=certificates(tmp_path)) as server:
        authority = tmp_path / "ca.crt"
        authority.write_bytes((tmp_path / "other.crt").read_bytes())
        path = kubeconfig(tmp_path, server.url, cluster={"certificate-authority": "ca.crt"})
        async with connect(path) as transport:
            with pytest.raises(PermanentError, match="does not verify"):
                await get(transport)
            authority.write_bytes((tmp_path / "server.crt").read_bytes())
            # Together: the second one to fail finds the file read already.
            replies = await asyncio.gather(*(get(transport) for _ in range(3)))

    assert [reply.status for reply in replies] == [200, 200, 200]
    assert len(server.requests) == 3, "what could not be sent was sent once"


@pytest.mark.parametrize("extra", [{}, {"tls-server-name": "api"}], ids=["by address", "by name"])
async def test_certificate_that_verifies_is_used(tmp_path, extra):
    """Also where the server is reached through another name than its own."""
    async with serve(always(answer(200)), tls=certificates(tmp_path)) as server:
        cluster = {"certificate-authority": "server.crt", **extra}
        async with connect(kubeconfig(tmp_path, server.url, cluster=cluster)) as transport:
            reply = await get(transport)
        wrong = kubeconfig(tmp_path, server.url, cluster=cluster | {"tls-server-name": "else"})
        async with connect(wrong) as transport:
            with pytest.raises(PermanentError, match="else"):
                await get(transport)

    assert reply.status == 200


async def test_tls_to_a_plain_server_was_not_sent(tmp_path):
    """A load balancer without a backend does this for a moment."""

    async def plain(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.0 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        async with connect(kubeconfig(tmp_path, f"https://127.0.0.1:{port}")) as transport:
            with pytest.raises(NotSentError, match=str(port)):
                await get(transport)


async def deaf(_: Received, writer: asyncio.StreamWriter) -> None:
    """Hang so thoroughly that not even the goodbye of TLS is read."""
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # typed as the half that only writes
    await REAL.sleep(60)


async def test_close_leaves_no_socket_to_a_tls_server_that_hangs(tmp_path):
    """The polite goodbye of TLS waits half a minute for an answer; a stop must not."""
    async with serve(deaf, tls=certificates(tmp_path)) as server:
        path = kubeconfig(tmp_path, server.url, cluster={"certificate-authority": "server.crt"})
        async with connect(path) as transport:
            for call in (get(transport, timeout_s=0.1), watch(transport, connect_timeout_s=0.1)):
                with pytest.raises(TransientError):
                    await call
        open_sockets = [each for each in transport._sessions._sockets if each.fileno() != -1]

    assert open_sockets == []


def review(user: str) -> bytes:
    return answer(201, b'{"status":{"userInfo":{"username":"%s"}}}' % user.encode())


async def opened(path: str) -> KubeTransport:
    settings = TransportSettings(connection=ConnectionSettings(kubeconfig=path, environment={}))
    clock = ServerClock(SystemClock())
    async with open_transport(settings, clock, Caller("test", rng=Random(1))) as transport:
        return transport


async def test_open_transport_proves_who_we_are(tmp_path):
    """A client release once sent no token in a cluster; every later error was misleading."""
    async with serve(always(review("admin"))) as server:
        target = (await opened(kubeconfig(tmp_path, server.url, user={"token": "t"}))).describe()
        with pytest.raises(PermanentError, match="credentials"):
            async with serve(always(review("system:anonymous"))) as nobody:
                await opened(kubeconfig(tmp_path, nobody.url, user={"token": "t"}))

    assert (target.server, target.context, target.auth) == (server.url, "loop", "token")
    assert server.requests[0].target == "/apis/authentication.k8s.io/v1/selfsubjectreviews"


@pytest.mark.parametrize(
    ("reply", "kind"),
    [(answer(401), PermanentError), (answer(503), TransientError), (answer(403), None), (answer(404), None)],
    ids=["401", "503", "403", "404"],
)
async def test_open_transport_judges_the_first_answer(tmp_path, reply, kind):
    """Bad credentials end the start; a server that is starting is tried again; no answer is no proof."""
    async with serve(always(reply)) as server:
        path = kubeconfig(tmp_path, server.url, user={"token": "secret-t"})
        if kind is None:
            await opened(path)
            return
        with pytest.raises(kind, match=server.url) as caught:
            await opened(path)

    assert "secret-t" not in str(caught.value)
