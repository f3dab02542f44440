"""Kubeconfig files with everything embedded, so that one file is enough to copy."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Final

import msgspec

from remediator.errors import PermanentError
from remediator.testbed.certificates import Pair, write_private

BYTES_MAX: Final = 1 << 20


class _Cluster(msgspec.Struct, kw_only=True, omit_defaults=True):
    server: str
    certificate_authority_data: str = msgspec.field(name="certificate-authority-data", default="")
    certificate_authority: str = msgspec.field(name="certificate-authority", default="")
    tls_server_name: str = msgspec.field(name="tls-server-name", default="")


class _User(msgspec.Struct, kw_only=True, omit_defaults=True):
    client_certificate_data: str = msgspec.field(name="client-certificate-data", default="")
    client_key_data: str = msgspec.field(name="client-key-data", default="")
    token: str = ""
    token_file: str = msgspec.field(name="tokenFile", default="")


class _Context(msgspec.Struct, kw_only=True, omit_defaults=True):
    cluster: str
    user: str
    namespace: str = ""


class _NamedCluster(msgspec.Struct, kw_only=True):
    name: str
    cluster: _Cluster


class _NamedUser(msgspec.Struct, kw_only=True):
    name: str
    user: _User


class _NamedContext(msgspec.Struct, kw_only=True):
    name: str
    context: _Context


class _File(msgspec.Struct, kw_only=True):
    api_version: str = msgspec.field(name="apiVersion", default="v1")
    kind: str = "Config"
    clusters: list[_NamedCluster]
    users: list[_NamedUser]
    contexts: list[_NamedContext]
    current_context: str = msgspec.field(name="current-context")


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach one API server as one identity: a client pair, a bearer token, or a file with one.

    ``authority_file``, where others may exchange it, counts instead of ``authority``; ``tls_name`` is the
    name that the server's certificate has to carry, where that is not the address.
    """

    server: str
    authority: bytes
    pair: Pair | None = None
    token: str = ""
    token_file: str = ""
    authority_file: str = ""
    tls_name: str = ""


def write(path: Path, user: str, access: Access, *, namespace: str = "") -> None:
    """Write a kubeconfig (mode 0600; JSON, which is YAML too) whose one context is ``testbed``."""
    credentials = _User(token=access.token, token_file=access.token_file)
    if access.pair:
        credentials.client_certificate_data = _encoded(access.pair.certificate)
        credentials.client_key_data = _encoded(access.pair.key)
    cluster = _Cluster(
        server=access.server,
        certificate_authority_data="" if access.authority_file else _encoded(access.authority),
        certificate_authority=access.authority_file,
        tls_server_name=access.tls_name,
    )
    content = _File(
        clusters=[_NamedCluster(name="testbed", cluster=cluster)],
        users=[_NamedUser(name=user, user=credentials)],
        contexts=[
            _NamedContext(name="testbed", context=_Context(cluster="testbed", user=user, namespace=namespace))
        ],
        current_context="testbed",
    )
    write_private(path, msgspec.json.format(msgspec.json.encode(content)))


def read(path: Path) -> Access:
    """Read a file that ``write`` wrote.

    Raises:
        PermanentError: another shape; general kubeconfigs are not this module's business.
    """
    with open(path, "rb") as file:
        text = file.read(BYTES_MAX)
    try:
        content = msgspec.json.decode(text, type=_File)
        cluster, user = content.clusters[0].cluster, content.users[0].user
    except (msgspec.MsgspecError, IndexError) as error:
        raise PermanentError(f"{path} is no kubeconfig of a test bed: {error}") from error
    pair = None
    if user.client_certificate_data:
        pair = Pair(_decoded(user.client_certificate_data), _decoded(user.client_key_data))
    authority = _decoded(cluster.certificate_authority_data)
    return Access(
        server=cluster.server,
        authority=authority,
        pair=pair,
        token=user.token,
        token_file=user.token_file,
        authority_file=cluster.certificate_authority,
        tls_name=cluster.tls_server_name,
    )


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _decoded(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
