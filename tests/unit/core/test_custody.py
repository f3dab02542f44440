"""Nothing of ours without an owner: each kind of orphan is found, and what somebody answers for is not."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from remediator.core.custody import orphans
from remediator.model.ledger import ManagedNodeStatus, Out
from remediator.model.policy import PolicyStatus
from remediator.model.views import NodeView
from tests.unit.core.builders import a_fleet, a_grant, a_node, a_run, text

QUARANTINE = {"key": "remediator.dev/quarantine", "effect": "NoSchedule", "value": "gpu-bus"}
OUT_OF_SERVICE = {"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}
RUN = {"remediator.dev/run": "gpu-1-1/fence"}


def found(node: NodeView, **fields: Any) -> list[tuple[str, str]]:
    view = a_fleet([node], **fields)
    return [(each.subject, each.text) for each in orphans(view, lambda node: node.name)]


MARKED = {
    "taint": a_node(taints=[QUARANTINE]),
    "out of service": a_node(taints=[{**OUT_OF_SERVICE, "value": "remediator"}]),
    "run": a_node(annotations=RUN),
    "prior": a_node(annotations={"remediator.dev/prior": "{}"}),
    "because": a_node(annotations={"remediator.dev/because": "xid 79"}),
}


@pytest.mark.parametrize("node", MARKED.values(), ids=MARKED)
def test_mark_without_an_owner_is_found(node):
    """Left there, the node would stand empty for ever and nobody would know why."""
    assert [subject for subject, _ in found(node)] == ["gpu-1"]


@pytest.mark.parametrize("node", MARKED.values(), ids=MARKED)
def test_mark_of_an_open_run_has_an_owner(node):
    """A run answers for its marks until it ends; one on another Node of that name does not."""
    run = a_run("gpu-1-1", node=node)
    assert found(node, runs={"gpu-1-1": run}) == []

    other = replace(run, spec=replace(run.spec, node=replace(run.spec.node, uid="another")))
    assert len(found(node, runs={"gpu-1-1": other})) == 1


def test_mark_of_a_machine_that_is_out_has_an_owner():
    """The ended run that keeps it out stands in the machine's memory."""
    node = a_node(taints=[QUARANTINE], annotations=RUN)
    out = Out(run="gpu-1-1", since=text(0), fault_class="gpu.bus", reason="HandedOff", pool="train")

    assert found(node, ledgers={"gpu-1": ManagedNodeStatus(out=out)}) == []
    assert len(found(node, ledgers={"gpu-2": ManagedNodeStatus(out=out)})) == 1


def test_grant_of_no_open_run_is_found_with_its_spare():
    """It takes a place in the budget, and a spare that nobody will use."""
    status = PolicyStatus(grants=(a_grant("m-1", spare="spare-1"), a_grant("m-2")))

    assert found(a_node(), status=status, runs={"m-2": a_run("m-2")}) == [
        ("m-1", "has a grant and keeps spare spare-1, and is no open run")
    ]


def test_foreign_marks_are_nobodys_business():
    """Others quarantine too, and fence, and their marks stay."""
    mine = {"remediator.dev/term": "4", "remediator.dev/probation-until": text(0)}

    assert found(a_node(taints=[OUT_OF_SERVICE], annotations=mine)) == []
