"""How many nodes a playbook selects: what is kept in step is what would be counted anew."""

from __future__ import annotations

from random import Random

from msgspec.structs import replace

from remediator.core.match import selects
from remediator.model.meta import LabelSelector, ObjectMeta
from remediator.model.playbook import NodeSelection, Playbook
from remediator.model.views import NodeView
from remediator.runtime.matching import Matching
from tests.unit.core.builders import a_node, a_spec

ZONES = ("a", "b", "c")


def a_book(name: str, zone: str) -> Playbook:
    spec = replace(a_spec(), nodes=NodeSelection(selector=LabelSelector(match_labels={"zone": zone})))
    return Playbook(metadata=ObjectMeta(name=name), spec=spec)


def counted_anew(playbooks: dict[str, Playbook], nodes: dict[str, NodeView]) -> dict[str, int]:
    return {
        name: sum(selects(each.spec.nodes, node.labels) for node in nodes.values())
        for name, each in playbooks.items()
    }


def test_counts_stay_true_whatever_comes_changes_and_goes() -> None:
    """Nodes are added, relabelled and deleted, and playbooks edited, a thousand times by dice."""
    rng, matching = Random(7), Matching()
    nodes: dict[str, NodeView] = {}
    playbooks = {name: a_book(name, zone) for name, zone in zip("pq", ZONES, strict=False)}
    for _ in range(1_000):
        name = f"gpu-{rng.randrange(20)}"
        match rng.randrange(8):
            case 0:
                nodes.pop(name, None)
            case 1:
                book = rng.choice("pqr")
                playbooks[book] = a_book(book, rng.choice(ZONES))
            case 2:
                playbooks.pop("r", None)
            case _:
                nodes[name] = a_node(name, labels={"zone": rng.choice(ZONES)})
        found = matching.counted(playbooks, nodes)
        assert {name: found.get(name, 0) for name in playbooks} == counted_anew(playbooks, nodes)
    assert sum(counted_anew(playbooks, nodes).values()) > 0
