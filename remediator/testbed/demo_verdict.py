"""Judges a demo from the API server's audit log alone. Pure: records in, findings out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from remediator.adapters.audit import AuditRecord, writes
from remediator.model.keys import TAINT_QUARANTINE
from remediator.testbed.stage import USER

_Spell = tuple[AuditRecord, bool]  # a patch of one node's taints, and whether ours stood after it


def evictions_without_taint(records: Sequence[AuditRecord]) -> list[str]:
    """Every committed eviction of ours from a node on which our taint did not stand then.

    Args:
        records: of everybody, in log order; where a pod stands is told by the scheduler's bindings.

    Returns:
        ``namespace/pod on node``. A pod whose node nobody can tell counts: unknown is no excuse.
    """
    spells = _taint_spells(records)
    found = []
    for record, node in _evictions(records):
        before = [stood for patch, stood in spells.get(node, []) if patch.staged_at <= record.received_at]
        if not before or not before[-1]:
            found.append(f"{_pod(record)} on {node or 'a node that nobody can tell'}")
    return found


def _evictions(records: Iterable[AuditRecord]) -> Iterator[tuple[AuditRecord, str]]:
    """Each eviction of ours that the server let through, with the pod's node, empty if nobody can tell."""
    nodes: dict[str, str] = {}
    for record in writes(records, resource="pods"):
        what = record.object_ref.subresource
        if record.committed and what == "binding":
            nodes[_pod(record)] = str(_body(record).get("target", {}).get("name", ""))
        if record.committed and what == "eviction" and record.username == USER:
            yield record, nodes.get(_pod(record), "")


def _taint_spells(records: Iterable[AuditRecord]) -> dict[str, list[_Spell]]:
    """By node, every patch of ours that wrote the list of taints, in log order."""
    found: dict[str, list[_Spell]] = {}
    for record in writes(records, users=[USER], resource="nodes"):
        taints = _body(record).get("spec", {}).get("taints")
        if record.committed and taints is not None:
            stood = any(taint["key"] == TAINT_QUARANTINE for taint in taints)
            found.setdefault(record.object_ref.name, []).append((record, stood))
    return found


def _pod(record: AuditRecord) -> str:
    return f"{record.object_ref.namespace}/{record.object_ref.name}"


def _body(record: AuditRecord) -> dict[str, Any]:
    found = json.loads(bytes(record.request_object) or b"{}")
    assert isinstance(found, dict)
    return found
