"""Finding the API server: every way a kubeconfig can be wrong, token files, and exec plugins."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from remediator.adapters.kube.caller import Caller
from remediator.adapters.kube.config import Connection, ConnectionSettings, load_connection
from remediator.adapters.kube.server_clock import ServerClock
from remediator.adapters.kube.transport import KubeTransport, TransportSettings
from remediator.errors import InputError, PermanentError, TransientError
from tests.unit.adapters.kube.kubeconfigs import kubeconfig
from tests.unit.adapters.kube.manual_clock import ManualClock

pytestmark = pytest.mark.asyncio

SERVER = "https://127.0.0.1:6443"


async def load(
    path: str | None,
    *,
    clock: ManualClock | None = None,
    context: str | None = None,
    timeout_s: float = 5.0,
    **env: str,
) -> Connection:
    settings = ConnectionSettings(
        kubeconfig=path, context=context, environment=env, plugin_timeout_s=timeout_s
    )
    return await load_connection(settings, clock=clock or ManualClock())


def write(folder: Path, name: str = "kubeconfig", **changes: Any) -> str:
    """A kubeconfig with two contexts, ``a`` (current) and ``b``; a value of None removes the key."""
    document: dict[str, Any] = {
        "current-context": "a",
        "contexts": [
            {"name": "a", "context": {"cluster": "one", "user": "me"}},
            {"name": "b", "context": {"cluster": "two", "user": "me"}},
        ],
        "clusters": [
            {"name": "one", "cluster": {"server": "https://one:1"}},
            {"name": "two", "cluster": {"server": "https://two:2"}},
        ],
        "users": [{"name": "me", "user": {"token": "t"}}],
    } | {key.replace("_", "-"): value for key, value in changes.items()}
    path = folder / name
    path.write_bytes(
        msgspec.json.encode({key: value for key, value in document.items() if value is not None})
    )
    return str(path)


async def test_current_or_named_context_is_used(tmp_path):
    """People have many clusters in one file."""
    path = write(tmp_path)
    current, named = await load(path), await load(path, context="b")

    assert (current.target.server, current.target.context) == ("https://one:1", "a")
    assert (named.target.server, named.target.context, named.target.auth) == ("https://two:2", "b", "token")
    assert named.target.source == path


@pytest.mark.parametrize(
    ("changes", "context", "expected"),
    [
        ({"current_context": None}, None, r"current-context: not set \(pass --context NAME, one of: a, b\)"),
        ({"current_context": ""}, None, "current-context: not set"),
        ({"current_context": "x"}, None, r"current-context: no context 'x' \(one of: a, b\)"),
        ({}, "prod", r"contexts: no context 'prod' \(one of: a, b\)"),
        ({"contexts": None}, None, "no context 'a'"),
        ({"contexts": [{"nom": 1}]}, None, "contexts: an entry is no"),
        ({"contexts": ["a"]}, None, "contexts: an entry is no"),
        (
            {"clusters": []},
            None,
            r"contexts\[a\]\.context\.cluster: no cluster 'one' \(clusters in the file: none",
        ),
        ({"users": None}, None, r"contexts\[a\]\.context\.user: no user 'me'"),
        ({"clusters": [{"name": "one", "cluster": {}}]}, None, "server: '' is no URL"),
        ({"clusters": [{"name": "one", "cluster": {"server": "one:6443"}}]}, None, "'one:6443' is no URL"),
        (
            {
                "clusters": [
                    {"name": "one", "cluster": {"server": SERVER, "certificate-authority": "gone.crt"}}
                ]
            },
            None,
            "gone.crt",
        ),
        (
            {
                "clusters": [
                    {"name": "one", "cluster": {"server": SERVER, "certificate-authority-data": "abcde"}}
                ]
            },
            None,
            "not usable",
        ),
        ({"users": [{"name": "me", "user": {"exec": {"command": "x"}}}]}, None, "command and apiVersion"),
    ],
)
async def test_wrong_kubeconfig_is_named_with_place_and_fix(tmp_path, changes, context, expected):
    """The first minute with the program must not end in a traceback."""
    path = write(tmp_path, **changes)
    with pytest.raises(InputError, match=expected) as caught:
        await load(path, context=context)
    assert str(caught.value).startswith(path)


async def test_missing_unreadable_or_garbled_file_is_named(tmp_path):
    """Line and column where there are any."""
    with pytest.raises(InputError, match="gone: no such file"):
        await load(str(tmp_path / "gone"))
    with pytest.raises(InputError, match="cannot be read"):
        await load(str(tmp_path))
    (tmp_path / "list").write_text("- 1\n")
    with pytest.raises(InputError, match="no mapping"):
        await load(str(tmp_path / "list"))
    for content in (b"a: 1\nb: [\n", b"\xff\xfe\x00\xd8", b"a: \x00"):
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(InputError, match="not YAML"):
            await load(str(tmp_path / "bad"))
    (tmp_path / "bad").write_text("clusters: []\ncontexts: [\n")
    with pytest.raises(InputError, match=r"bad:3:1"):
        await load(str(tmp_path / "bad"))


async def test_nothing_configured_says_what_to_do(tmp_path):
    """Neither a file nor a pod."""
    with pytest.raises(InputError, match=r"pass --kubeconfig FILE or set KUBECONFIG"):
        await load(None, HOME=str(tmp_path))


async def test_files_are_found_in_the_order_of_kubectl(tmp_path):
    """Whoever set up kubectl has set up remediator."""
    (tmp_path / ".kube").mkdir()
    home = write(tmp_path / ".kube", "config")
    listed = write(tmp_path, "listed", current_context="b")
    by_home = await load(None, HOME=str(tmp_path))
    by_variable = await load(None, HOME=str(tmp_path), KUBECONFIG=f"{tmp_path}/gone:{listed}:{home}")

    assert by_home.target.source == home
    assert by_variable.target.context == "b"
    with pytest.raises(InputError, match="gone: no such file"):
        await load(None, KUBECONFIG=f"{tmp_path}/gone")


async def test_merged_files_keep_their_own_folders(tmp_path):
    """A relative certificate belongs to the file that names it."""
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "ca.crt").write_text("not looked into here")
    cluster = {"name": "one", "cluster": {"server": SERVER, "certificate-authority": "ca.crt"}}
    first = write(tmp_path, "first", clusters=None)
    second = write(tmp_path / "x", "second", clusters=[cluster], contexts=None, users=None)
    loaded = await load(None, KUBECONFIG=f"{first}:{second}")

    assert loaded.configuration.ssl_ca_cert == str(tmp_path / "x" / "ca.crt")


@pytest.mark.parametrize("name", ["ca.crt", "me.crt"])
async def test_tls_file_that_is_no_certificate_is_named(tmp_path, name):
    """OpenSSL's own text names no file."""
    (tmp_path / name).write_text("nonsense")
    key = "certificate-authority" if name == "ca.crt" else "client-certificate"
    inside = {key: name} if name == "ca.crt" else {}
    user = {} if name == "ca.crt" else {key: name, "client-key": name}
    loaded = await load(kubeconfig(tmp_path, SERVER, user=user, cluster=inside))

    with pytest.raises(InputError, match=name):
        KubeTransport(
            loaded,
            settings=TransportSettings(),
            clock=ServerClock(ManualClock()),
            caller=Caller("test", rng=Random(1)),
        )


async def test_context_without_user_is_nobody(tmp_path):
    """For example behind `kubectl proxy`; the client crashes on it with TLS."""
    loaded = await load(write(tmp_path, contexts=[{"name": "a", "context": {"cluster": "one"}}]))

    assert loaded.target.auth == "none"
    assert await loaded.credentials.authorization() is None


async def test_password_is_sent_as_basic(tmp_path):
    """Some lab set-ups have nothing else."""
    loaded = await load(kubeconfig(tmp_path, SERVER, user={"username": "u", "password": "p"}))

    assert (loaded.target.auth, await loaded.credentials.authorization()) == ("password", "Basic dTpw")


async def test_token_file_is_read_again_once_a_minute(tmp_path):
    """The kubelet rotates it; reading it at each request would cost a system call per request."""
    clock = ManualClock()
    (tmp_path / "token").write_text("one\n")
    credentials = (
        await load(kubeconfig(tmp_path, SERVER, user={"tokenFile": "token"}), clock=clock)
    ).credentials
    (tmp_path / "token").write_text("two\n")
    await clock.advance(59)
    early = await credentials.authorization()
    await clock.advance(2)
    late = await credentials.authorization()
    (tmp_path / "token").unlink()
    await clock.advance(61)

    assert (early, late) == ("Bearer one", "Bearer two")
    assert await credentials.authorization() == "Bearer two", "a file in mid-rotation takes nothing away"


@pytest.mark.parametrize("content", [None, "", " \n", "tök"])
async def test_unusable_token_file_is_named_at_start(tmp_path, content):
    """An empty token would make us anonymous."""
    if content is not None:
        (tmp_path / "token").write_text(content)
    with pytest.raises(PermanentError, match=r"token file .*/token"):
        await load(kubeconfig(tmp_path, SERVER, user={"tokenFile": "token"}))


@pytest.mark.parametrize(
    ("host", "url"), [("10.0.0.1", "https://10.0.0.1:443"), ("fd00::1", "https://[fd00::1]:443")]
)
async def test_service_account_is_used_inside_a_pod(tmp_path, host, url):
    """The normal way to run."""
    (tmp_path / "token").write_text("t")
    (tmp_path / "ca.crt").write_text("c")
    environment = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": "443"}
    settings = ConnectionSettings(environment=environment, service_account=tmp_path)
    loaded = await load_connection(settings, clock=ManualClock())

    assert (loaded.target.server, loaded.target.auth) == (url, "service account")
    assert await loaded.credentials.authorization() == "Bearer t"
    (tmp_path / "ca.crt").unlink()
    with pytest.raises(InputError, match="automountServiceAccountToken"):
        await load_connection(settings, clock=ManualClock())


def a_plugin(folder: Path, code: str) -> dict[str, Any]:
    (folder / "plugin.py").write_text(f"import os, sys, time\n{code}\n")
    arguments = ["-S", str(folder / "plugin.py")]
    return {
        "exec": {
            "command": sys.executable,
            "args": arguments,
            "apiVersion": "client.authentication.k8s.io/v1",
        }
    }


def a_credential(**status: str) -> str:
    body = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}
    return f"print('''{msgspec.json.encode(body).decode()}''')"


async def test_exec_plugin_gives_the_token_and_is_run_again_when_needed(tmp_path):
    """The client runs it once and goes on with an expired token."""
    clock = ManualClock()
    counter = (
        "n = len(open('count').read()) if os.path.exists('count') else 0\nopen('count', 'a').write('x')\n"
    )
    expires = (clock.now() + timedelta(seconds=300)).isoformat()
    code = f"os.chdir({str(tmp_path)!r})\n{counter}" + a_credential(
        token="TOKEN", expirationTimestamp=expires
    )
    code = (
        code.replace("'''){", "'''{")
        .replace("print('''", "print(('''")
        .replace("''')", "''').replace('TOKEN', f't{n}'))")
    )
    path = kubeconfig(tmp_path, SERVER, user=a_plugin(tmp_path, code))
    loaded = await load(path, clock=clock)
    first = await loaded.credentials.authorization()
    too_soon = await loaded.credentials.renew()
    await clock.advance(20)
    renewed = await asyncio.gather(*(loaded.credentials.renew() for _ in range(5)))
    second = await loaded.credentials.authorization()
    await clock.advance(230)
    third = await loaded.credentials.authorization()

    assert loaded.target.auth.startswith("exec python")
    assert (first, second, third) == ("Bearer t0", "Bearer t1", "Bearer t2")
    assert (too_soon, renewed) == (False, [True] * 5)


@pytest.mark.parametrize(
    ("code", "kind", "expected"),
    [
        ("sys.stderr.write('no session\\n'); sys.exit(3)", TransientError, "exit code 3: no session"),
        ("print('hello')", TransientError, "not an ExecCredential"),
        (a_credential().replace("/v1", "/v1beta1"), PermanentError, "answers .*v1beta1, the kubeconfig says"),
        (a_credential(), PermanentError, "neither token nor certificate"),
        (
            "sys.stderr.write('x' * 500_000); " + a_credential(),
            PermanentError,
            "neither token nor certificate",
        ),
    ],
    ids=["fails", "garbled", "version", "empty", "chatty"],
)
async def test_exec_plugin_that_fails_is_named(tmp_path, code, kind, expected):
    """The client only logs it and goes on as nobody; a chatty one blocks it for ever."""
    with pytest.raises(kind, match=expected):
        await load(kubeconfig(tmp_path, SERVER, user=a_plugin(tmp_path, code)))


@pytest.mark.parametrize(
    "code", ["time.sleep(60)", "while True: print('x' * 65536)"], ids=["hangs", "endless"]
)
async def test_exec_plugin_is_ended_in_time(tmp_path, code):
    """A log-in that waits for a browser must not hang a pod."""
    with pytest.raises(TransientError, match=r"no answer within 0\.2 s"):
        await load(kubeconfig(tmp_path, SERVER, user=a_plugin(tmp_path, code)), timeout_s=0.2)


async def test_exec_plugin_that_is_not_installed_is_named(tmp_path):
    """Typical in an image that has no cloud tools."""
    spec = {"exec": {"command": "no-such-plugin", "apiVersion": "client.authentication.k8s.io/v1"}}
    with pytest.raises(PermanentError, match=r"no-such-plugin.*install it"):
        await load(kubeconfig(tmp_path, SERVER, user=spec))
