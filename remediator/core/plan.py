"""What a run would do, line by line, with a hash: the same value for dry run, approval and execution.

Pure. The hash covers the node's uid, the fault's evidence, the playbook's text, the spare and
every line; when any of them changes, the plan is stale.
"""

from __future__ import annotations

import hashlib

import msgspec
from msgspec import UNSET, Struct

from remediator.core.actions import ACTIONS
from remediator.core.request import Request
from remediator.model.keys import TAINT_QUARANTINE
from remediator.model.playbook import Step, action_name
from remediator.model.pool import ResourcePool
from remediator.model.views import NodeView

HASH_LENGTH = 8


class Plan(Struct, frozen=True):
    """``lines`` are one per step, at most 256 characters each; ``hash`` is 8 hex digits."""

    lines: tuple[str, ...]
    hash: str


def build_plan(request: Request, pool: ResourcePool | None, spare: NodeView | None) -> Plan:
    """Lay the plan of one request out."""
    lines = tuple(
        _numbered(number, step, _line(step, request, pool, spare))
        for number, step in enumerate(request.playbook.spec.steps, start=1)
    )
    covered = (
        request.node.uid,
        request.playbook.name,
        request.playbook.text,
        request.fault_class,
        sorted((each.source, each.key, each.gpu, each.code) for each in request.evidence),
        spare.uid if spare is not None else "",
        lines,
    )
    digest = hashlib.sha256(msgspec.json.encode(covered)).hexdigest()
    return Plan(lines=lines, hash=digest[:HASH_LENGTH])


def _numbered(number: int, step: Step, change: str) -> str:
    action = action_name(step)
    return f"{number} {action}: {change} [undo: {ACTIONS[action].undo}]"[:256]


def _line(step: Step, request: Request, pool: ResourcePool | None, spare: NodeView | None) -> str:
    node = request.node.name
    if step.quarantine is not UNSET:
        cordon = ", + cordon" if step.quarantine.cordon else ""
        return f"{node} + taint {TAINT_QUARANTINE}={step.quarantine.value}:NoSchedule{cordon}"
    if step.swap is not UNSET:
        home = pool.metadata.name if pool is not None else "?"
        return f"{spare.name} buffer -> {home}" if spare is not None else "no spare: the place stays empty"
    if step.drain is not UNSET:
        return f"{node} evict pods within {step.drain.deadline}; then Held, never forced"
    if step.detach is not UNSET:
        return f"{node} - membership and projection of {pool.metadata.name if pool else 'no pool'}"
    if step.repair is not UNSET:
        if step.repair.job is not UNSET:
            return (
                f"Job {step.repair.job.template}, done when bootID changes, within {step.repair.job.timeout}"
            )
        assert step.repair.handoff is not UNSET
        return f"hand-off to {step.repair.handoff.queue}; {node} stays out"
    if step.verify is not UNSET:
        return f"no write: {step.verify.quiet_for} of good signals"
    if step.return_ is not UNSET:
        target = f"pool {request.return_to}" if request.return_to else "the buffer"
        return f"{node} - our taint and cordon, to {target}, probation {step.return_.probation}"
    if step.collect is not UNSET:
        return f"no write to the cluster: Events of {step.collect.events_window}, conditions, page lines"
    return "no write to the cluster: an Event"
