"""What a ledger says of the run under way, and no longer."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from remediator.core.memory import REMEDIATING, Known, remember
from remediator.model.ledger import HistoryEntry, Latch, ManagedNodeStatus
from remediator.model.policy import PolicySpec
from tests.unit.core.builders import T0, a_node, text

NODE = a_node()
LATCH = Latch(gpu="GPU-1", code=79, boot_id=NODE.boot_id, node_uid=NODE.uid, state="Fault", at=text(0))
ENDED = HistoryEntry(run="gpu-1-1", fault_class="gpu.bad", outcome="Failed", at=text(0))


def known(open_run: int, *latches: Latch) -> Known:
    return Known(now=T0, policy=PolicySpec(), node=NODE, identity="gpu-1", open_run=open_run, latches=latches)


def test_a_run_is_shown_with_what_is_written_anyway():
    """And is no reason for a write by itself: most runs leave one at their end."""
    quiet = ManagedNodeStatus(node=NODE.name, node_uid=NODE.uid, identity="gpu-1", state="Active")

    assert remember(quiet, known(3)) == quiet
    shown = remember(quiet, known(3, LATCH))
    assert (shown.state, shown.runs, shown.latches) == (REMEDIATING, 3, (LATCH,))
    assert remember(shown, known(3, LATCH)) == shown


@pytest.mark.parametrize(("history", "state"), [((), ""), ((ENDED,), "Active")])
def test_a_run_that_is_no_more_is_not_shown(history, state):
    """Its record was deleted, or it never began: nothing else would say so."""
    shown = ManagedNodeStatus(node=NODE.name, node_uid=NODE.uid, identity="gpu-1", state=REMEDIATING)

    assert remember(replace(shown, history=history), known(0)).state == state
