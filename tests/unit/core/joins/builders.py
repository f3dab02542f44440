"""New nodes, and what one look at them is made from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from remediator.core.joins.decide import JoinsView, Newcomer, Rank
from remediator.core.joins.gate import EFFECT, is_gated
from remediator.core.joins.limiter import Standing, Stop
from remediator.core.joins.preflight import PREFLIGHT, Verdict
from remediator.model.joins import GATE_KEY, JoinsSpec, JoinsStatus
from remediator.model.pool import PoolSpec
from remediator.model.views import ConditionView, NodeView
from tests.unit.core.builders import T0, a_node, merged, text

GATE = {"key": GATE_KEY, "effect": EFFECT}
PASSED = Verdict("True", "Passed", "")


def new_node(name: str = "gpu-1", *, created_s: float = 0.0, proven: bool = True, **fields: Any) -> NodeView:
    """A gated node; ``proven``: it carries the condition that it is fit."""
    node = a_node(name, **merged({"taints": [GATE], "created_at": text(created_s)}, fields))
    if not proven:
        return node
    return msgspec.structs.replace(node, conditions=(*node.conditions, ConditionView(PREFLIGHT, "True")))


def a_newcomer(node: NodeView, *, rank: Rank = Rank.GROWTH, verdict: Verdict = PASSED) -> Newcomer:
    return Newcomer(node=node, pool="train", rank=rank, verdict=verdict)


def stops(stop: Stop | None) -> Stop:
    """The reason of somebody who has to wait."""
    assert stop is not None
    return stop


def books(**fields: Any) -> JoinsStatus:
    """Those of a leader of term 1 under which the gate is in force since an hour."""
    own = {"mode": "Enforce", "gate": GATE_KEY, "since": text(-3_600), "term": 1}
    return JoinsStatus(**merged(own, fields))


def a_look(
    newcomers: Iterable[Newcomer] = (),
    *,
    others: Iterable[NodeView] = (),
    settling: Mapping[str, int] | None = None,
    inside: int = 0,
    brake: float = 1.0,
    pools: Mapping[str, PoolSpec] | None = None,
    **fields: Any,
) -> JoinsView:
    """All that there is at T0; ``others`` are nodes that do not wait."""
    waiting = tuple(newcomers)
    seen = (*(each.node for each in waiting), *others)
    now = fields.get("now", T0)
    own = {
        "now": now,
        "term": 1,
        "mode": "Enforce",
        "spec": JoinsSpec(mode="Enforce"),
        "pools": pools or {},
        "status": books(),
        "newcomers": waiting,
        "gated": frozenset(node.name for node in seen if is_gated(node, GATE_KEY)),
        "names": {node.uid: node.name for node in seen},
        "nodes": {node.name: node for node in seen},
        "standing": Standing(now=now, settling=settling or {}, inside=inside, brake=brake),
    }
    return JoinsView(**merged(own, fields))
