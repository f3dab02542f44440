"""Audit records as kube-apiserver writes them: one line of JSON for each request that was answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from random import Random
from typing import Final
from uuid import UUID

import msgspec
from msgspec import Raw

from remediator.sim.refusal import Json
from remediator.sim.request import Request, Route

Sink = Callable[[bytes], None]
NOBODY_READS: Final = frozenset(
    ("leases", "events")
)  # kept without bodies, as the shipped audit policy has it

# There are no rights here: what is refused is refused by something else.
ALLOWED: Final[Mapping[str, str]] = {"authorization.k8s.io/decision": "allow"}

_encode = msgspec.json.Encoder().encode


def micro_time(when: datetime) -> str:
    """As metav1.MicroTime is written."""
    return when.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Audit:
    """Tells ``sink`` of each request at stage ResponseComplete, bodies of writes included."""

    def __init__(self, sink: Sink, rng: Random) -> None:
        self._sink = sink
        self._rng = rng

    def record(
        self, request: Request, route: Route | None, *,
        began: datetime, ended: datetime, code: int, answered: bytes, refusal: Json | None,
    ) -> None:  # fmt: skip
        """Write one line. ``answered`` is the body of the reply, empty where it is not kept."""
        bodies = route is not None and request.method != "GET" and route.kind.plural not in NOBODY_READS
        line: Json = {
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": "RequestResponse" if bodies else "Metadata",
            "auditID": request.headers.get("audit-id")
            or str(UUID(int=self._rng.getrandbits(128), version=4)),
            "stage": "ResponseComplete",
            "requestURI": _uri(request),
            "verb": route.verb if route is not None else request.method.lower(),
            "user": {"username": request.user.name, "groups": request.user.groups},
            "sourceIPs": ["127.0.0.1"],
            "userAgent": request.headers.get("user-agent", ""),
            "responseStatus": _status(code, refusal),
        }
        if route is not None:
            line["objectRef"] = _reference(route, answered if bodies and refusal is None else b"")
        if bodies and request.body:
            line["requestObject"] = Raw(request.body)
        if bodies and answered:
            line["responseObject"] = Raw(answered)
        line["requestReceivedTimestamp"] = micro_time(began)
        line["stageTimestamp"] = micro_time(ended)
        line["annotations"] = ALLOWED
        self._sink(_encode(line))


def _uri(request: Request) -> str:
    asked = "&".join(f"{key}={value}" for key, value in request.query.items())
    return f"{request.path}?{asked}" if asked else request.path


def _status(code: int, refusal: Json | None) -> Json:
    status: Json = {"metadata": {}, "code": code}
    for name in ("status", "message", "reason", "details"):
        if refusal is not None and name in refusal:
            status[name] = refusal[name]
    return status


class _Meta(msgspec.Struct, frozen=True):
    name: str = ""
    uid: str = ""


class _Answered(msgspec.Struct, frozen=True):
    kind: str = ""
    metadata: _Meta = _Meta()


def _reference(route: Route, answered: bytes) -> Json:
    found = msgspec.json.decode(answered, type=_Answered) if answered else _Answered()
    own = found.kind == route.kind.kind
    reference = {
        "resource": route.kind.plural,
        "namespace": route.namespace,
        "name": route.name or (found.metadata.name if own else ""),
        "uid": found.metadata.uid if own else "",
        "apiGroup": route.kind.group,
        "apiVersion": route.kind.version,
        "subresource": route.subresource,
    }
    return {key: value for key, value in reference.items() if value}
