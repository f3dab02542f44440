"""How many nodes each playbook selects, kept in step instead of counted anew."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from remediator.core.match import selects
from remediator.model.playbook import Playbook
from remediator.model.views import NodeView


class Matching:
    """Asks only nodes that have changed; all of them where a playbook has.

    Counted anew, ten playbooks on 10,000 nodes would keep the loop for a tenth of a second each time.
    """

    def __init__(self) -> None:
        self._playbooks: Mapping[str, Playbook] = {}
        self._nodes: dict[str, NodeView] = {}
        self._selecting: dict[str, tuple[str, ...]] = {}  # node -> names of playbooks
        self._counts: Counter[str] = Counter()

    def counted(self, playbooks: Mapping[str, Playbook], nodes: Mapping[str, NodeView]) -> Mapping[str, int]:
        """Name of each playbook to the number of nodes; those that select none are left out or 0.

        Args:
            playbooks: all that there are. One that has changed is another object.
            nodes: likewise.
        """
        if self._differ(playbooks):
            self._playbooks = dict(playbooks)
            self._nodes.clear()
            self._selecting.clear()
            self._counts.clear()
        for name in self._nodes.keys() - nodes.keys():
            self._forget(name)
        for name, node in nodes.items():
            if self._nodes.get(name) is not node:
                self._ask(name, node)
        return self._counts

    def _differ(self, playbooks: Mapping[str, Playbook]) -> bool:
        known = self._playbooks
        return known.keys() != playbooks.keys() or any(known[name] is not playbooks[name] for name in known)

    def _ask(self, name: str, node: NodeView) -> None:
        self._forget(name)
        found = tuple(
            playbook for playbook, each in self._playbooks.items() if selects(each.spec.nodes, node.labels)
        )
        self._nodes[name], self._selecting[name] = node, found
        self._counts.update(found)

    def _forget(self, name: str) -> None:
        self._nodes.pop(name, None)
        self._counts.subtract(self._selecting.pop(name, ()))
