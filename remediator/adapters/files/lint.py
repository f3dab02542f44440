"""Lint: what the schema accepts and a person still would not want. Every finding has place and fix.

The rules stand in one literal table, so that the reference page lists them. An error is something
that the API server refuses, that the controller would refuse, or that does harm; a warning is what
a reviewer would ask about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from remediator.adapters.files.lint_limits import check_durations, check_limits, check_size
from remediator.adapters.files.lint_match import check_matchers, check_selector
from remediator.adapters.files.lint_owners import check_owners
from remediator.adapters.files.lint_pools import check_policy, check_pools
from remediator.adapters.files.lint_rules import Context, Finding
from remediator.adapters.files.lint_steps import check_steps
from remediator.adapters.files.loader import LoadedObject
from remediator.errors import Problem
from remediator.model.xid import XidEntry

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class LintRule:
    """One row of the table: what the finding says of the file, and why it matters."""

    severity: Severity
    why: str


@dataclass(frozen=True, slots=True)
class Lint:
    """One finding: the rule's name, how bad, and where."""

    rule: str
    severity: Severity
    problem: Problem

    def __str__(self) -> str:
        return f"{self.problem} [{self.severity}: {self.rule}]"


_E: Final = "error"
_W: Final = "warning"

RULES: Final[Mapping[str, LintRule]] = MappingProxyType(
    {
        # Which nodes
        "empty-selector": LintRule(_E, "An absent or empty selector would match every node."),
        "selector-and-match-all": LintRule(_E, "A selector and matchAll: true contradict each other."),
        "selector-values": LintRule(_E, "In and NotIn need values; Exists and DoesNotExist take none."),
        # What fault
        "duplicate-id": LintRule(_E, "Ids name steps and matchers in records, metrics and Events."),
        "xid-unknown": LintRule(_E, "A code that the catalogue does not hold has no known meaning."),
        "xid-application": LintRule(_E, "An application's fault says nothing about the node."),
        "xid-never-alone": LintRule(_E, "63 records a repair, 94 was contained, 154 may say: none needed."),
        "xid-hint": LintRule(_W, "The code alone does not say that this node is broken."),
        "xid-unspecified": LintRule(_W, "No data-centre product raises the code, or nobody says what to do."),
        "xid-for": LintRule(_W, "The gauge holds the last code for ever, so time adds no proof."),
        "condition-unknown": LintRule(_W, "A condition that nobody publishes never matches."),
        "condition-is-good": LintRule(_E, "This status of the condition means that all is well."),
        "metric-unknown": LintRule(_W, "A field that no exporter publishes never matches."),
        "metric-is-xid": LintRule(
            _E, "The XID gauge holds a code: a comparison misses repeats, keeps old ones."
        ),
        "class-owned-twice": LintRule(_E, "Two playbooks of equal priority for one fault: nobody owns it."),
        "class-shared": LintRule(_W, "Two playbooks for one fault class: the higher priority owns it."),
        "shadowed": LintRule(_E, "A playbook of higher priority sees all of it first; this one never runs."),
        "signal-shared": LintRule(_W, "One signal becomes two faults on one machine."),
        # Which steps
        "before-quarantine": LintRule(_E, "Quarantine comes before anything that harms, or pods come back."),
        "before-drain": LintRule(_E, "Work on the node is lost unless it was drained first."),
        "return-without-verify": LintRule(_E, "No machine returns without evidence."),
        "repair-without-verify": LintRule(_E, "A Job that ended proves nothing about the machine."),
        "never-reached": LintRule(_E, "A hand-off and a return end the run."),
        "action-twice": LintRule(_E, "An action's effect is there after the first time."),
        "report-alone": LintRule(_E, "A report touches nothing; beside steps that do, it says nothing new."),
        "no-way-out": LintRule(_W, "The run ends, the machine stays out, and nobody is told to look."),
        "spare-late": LintRule(_W, "Soft faults leave time: the spare first, so that no place is empty."),
        "fence-late": LintRule(_W, "Hard faults leave no time: quarantine first."),
        "swap-without-detach": LintRule(_W, "The pool keeps both nodes: a surplus member."),
        "spare-unused": LintRule(_W, "noSpare says what to do without a spare, but no step asks for one."),
        "boot-cannot-change": LintRule(_E, "Nothing in this playbook reboots, so verify never ends well."),
        "boot-unchecked": LintRule(_W, "Only a changed boot id proves that a reboot happened."),
        # Which limits
        "zero-duration": LintRule(_E, "Zero here means never or for ever, not at once."),
        "duration-order": LintRule(_E, "The shorter one ends it before the longer one can be reached."),
        "early-silence": LintRule(_W, "A cut network looks like one dead machine at first."),
        "percent-rounds-to-zero": LintRule(_E, "Percent rounds down: a small pool would allow nothing."),
        "floor-of-count": LintRule(_E, "A count is exact: atLeast goes with percent only."),
        "limit-zero": LintRule(_W, "Nothing is ever allowed; mode: Disabled or a pause says so openly."),
        "too-large": LintRule(_E, "A run carries a copy of the playbook, at most 32,768 bytes."),
        "runbook-missing": LintRule(_W, "The one who is woken needs a page to read."),
        # Pools and the policy
        "policy-name": LintRule(_E, "There is one policy and its name is cluster."),
        "join-limits": LintRule(_E, "By limits that are none, or can't be kept, nobody is let in."),
        "pool-twice": LintRule(_E, "A node would be a member of two pools."),
        "pool-unknown": LintRule(_W, "A buffer that does not exist lends no spares."),
        "pool-role": LintRule(_E, "Spares come from pools of role Buffer only."),
    }
)

_CHECKS: Final[tuple[Callable[[LoadedObject, Context], Iterator[Finding]], ...]] = (
    check_selector,
    check_matchers,
    check_steps,
    check_durations,
    check_limits,
    check_size,
    check_policy,
)
_FLEET_CHECKS: Final[tuple[Callable[[Context], Iterator[Finding]], ...]] = (check_owners, check_pools)


def lint(
    objects: Sequence[LoadedObject],
    *,
    xids: Mapping[int, XidEntry],
    polarity: Mapping[str, str],
    metric_fields: Iterable[str],
) -> tuple[Lint, ...]:
    """Find what is wrong with objects that the schema accepts.

    Args:
        objects: everything that will be on the cluster together; some rules compare them.
        xids: the catalogue, by code.
        polarity: condition type to its good status; the policies among ``objects`` add to it.
        metric_fields: exporter fields that are known under their old names.

    Returns:
        Findings by file, line and column.
    """
    context = Context(tuple(objects), xids, dict(polarity), frozenset(metric_fields))
    found = [finding for each in objects for check in _CHECKS for finding in check(each, context)]
    found += [finding for fleet_check in _FLEET_CHECKS for finding in fleet_check(context)]
    made = [Lint(each.rule, RULES[each.rule].severity, each.problem) for each in found]
    return tuple(sorted(made, key=_in_file_order))


def _in_file_order(found: Lint) -> tuple[str, int, int, str]:
    return found.problem.path, found.problem.line, found.problem.column, found.rule
