"""The API server's audit log: which requests it keeps, and a typed, streaming way to read it.

The log is the judge of every story, so it is written before the reply is sent (blocking mode) and
never rotated while a story runs. This module only reads; it draws no conclusions.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from remediator.adapters.audit import LINE_BYTES_MAX, WRITE_VERBS, AuditRecord
from remediator.errors import PermanentError
from remediator.testbed.waiting import wait_until

_WRITES: Final = sorted(WRITE_VERBS)
# Its own parts ask and answer all day; what they read is no part of any story.
_PLUMBING_USERS: Final = (
    "kwok",
    "system:apiserver",
    "system:kube-controller-manager",
    "system:kube-scheduler",
)
_PLUMBING_GROUPS: Final = ("system:serviceaccounts:kube-system",)


def policy(users: Sequence[str]) -> bytes:
    """Return the audit policy, as JSON, that keeps every request of ``users`` and all that may answer one.

    Bodies are kept for the writes of ``users``, and for what anybody else writes to the spec of
    nodes, pods and this project's objects. Status writes and all else come without bodies. Leases
    and Events are kept for ``users`` alone, without bodies, so that they can be counted.

    Args:
        users: user names as the API server knows them, such as
            ``system:serviceaccount:NAMESPACE:NAME``.
    """
    chatter = [
        _resources("coordination.k8s.io", "leases"),
        _resources("", "events"),
        _resources("events.k8s.io"),
    ]
    rules: list[dict[str, Any]] = []
    if users:
        mine: dict[str, Any] = {"users": list(users)}
        rules += [
            {"level": "Metadata", **mine, "resources": chatter},
            {"level": "RequestResponse", **mine, "verbs": _WRITES},
            {"level": "Metadata", **mine},
        ]
    rules += [
        {"level": "None", "resources": chatter},
        {"level": "None", "users": list(_PLUMBING_USERS), "verbs": ["get", "list", "watch"]},
        {"level": "None", "userGroups": list(_PLUMBING_GROUPS), "verbs": ["get", "list", "watch"]},
        {"level": "None", "nonResourceURLs": ["/healthz*", "/livez*", "/readyz*", "/metrics"]},
        {
            "level": "RequestResponse",
            "verbs": _WRITES,
            # A resource named without a slash leaves its subresources, status above all, out.
            "resources": [
                _resources("", "nodes", "pods", "pods/eviction", "pods/binding"),
                _resources(
                    "remediator.dev",
                    "playbooks",
                    "remediations",
                    "resourcepools",
                    "remediationpolicies",
                    "managednodes",
                ),
            ],
        },
        {"level": "Metadata"},
    ]
    content = {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "omitManagedFields": True,
        "rules": rules,
    }
    return json.dumps(content, indent=1).encode()


def _resources(group: str, *names: str) -> dict[str, Any]:
    return {"group": group, "resources": list(names)} if names else {"group": group}


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in one log file, between two lines."""

    inode: int
    offset: int


class AuditLog:
    """Reads one audit log, each story only its own part of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._decoder = msgspec.json.Decoder(AuditRecord)

    def mark(self) -> Mark:
        """Return the place behind the last complete line; zero where there is no file yet."""
        try:
            with open(self.path, "rb") as file:
                inode = _inode(file.fileno())
                end = file.seek(0, 2)
                return Mark(inode, _behind_last_newline(file, end))
        except FileNotFoundError:
            return Mark(0, 0)

    def since(self, mark: Mark | None = None, until: Mark | None = None) -> Iterator[AuditRecord]:
        """Yield the records from ``mark`` (default: the beginning) up to ``until`` (default: now).

        One line is in memory at a time. A line that is still being written is left for later.

        Raises:
            PermanentError: the file is another one than at the mark, or holds a line that is no record.
        """
        try:
            file = open(self.path, "rb")  # noqa: SIM115
        except FileNotFoundError:
            return
        with file:
            if mark is not None and mark.inode not in (0, _inode(file.fileno())):
                raise PermanentError(
                    f"{self.path} was replaced since the mark; the API server must not rotate it"
                )
            offset = file.seek(mark.offset if mark else 0)
            end = until.offset if until else None
            while end is None or offset < end:
                line = file.readline(LINE_BYTES_MAX)
                if not line.endswith(b"\n"):
                    if len(line) == LINE_BYTES_MAX:
                        raise PermanentError(
                            f"{self.path}: line at byte {offset} is over {LINE_BYTES_MAX} bytes"
                        )
                    return
                yield self._decode(line, offset)
                offset += len(line)

    def _decode(self, line: bytes, offset: int) -> AuditRecord:
        try:
            return self._decoder.decode(line)
        except msgspec.MsgspecError as error:
            raise PermanentError(f"{self.path}: no audit record at byte {offset}: {error}") from error

    def wait_for(
        self, predicate: Callable[[AuditRecord], bool], *, since: Mark, timeout_s: float, what: str
    ) -> AuditRecord:
        """Return the first record since the mark that ``predicate`` accepts, waiting for it.

        A reply can reach the client a moment before its record reaches the file.

        Raises:
            WaitExpiredError: none came within ``timeout_s``.
        """
        position = since

        def look() -> AuditRecord | None:
            nonlocal position
            end = self.mark()
            found = next((record for record in self.since(position, end) if predicate(record)), None)
            position = end
            return found

        return wait_until(look, timeout_s=timeout_s, what=what)


def _inode(descriptor: int) -> int:
    return os.fstat(descriptor).st_ino


def _behind_last_newline(file: BinaryIO, end: int) -> int:
    # Searched backwards in blocks: the last line may be half written and is at most one line long.
    block = 64 << 10
    position = end
    while position > 0:
        begin = max(0, position - block)
        file.seek(begin)
        newline = file.read(position - begin).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
        position = begin
    return 0
