"""Finds out which API server to talk to and as whom: a kubeconfig or the pod's service account.

Reads files and environment once, at start, and reports every problem with file and fix. Opens
no connection.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kubernetes.aio.client import Configuration
from kubernetes.aio.config import ConfigException, load_kube_config_from_dict
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from remediator.adapters.kube.credentials import (
    Credentials,
    ExecStatus,
    ExecToken,
    FixedCredentials,
    Plugin,
    TokenFile,
)
from remediator.errors import InputError, PermanentError, Problem, TransientError
from remediator.ports import Clock

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
KUBECONFIG_BYTES_MAX = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """Where to look.

    ``kubeconfig`` None: $KUBECONFIG, then ~/.kube/config, then the pod's service account, as
    kubectl does. ``context`` None: the current one. ``plugin_timeout_s`` bounds an exec plugin
    and any other log-in at start.
    """

    kubeconfig: str | None = None
    context: str | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    service_account: Path = SERVICE_ACCOUNT
    plugin_timeout_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Target:
    """What a person wants to know about a connection. Holds no secret."""

    server: str
    context: str  # "" inside a pod
    auth: str  # "token", "token file", "client certificate", "exec NAME", "none", …
    source: str  # the file or directory that it was read from


@dataclass(frozen=True, slots=True)
class Connection:
    """Everything that is needed to open sessions to one API server."""

    target: Target
    configuration: Configuration
    credentials: Credentials


async def load_connection(settings: ConnectionSettings, *, clock: Clock) -> Connection:
    """Read the configuration.

    Raises:
        InputError: kubeconfig missing, unreadable, not YAML, without a usable context, or naming
            files that are missing or wrong.
        PermanentError: a token file or exec plugin that cannot work.
        TransientError: an exec plugin or log-in that failed or took too long.
    """
    paths = _kubeconfig_paths(settings)
    if not paths:
        return _load_service_account(settings, clock)
    documents = [(path, _read_kubeconfig(path)) for path in paths]
    return await _load_context(_choose(documents, settings.context), settings, clock)


def _kubeconfig_paths(settings: ConnectionSettings) -> list[Path]:
    """Return the files to merge; empty: use the service account."""
    if settings.kubeconfig is not None:
        return [Path(settings.kubeconfig).expanduser()]
    listed = settings.environment.get("KUBECONFIG", "")
    if paths := [Path(name).expanduser() for name in listed.split(os.pathsep) if name]:
        present = [path for path in paths if path.exists()]
        return present or paths[:1]  # none exists: the first is reported as missing
    home = settings.environment.get("HOME")
    default = Path(home) / ".kube" / "config" if home else None
    if default is not None and default.exists():
        return [default]
    if settings.environment.get("KUBERNETES_SERVICE_HOST"):
        return []
    raise _problem(
        default or Path("~/.kube/config"),
        "",
        "no kubeconfig, and not inside a pod (KUBERNETES_SERVICE_HOST is not set)",
        "pass --kubeconfig FILE or set KUBECONFIG",
    )


def _problem(path: Path, where: str, message: str, fix: str, line: int = 0, column: int = 0) -> InputError:
    return InputError((Problem(str(path), line, column, where, message, fix),))


def _read_kubeconfig(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(KUBECONFIG_BYTES_MAX + 1)
    except FileNotFoundError as error:
        raise _problem(path, "", "no such file", "pass --kubeconfig FILE or set KUBECONFIG") from error
    except OSError as error:
        raise _problem(path, "", f"cannot be read: {error.strerror}", "check path and mode") from error
    if len(text) > KUBECONFIG_BYTES_MAX:
        raise _problem(path, "", f"larger than {KUBECONFIG_BYTES_MAX} bytes", "is this a kubeconfig?")
    try:
        document = YAML(typ="safe", pure=True).load(text)
    except (YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        reason = getattr(error, "problem", None) or "cannot be parsed"
        raise _problem(path, "", f"not YAML: {reason}", "correct the file", line, column) from error
    if not isinstance(document, dict):
        fix = "kubectl config view shows the shape"
        raise _problem(path, "", "not a kubeconfig: no mapping at the top", fix)
    return document


@dataclass(frozen=True, slots=True)
class _Chosen:
    """One context with its cluster and user, file names made absolute."""

    path: Path  # of the context
    context: str
    cluster: dict[str, Any]
    user: dict[str, Any]
    base: Path  # directory of the user's file, for the plugin's relative command


def _choose(documents: list[tuple[Path, dict[str, Any]]], wanted: str | None) -> _Chosen:
    contexts = _entries(documents, "contexts", "context")
    known = ", ".join(sorted(contexts)) or "none"
    named = (str(text.get("current-context") or "") for _, text in documents)
    name = wanted or next(filter(None, named), "")  # the first file that names one wins
    if not name:
        fix = f"pass --context NAME, one of: {known}"
        raise _problem(documents[0][0], "current-context", "not set", fix)
    if name not in contexts:
        where = "contexts" if wanted else "current-context"
        raise _problem(documents[0][0], where, f"no context {name!r}", f"one of: {known}")
    path, context = contexts[name]
    cluster_path, cluster = _referred(documents, "cluster", context, path, name)
    nobody: tuple[Path, dict[str, Any]] = (path, {})
    user_path, user = _referred(documents, "user", context, path, name) if context.get("user") else nobody
    for body, keys, base in (
        (cluster, ("certificate-authority",), cluster_path.parent),
        (user, ("client-certificate", "client-key", "tokenFile"), user_path.parent),
    ):
        for key in keys:
            if body.get(key):
                body[key] = str(base.absolute() / str(body[key]))
    return _Chosen(path, name, cluster, user, user_path.parent.absolute())


def _entries(
    documents: list[tuple[Path, dict[str, Any]]], plural: str, singular: str
) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Index one list of all files by name; the first file wins, as in kubectl."""
    found: dict[str, tuple[Path, dict[str, Any]]] = {}
    for path, document in documents:
        for entry in document.get(plural) or []:
            body = entry.get(singular) or {} if isinstance(entry, dict) else None
            if not isinstance(body, dict) or "name" not in entry:
                raise _problem(path, plural, f"an entry is no {{name, {singular}}} pair", "correct the file")
            found.setdefault(str(entry["name"]), (path, dict(body)))
    return found


def _referred(
    documents: list[tuple[Path, dict[str, Any]]], kind: str, context: dict[str, Any], path: Path, name: str
) -> tuple[Path, dict[str, Any]]:
    entries = _entries(documents, f"{kind}s", kind)
    reference = str(context.get(kind) or "")
    if reference not in entries:
        known = ", ".join(sorted(entries)) or "none"
        where = f"contexts[{name}].context.{kind}"
        raise _problem(path, where, f"no {kind} {reference!r}", f"{kind}s in the file: {known}")
    return entries[reference]


async def _load_context(chosen: _Chosen, settings: ConnectionSettings, clock: Clock) -> Connection:
    server = str(chosen.cluster.get("server") or "")
    _check_server(server, chosen.path)
    user = dict(chosen.user)
    auth, credentials = await _credentials(chosen, user, settings, clock)
    configuration = Configuration()
    document = {
        "current-context": "chosen",
        "contexts": [{"name": "chosen", "context": {"cluster": "chosen", "user": "chosen"}}],
        "clusters": [{"name": "chosen", "cluster": chosen.cluster}],
        "users": [{"name": "chosen", "user": user}],
    }
    try:
        async with asyncio.timeout(settings.plugin_timeout_s):
            await load_kube_config_from_dict(  # type: ignore[no-untyped-call]  # the client has no types here
                document, client_configuration=configuration
            )
    except TimeoutError as error:
        message = f"{chosen.path}: log-in by {auth} took longer than {settings.plugin_timeout_s:g} s"
        raise TransientError(message) from error
    except (ConfigException, binascii.Error, ValueError, TypeError, KeyError, OSError) as error:
        message = f"context {chosen.context!r} is not usable: {error}"
        raise _problem(chosen.path, "", message, "correct the file") from error
    target = Target(server.rstrip("/"), chosen.context, auth, str(chosen.path))
    fallback = FixedCredentials(configuration.api_key.get("BearerToken"))
    return Connection(target, configuration, credentials or fallback)


async def _credentials(
    chosen: _Chosen, user: dict[str, Any], settings: ConnectionSettings, clock: Clock
) -> tuple[str, Credentials | None]:
    """Name the kind of log-in; take over tokenFile and exec, which the client never renews.

    Removes from ``user`` what the client must not see, and adds a plugin's certificate. None:
    the client's own value is used.
    """
    if "auth-provider" in user:
        provider = user["auth-provider"]
        return f"auth-provider {provider.get('name', '') if isinstance(provider, dict) else ''}".strip(), None
    if isinstance(spec := user.pop("exec", None), dict):
        plugin = _plugin(spec, chosen, settings)
        status = await plugin.run()
        name = f"exec {Path(plugin.argv[0]).name}"
        if status.token:
            return name, ExecToken(plugin, clock=clock, first=status)
        _take_certificate(status, user, plugin)
        return name, FixedCredentials(None)
    token_file = user.pop("tokenFile", None)
    if token_file and not user.get("token"):
        return "token file", TokenFile(Path(token_file), clock=clock)
    if user.get("token"):
        return "token", None
    if user.get("client-certificate") or user.get("client-certificate-data"):
        return "client certificate", None
    return ("password" if user.get("username") else "none"), None


def _plugin(spec: dict[str, Any], chosen: _Chosen, settings: ConnectionSettings) -> Plugin:
    command, version = spec.get("command"), spec.get("apiVersion")
    if not isinstance(command, str) or not isinstance(version, str) or not command:
        where = f"users[of context {chosen.context}].user.exec"
        raise _problem(chosen.path, where, "command and apiVersion are required", "correct the file")
    if os.sep in command:  # a bare name is looked up in PATH, a path is relative to the file
        command = str(chosen.base / command)
    environment = dict(settings.environment)
    environment |= {str(item["name"]): str(item["value"]) for item in spec.get("env") or []}
    environment["KUBERNETES_EXEC_INFO"] = (
        f'{{"apiVersion":"{version}","kind":"ExecCredential","spec":{{"interactive":false}}}}'
    )
    arguments = tuple(str(argument) for argument in spec.get("args") or [])
    return Plugin((command, *arguments), environment, version, settings.plugin_timeout_s)


def _take_certificate(status: ExecStatus, user: dict[str, Any], plugin: Plugin) -> None:
    if not status.client_certificate_data or not status.client_key_data:
        raise PermanentError(f"exec plugin {plugin.argv[0]}: answers neither token nor certificate and key")
    user["client-certificate-data"] = base64.b64encode(status.client_certificate_data.encode()).decode()
    user["client-key-data"] = base64.b64encode(status.client_key_data.encode()).decode()


def _check_server(server: str, path: Path) -> None:
    parts = urlsplit(server)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise _problem(path, "clusters[].cluster.server", f"{server!r} is no URL", "write https://HOST:PORT")


def _load_service_account(settings: ConnectionSettings, clock: Clock) -> Connection:
    host = settings.environment.get("KUBERNETES_SERVICE_HOST", "")
    port = settings.environment.get("KUBERNETES_SERVICE_PORT", "443")
    authority = settings.service_account / "ca.crt"
    if not authority.is_file():
        fix = "set automountServiceAccountToken: true, or pass --kubeconfig FILE"
        raise _problem(authority, "", "no such file", fix)
    configuration = Configuration()
    configuration.host = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    configuration.ssl_ca_cert = str(authority)
    token = TokenFile(settings.service_account / "token", clock=clock)
    target = Target(configuration.host, "", "service account", str(settings.service_account))
    return Connection(target, configuration, token)
