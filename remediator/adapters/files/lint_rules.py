"""What the lint checks share: their input, their finding, and typed ways to look at an object."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from remediator.adapters.files.loader import LoadedObject
from remediator.adapters.files.tree import Path
from remediator.errors import Problem
from remediator.model.playbook import Playbook, Step, action_name
from remediator.model.policy import RemediationPolicy
from remediator.model.pool import ResourcePool
from remediator.model.xid import XidEntry


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding of one rule. Its severity stands in the table of rules."""

    rule: str
    problem: Problem


@dataclass(frozen=True, slots=True)
class Context:
    """All objects of one lint, and the tables that they are compared with."""

    objects: tuple[LoadedObject, ...]
    xids: Mapping[int, XidEntry]
    polarity: dict[str, str]
    metric_fields: frozenset[str] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        for each in self.objects:
            if isinstance(each.value, RemediationPolicy):
                self.polarity.update({row.type: row.good for row in each.value.spec.conditions})

    def playbooks(self) -> Iterator[tuple[LoadedObject, Playbook]]:
        return ((each, each.value) for each in self.objects if isinstance(each.value, Playbook))

    def pools(self) -> Iterator[tuple[LoadedObject, ResourcePool]]:
        return ((each, each.value) for each in self.objects if isinstance(each.value, ResourcePool))


def finding(rule: str, loaded: LoadedObject, at: Path, message: str, fix: str) -> Finding:
    """Make a finding that points at one field."""
    return Finding(rule, loaded.problem(at, message, fix))


def steps_of(playbook: Playbook) -> tuple[tuple[int, str, Step], ...]:
    """Position, action and step, in order."""
    return tuple((index, action_name(step), step) for index, step in enumerate(playbook.spec.steps))


def touches_nodes(playbook: Playbook) -> bool:
    """True unless the playbook only tells people: no taint, no drain, nothing on the node."""
    return any(action not in ("report", "collect") for _, action, _ in steps_of(playbook))
