"""Whose is a mark of ours on a node? Every taint has an owner, or the sweep takes it back. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import UNSET

from remediator.core.account import run_state
from remediator.core.lifecycle import ended
from remediator.core.silence import marked_by_us
from remediator.model.keys import ANNOTATION_PRIOR, ANNOTATION_RUN, TAINT_QUARANTINE
from remediator.model.ledger import ManagedNodeStatus
from remediator.model.remediation import Remediation
from remediator.model.views import NodeView


def owner_of(
    node: NodeView,
    machine: str,
    runs: Mapping[str, Remediation],
    ledgers: Mapping[str, ManagedNodeStatus],
) -> str | None:
    """The open run, or the ended one that keeps the machine out, that answers for our marks.

    None: nobody does. A node that carries no quarantine, no out-of-service mark of ours, no prior state
    and no mark of a run needs no owner.
    """
    tainted = node.taint(TAINT_QUARANTINE) is not None or marked_by_us(node)
    if not tainted and not {ANNOTATION_PRIOR, ANNOTATION_RUN} & node.annotations.keys():
        return "nothing to own"
    for name, run in runs.items():
        if run.spec.node.uid == node.uid and not ended(run_state(run)):
            return name
    ledger = ledgers.get(machine)
    if ledger is not None and ledger.out is not UNSET:
        return ledger.out.run
    return None


def run_named_by(node: NodeView) -> str:
    """The run that wrote the node's mark, or empty text."""
    return node.annotations.get(ANNOTATION_RUN, "").split("/", 1)[0]
