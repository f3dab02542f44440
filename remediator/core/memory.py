"""What the ledger of one machine should say now. Pure and level-triggered.

Everything that a restart would need is in here: latches, clocks of suspicions, a refused
request, settled runs. The caller writes the difference.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from remediator.core.edges import merge_latches
from remediator.core.ledger import settle
from remediator.core.spares import on_probation
from remediator.model.duration import seconds
from remediator.model.instant import read_instant, write_instant
from remediator.model.keys import ANNOTATION_PROBATION, TAINT_QUARANTINE
from remediator.model.ledger import BlockedRequest, Latch, ManagedNodeStatus, SuspicionRecord
from remediator.model.policy import PolicySpec
from remediator.model.remediation import Remediation
from remediator.model.views import NodeView

REFUSED_FOR_S: Final = 30
REMEDIATING: Final = "Remediating"


class Known(Struct, frozen=True, kw_only=True):
    """What is known of one machine besides its ledger.

    ``node`` is its one live Node, or None. ``ended`` are its ended runs, oldest first.
    ``refused`` is its waiting request, None when it has none; ``answered`` is the `at` of a
    manual request that a run has answered. ``open_run`` is the number of the run under way, or 0.
    """

    now: datetime
    policy: PolicySpec
    node: NodeView | None
    identity: str
    open_run: int
    ended: tuple[Remediation, ...] = ()
    latches: tuple[Latch, ...] = ()
    records: tuple[SuspicionRecord, ...] | None = None
    refused: BlockedRequest | None = None
    answered: str = ""
    veto: tuple[str, str] | None = None  # until, by whom


def remember(stored: ManagedNodeStatus, known: Known) -> ManagedNodeStatus:
    """The ledger as it should be; equal to ``stored`` when nothing has to be written."""
    status = stored
    for run in known.ended:
        status = settle(status, run, known.policy)
    if known.node is not None:
        status = _with_node(status, known.node, known)
    if known.records is not None:
        status = replace(status, suspicions=known.records)
    status = replace(status, request=_request(stored, known))
    if known.answered and known.answered != status.request_done:
        status = replace(status, request_done=known.answered)
    if known.veto is not None and known.veto[0] > status.veto_until:
        status = replace(status, veto_until=known.veto[0], veto_by=known.veto[1])
    return _with_run(stored, _with_probation(status, known), known)


def _with_run(stored: ManagedNodeStatus, status: ManagedNodeStatus, known: Known) -> ManagedNodeStatus:
    """Show the run under way where there is something to write anyway: it is no reason for a write."""
    if not known.open_run:
        over = "Active" if status.history else ""
        return replace(status, state=over) if status.state == REMEDIATING else status
    if status == stored or status.out is not UNSET:
        return status
    return replace(status, state=REMEDIATING, runs=max(status.runs, known.open_run))


def empty(status: ManagedNodeStatus) -> bool:
    """Is there no story? Then the machine needs no object."""
    return not (
        status.state
        or status.latches
        or status.suspicions
        or status.strikes
        or status.history
        or status.request is not UNSET
        or status.out is not UNSET
        or status.request_done
        or status.veto_until
    )


def _with_node(status: ManagedNodeStatus, node: NodeView, known: Known) -> ManagedNodeStatus:
    latches = merge_latches(status.latches, known.latches, node.boot_id)
    status = replace(status, latches=latches)
    same = status.node_uid == node.uid
    lifted = status.out is not UNSET and same and node.taint(TAINT_QUARANTINE) is None
    if lifted and not known.open_run:
        # A person took our taint from a machine that waited for people: that is their decision.
        until = known.now + timedelta(seconds=seconds(known.policy.hold_after_veto))
        return replace(
            status,
            state="Active",
            out=UNSET,
            veto_until=write_instant(until.replace(microsecond=0)),
            veto_by="somebody lifted the quarantine",
        )
    if status.out is not UNSET and not same:
        return status  # the new Node is not ours to file before its run has begun
    if status.node == node.name and same and status.identity == known.identity:
        return status
    story = replace(status, node="", node_uid="", identity="")
    if empty(story) and known.refused is None and not known.records:
        return status
    return replace(status, node=node.name, node_uid=node.uid, identity=known.identity)


def _request(stored: ManagedNodeStatus, known: Known) -> BlockedRequest | UnsetType:
    """The refused request, once it has waited for 30 seconds; its age survives a changed reason."""
    if known.refused is None:
        return UNSET
    since = read_instant(known.refused.since) or known.now
    before = stored.request
    if before is not UNSET and before.fault_class == known.refused.fault_class:
        if before.blocked_by == known.refused.blocked_by:
            return before
        return replace(known.refused, since=min(before.since, known.refused.since))
    if (known.now - since).total_seconds() < REFUSED_FOR_S:
        return UNSET
    return known.refused


def _with_probation(status: ManagedNodeStatus, known: Known) -> ManagedNodeStatus:
    if status.state != "Probation" or known.node is None:
        return status
    until = known.node.annotations.get(ANNOTATION_PROBATION, "")
    over = not on_probation(known.node, known.now)
    return replace(status, state="Active" if over else "Probation", probation_until="" if over else until)
