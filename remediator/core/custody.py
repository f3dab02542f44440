"""Whose is a mark of ours? Every taint and every grant has an owner, or is taken back. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from msgspec import UNSET, Struct

from remediator.core.account import run_state
from remediator.core.lifecycle import ended
from remediator.core.request import FleetView
from remediator.core.silence import marked_by_us
from remediator.model.keys import ANNOTATION_BECAUSE, ANNOTATION_PRIOR, ANNOTATION_RUN, TAINT_QUARANTINE
from remediator.model.ledger import ManagedNodeStatus
from remediator.model.remediation import Remediation
from remediator.model.views import NodeView

_MARKS: Final = frozenset({ANNOTATION_PRIOR, ANNOTATION_RUN, ANNOTATION_BECAUSE})


class Orphan(Struct, frozen=True):
    """Something of ours that no open run and no machine's memory answers for."""

    subject: str
    text: str


def orphans(view: FleetView, machine_of: Callable[[NodeView], str]) -> Iterator[Orphan]:
    """Everything without an owner, nodes by name and then grants by run.

    What is found may be on its way: the leader takes marks back after four seconds, a grant after a
    minute. What stays was left while nobody leads, or can't be taken back.

    Args:
        machine_of: the machine behind a node, as its objects are called.
    """
    for name in sorted(view.nodes):
        node = view.nodes[name]
        if owner_of(node, machine_of(node), view.runs, view.ledgers) is None:
            run = run_named_by(node)
            yield Orphan(name, f"carries marks of {run or 'a run'}, which nobody owns")
    for grant in sorted(view.status.grants, key=lambda each: each.run):
        if grant.run not in view.runs and grant.run not in view.in_flight:
            spare = f" and keeps spare {grant.spare}" if grant.spare else ""
            yield Orphan(grant.run, f"has a grant{spare}, and is no open run")


def owner_of(
    node: NodeView,
    machine: str,
    runs: Mapping[str, Remediation],
    ledgers: Mapping[str, ManagedNodeStatus],
) -> str | None:
    """The open run, or the ended one that keeps the machine out, that answers for our marks.

    None: nobody does. A node that carries no quarantine, no out-of-service mark of ours and none of the
    annotations of a run needs no owner.
    """
    tainted = node.taint(TAINT_QUARANTINE) is not None or marked_by_us(node)
    if not tainted and not _MARKS & node.annotations.keys():
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
