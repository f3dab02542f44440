"""Every rule about grants, broken on purpose: none of it may ever be recorded."""

from __future__ import annotations

from typing import Any

import pytest

from remediator.core.assurance import assure
from remediator.errors import ContractError
from remediator.model.meta import Limit, Pause
from remediator.model.policy import GRANTS_MAX, PolicyStatus
from tests.unit.core.builders import (
    BUFFER,
    a_fleet,
    a_grant,
    a_node,
    a_policy,
    a_pool,
    a_request,
    a_run,
)

NODES = [*(a_node(f"gpu-{number}") for number in range(1, 5)), a_node("spare-1", pool="buffer")]
TIGHT = a_pool("train", max_unavailable=Limit(count=1))
FIRST = a_request(NODES[0])
SECOND = a_request(NODES[1])


def the_grant(request: Any, **fields: Any) -> Any:
    return a_grant(request.run, request.node.name, **fields)


def look(*granted: Any, grants: Any = None, pools: Any = (TIGHT, BUFFER), **fields: Any) -> None:
    found = tuple(map(the_grant, granted)) if grants is None else tuple(grants)
    assure(a_fleet(NODES, pools, **fields), granted, found)


def test_one_grant_within_its_budget_is_fine():
    """A check that stops what is right would stop the work."""
    look(FIRST)


BROKEN: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "while blind": ((FIRST,), {"blind": "nodes 200 s old"}),
    "while paused": ((FIRST,), {"policy": a_policy(pause=Pause(by="ann", reason="storm"))}),
    "granted in term 1": ((FIRST,), {"status": PolicyStatus(term=2)}),
    "257 grants": (
        (FIRST,),
        {"grants": [the_grant(FIRST), *(a_grant(f"r-{number}", "x") for number in range(GRANTS_MAX))]},
    ),
    "machine gpu-1 has two runs": ((FIRST,), {"runs": {"gpu-1-0": a_run("gpu-1-0", machine="gpu-1")}}),
    "without a grant for node gpu-1": ((FIRST,), {"grants": []}),
    "without a grant": ((FIRST,), {"grants": [a_grant(FIRST.run, "gpu-2")]}),
    "spare spare-1 is promised twice": (
        (FIRST,),
        {"grants": [the_grant(FIRST, spare="spare-1"), a_grant("m-9", "gpu-9", spare="spare-1")]},
    ),
    "spare gpu-1 leaves itself": ((FIRST,), {"grants": [the_grant(FIRST, spare="gpu-1")]}),
    "pool train: 2 out of 1 allowed, with gpu-1, gpu-2": ((FIRST, SECOND), {}),
    "pool train: 2 out of 1 allowed, with gpu-1": (
        (FIRST,),
        {"grants": [the_grant(FIRST), a_grant("gpu-2-1", "gpu-2")]},
    ),
}


@pytest.mark.parametrize("rule", sorted(BROKEN))
def test_broken_rule_is_named(rule):
    """It ends the process: whoever is called has to know why."""
    granted, fields = BROKEN[rule]

    with pytest.raises(ContractError, match=rule):
        look(*granted, **fields)


@pytest.mark.parametrize("trigger", ["Reappeared", "Return"])
def test_machine_that_is_out_is_fenced_whatever_the_budget(trigger):
    """It is out already; a budget that is spent must not let it serve."""
    back = a_request(NODES[1], trigger=trigger)

    look(back, grants=[the_grant(FIRST), the_grant(back)])


def test_pass_without_grants_is_not_looked_at():
    """What people change while runs are under way is no decision of ours."""
    look(grants=[a_grant("m-1", "gpu-1"), a_grant("m-2", "gpu-2")], blind="nodes 200 s old")
