"""A Lease server with optimistic concurrency, and a wire to it that fails on order, in virtual time."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from remediator.errors import TransientError
from remediator.ports import Lane, Response
from tests.unit.adapters.kube.manual_clock import ManualClock

PATH = "/apis/coordination.k8s.io/v1/namespaces/remediator/leases"
# What a request meets: the server's answer, or one of these.
OK, HANG, STUCK, LOST_REPLY, ERROR, FORBIDDEN = "ok", "hang", "stuck", "lost reply", "500", "403"

FORBIDDEN_TEXT = 'cannot get resource "leases" in API group "coordination.k8s.io" in the namespace "r"'


@dataclass
class Call:
    at: float
    method: str
    timeout_s: float
    lane: Lane


class LeaseServer:
    """One Lease with optimistic concurrency, as the API server keeps it."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self._version = 100

    def edit(self, **spec: object) -> None:
        """Change the Lease as a person or another candidate would."""
        self._version += 1
        old = self.lease or {"metadata": {"name": "leader", "namespace": "remediator"}, "spec": {}}
        changed = copy.deepcopy(old)
        changed["spec"] |= spec
        changed["metadata"]["resourceVersion"] = str(self._version)
        self.lease = changed

    @property
    def spec(self) -> dict[str, Any]:
        assert self.lease is not None
        return dict(self.lease["spec"])

    def handle(self, method: str, path: str, body: bytes | None) -> Response:
        sent = msgspec.json.decode(body) if body else {}
        match method:
            case "GET" if path == f"{PATH}/leader":
                return self._found() if self.lease else a_status(404, 'leases "leader" not found')
            case "POST" if path == PATH:
                if self.lease:
                    return a_status(409, 'leases "leader" already exists', "AlreadyExists")
            case "PUT" if path == f"{PATH}/leader":
                if self.lease is None:
                    return a_status(404, 'leases "leader" not found')
                if sent["metadata"].get("resourceVersion") != self.lease["metadata"]["resourceVersion"]:
                    return a_status(409, "the object has been modified", "Conflict")
            case _:
                return a_status(405, f"{method} {path}")
        self.lease = sent
        self.edit()
        return self._found()

    def _found(self) -> Response:
        return Response(200, {}, msgspec.json.encode(self.lease))


def a_status(code: int, message: str, reason: str = "") -> Response:
    details = {"name": "leader"} if code in (404, 409) else {}
    return Response(code, {}, msgspec.json.encode({"message": message, "reason": reason, "details": details}))


@dataclass
class Wire:
    """``ports.Transport`` to the server, with a fault chosen per request."""

    server: LeaseServer
    clock: ManualClock
    fault: Callable[[str], str] = lambda _: OK
    calls: list[Call] = field(default_factory=list)

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float,
        lane: Lane,
    ) -> Response:
        self.calls.append(Call(self.clock.monotonic(), method, timeout_s, lane))
        fault = self.fault(method)
        if fault == FORBIDDEN:
            return a_status(403, FORBIDDEN_TEXT)
        if fault == ERROR:
            return a_status(500, "etcdserver: request timed out")
        if fault == STUCK:
            await self.clock.sleep(1e6)
        reply = None if fault == HANG else self.server.handle(method, path, body)
        if reply is None or fault == LOST_REPLY:
            await self.clock.sleep(timeout_s)
            raise TransientError(f"{method} {path}: no complete reply within {timeout_s:g} s")
        return reply

    def stream(self, path: str, **_: object) -> AsyncIterator[bytes]:
        raise AssertionError("an election watches nothing")
