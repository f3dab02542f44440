"""Audit records by hand, as an API server would write them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from remediator.adapters.audit import API_VERSION, AuditRecord, Numbered

T0 = datetime(2026, 11, 27, 12, tzinfo=UTC)
US, THEM = "system:serviceaccount:remediator:remediator", "alice"
FENCE = {"key": "remediator.dev/quarantine", "value": "gpu", "effect": "NoSchedule"}
POOL = {"key": "example.com/pool", "value": "train", "effect": "NoSchedule"}
GOING = {"key": "ToBeDeletedByClusterAutoscaler", "value": "1", "effect": "NoSchedule"}
NODE, POD = "gpu-1", "trainer-0"

_decoder = msgspec.json.Decoder(AuditRecord)


class Trace:
    """A log under way: every write gets the next version, and stands a second after the one before."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self._version = 100

    def records(self) -> list[Numbered]:
        texts = (json.dumps(each).encode() for each in self.lines)
        return [Numbered(number, _decoder.decode(text)) for number, text in enumerate(texts, start=1)]

    def write(
        self,
        verb: str,
        resource: str,
        name: str,
        *,
        user: str = US,
        subresource: str = "",
        namespace: str = "",
        sent: Mapping[str, Any] | None = None,
        left: Mapping[str, Any] | None = None,
        code: int = 200,
        term: int = 1,
        after_s: float = 1.0,
        version: int | None = None,
        dry_run: bool = False,
        level: str = "RequestResponse",
        run: str = "m-1",
    ) -> None:
        """One request. ``left`` is the object that it left behind, without its version."""
        self._version += 1
        at = T0 + timedelta(seconds=after_s * len(self.lines))
        shown = self._version if version is None else version
        body = merged(left or {}, {"metadata": {"name": name, "resourceVersion": str(shown)}})
        kept = level == "RequestResponse"
        self.lines.append(
            {
                "apiVersion": API_VERSION,
                "kind": "Event",
                "level": level,
                "stage": "ResponseComplete",
                "auditID": f"id-{len(self.lines) + 1}",
                "verb": verb,
                "requestURI": f"/api/v1/{resource}/{name}" + ("?dryRun=All" if dry_run else ""),
                "user": {"username": user},
                "userAgent": f"remediator/0.1.0 (term={term}; run={run})" if user == US else "kubectl/v1",
                "objectRef": {
                    "resource": resource, "subresource": subresource, "namespace": namespace, "name": name,
                },
                "responseStatus": {"code": code, "message": "no" if code >= 400 else ""},
                "requestReceivedTimestamp": at.isoformat(),
                "stageTimestamp": at.isoformat(),
                **({"requestObject": sent} if sent is not None and kept else {}),
                **({"responseObject": body} if left is not None and kept else {}),
            }
        )  # fmt: skip

    # -- what most traces begin with

    def node(self, *taints: Mapping[str, str], cordoned: bool = False, user: str = "kubelet") -> None:
        """Somebody registers, or rewrites, the Node."""
        self.write("create", "nodes", NODE, user=user, left=a_node(*taints, cordoned=cordoned))

    def pod(self, *, owner: str = "ReplicaSet", **annotations: str) -> None:
        """A pod is made, and bound to the Node."""
        made = {
            "kind": "Pod",
            "metadata": {
                "namespace": "work",
                "annotations": {"kubernetes.io/config.mirror": "x"} if annotations else {},
                "ownerReferences": [{"kind": owner, "controller": True}],
            },
        }
        self.write("create", "pods", POD, user="rs", namespace="work", left=made)
        target = {"target": {"name": NODE}}
        self.write("create", "pods", POD, user="s", subresource="binding", namespace="work", sent=target)

    def patch(
        self, *taints: Mapping[str, str], cordoned: bool = True, bound: bool = True, **fields: Any
    ) -> None:
        """The controller writes taints and cordon."""
        meta = {"metadata": {"resourceVersion": "1"}} if bound else {}
        sent = {**meta, "spec": {"taints": list(taints), "unschedulable": cordoned or None}}
        self.write("patch", "nodes", NODE, sent=sent, left=a_node(*taints, cordoned=cordoned), **fields)

    def evict(self, *, uid: str = "u-1", **fields: Any) -> None:
        body = {"deleteOptions": {"preconditions": {"uid": uid}}} if uid else {}
        self.write("create", "pods", POD, subresource="eviction", namespace="work", sent=body, **fields)


def a_node(*taints: Mapping[str, str], cordoned: bool = False, **labels: str) -> dict[str, Any]:
    spec: dict[str, Any] = {"taints": list(taints)}
    if cordoned:
        spec["unschedulable"] = True
    return {"kind": "Node", "metadata": {"labels": labels}, "spec": spec}


def merged(own: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    found = {**own}
    for key, value in more.items():
        inner = isinstance(value, Mapping) and isinstance(own.get(key), Mapping)
        found[key] = merged(own[key], value) if inner else value
    return found
