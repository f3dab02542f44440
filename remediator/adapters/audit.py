"""The API server's audit log as values: who asked for what, and what was said. It draws no conclusions.

Any log of ``audit.k8s.io/v1`` can be read, plain or gzipped, one line in memory at a time.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final, cast

import msgspec

from remediator.errors import InputError, Problem

API_VERSION: Final = "audit.k8s.io/v1"
LINE_BYTES_MAX: Final = 16 << 20  # two bodies of 3 MiB each, escaped, fit
WRITE_VERBS: Final = frozenset({"create", "update", "patch", "delete", "deletecollection"})
NO_LOG: Final = "name a file that the API server wrote by its --audit-log-path"
_GZIP: Final = b"\x1f\x8b"


class User(msgspec.Struct, frozen=True, kw_only=True):
    """Who asked."""

    username: str = ""
    groups: tuple[str, ...] = ()


class ObjectReference(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for. ``name`` is empty on lists and on creations with generateName."""

    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""
    api_group: str = msgspec.field(name="apiGroup", default="")
    api_version: str = msgspec.field(name="apiVersion", default="")
    resource_version: str = msgspec.field(name="resourceVersion", default="")


class ResponseStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How it was answered; ``code`` is the HTTP status."""

    code: int = 0
    reason: str = ""
    message: str = ""


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the log: one request at one stage. Bodies stay raw JSON, empty where not kept."""

    api_version: str = msgspec.field(name="apiVersion", default="")
    stage: str
    audit_id: str = msgspec.field(name="auditID")
    verb: str
    level: str = ""
    user: User = User()
    impersonated: User | None = msgspec.field(name="impersonatedUser", default=None)
    user_agent: str = msgspec.field(name="userAgent", default="")
    request_uri: str = msgspec.field(name="requestURI", default="")
    object_ref: ObjectReference = msgspec.field(name="objectRef", default=ObjectReference())
    response_status: ResponseStatus = msgspec.field(name="responseStatus", default=ResponseStatus())
    request_object: msgspec.Raw = msgspec.field(name="requestObject", default=msgspec.Raw(b""))
    response_object: msgspec.Raw = msgspec.field(name="responseObject", default=msgspec.Raw(b""))
    received_at: datetime = msgspec.field(name="requestReceivedTimestamp")
    staged_at: datetime = msgspec.field(name="stageTimestamp")
    annotations: dict[str, str] = {}

    @property
    def username(self) -> str:
        """The user that the request counts for: the impersonated one, where there is one."""
        return (self.impersonated or self.user).username

    @property
    def committed(self) -> bool:
        """The server said yes; a write of this record changed something, or nothing was left to change."""
        return self.stage == "ResponseComplete" and 200 <= self.response_status.code < 300


class Numbered(msgspec.Struct, frozen=True, gc=False):
    """A record and the line of the file that it stands in, from 1."""

    line: int
    record: AuditRecord


def read_records(path: Path) -> Iterator[Numbered]:
    """Yield every record of one file, in its order.

    A last line without an end is left out: the API server may be writing it.

    Raises:
        InputError: no such file, or a line that is no audit record of this version; it names the line.
    """
    decoder = msgspec.json.Decoder(AuditRecord)
    try:
        with _open(path) as file:
            number = 0
            while line := file.readline(LINE_BYTES_MAX):
                number += 1
                if not line.endswith(b"\n"):
                    if len(line) == LINE_BYTES_MAX:
                        raise _wrong(path, number, f"it is over {LINE_BYTES_MAX} bytes", NO_LOG)
                    return
                yield Numbered(number, _decode(decoder, line, path, number))
    except (OSError, EOFError) as error:  # gzip.BadGzipFile is an OSError
        raise _wrong(path, 0, f"it can't be read: {error}", NO_LOG) from error


def _open(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP
    return cast("BinaryIO", gzip.open(path, "rb")) if packed else path.open("rb")


def _decode(decoder: msgspec.json.Decoder[AuditRecord], line: bytes, path: Path, number: int) -> AuditRecord:
    try:
        record = decoder.decode(line)
    except msgspec.MsgspecError as error:
        raise _wrong(path, number, f"no audit record: {error}", "write one JSON record a line") from error
    if record.api_version != API_VERSION:
        found = record.api_version or "no apiVersion"
        raise _wrong(path, number, f"a record of {found}", f"this program reads {API_VERSION}")
    return record


def _wrong(path: Path, line: int, message: str, fix: str) -> InputError:
    return InputError((Problem(str(path), line, 0, "", message, fix),))


def writes(
    records: Iterable[AuditRecord],
    *,
    users: Iterable[str] | None = None,
    resource: str | None = None,
    subresource: str | None = None,
) -> Iterator[AuditRecord]:
    """Yield the completed writes among ``records``, accepted or refused, in log order.

    Args:
        records: as ``AuditLog.since`` yields them.
        users: only of these user names; None for everybody.
        resource: only on this resource (plural, lower case), subresources included.
        subresource: only on this subresource; the empty string for the object itself.
    """
    wanted = None if users is None else frozenset(users)
    for record in records:
        if record.stage != "ResponseComplete" or record.verb not in WRITE_VERBS:
            continue
        if wanted is not None and record.username not in wanted:
            continue
        if resource is not None and record.object_ref.resource != resource:
            continue
        if subresource is not None and record.object_ref.subresource != subresource:
            continue
        yield record
