"""What a schema alone cannot say, as literal tables: unions, list keys, CEL rules.

The tables are keyed by the name of a model type, so a rule follows its type wherever it is used.
The API server enforces all of them; ``exactly one`` is also in the editor schemas and in the walker.

Source: Kubernetes docs, "Validation rules" of custom resources. The server prices a rule by the
bounds of what it reads (measured: an unbounded step list costs 3.2 times the budget, optional
chaining on the root 100 times), hence the bounds on every list and string of the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

EXACTLY_ONE: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "Step": (
            "collect", "quarantine", "swap", "drain", "detach", "repair", "verify", "return", "report",
        ),
        "Matcher": ("xid", "gpuMetric", "nodeCondition"),
        "Limit": ("count", "percent"),
        "RepairStep": ("job", "handoff"),
    }
)  # fmt: skip

LIST_KEYS: Final[Mapping[tuple[str, str], str]] = MappingProxyType(
    {
        ("PlaybookSpec", "steps"): "id",
        ("Match", "anyOf"): "id",
        ("PolicySpec", "conditions"): "type",
        ("PlaybookStatus", "conditions"): "type",
        ("RemediationStatus", "conditions"): "type",
        ("PoolStatus", "conditions"): "type",
        ("PolicyStatus", "conditions"): "type",
        ("ManagedNodeStatus", "conditions"): "type",
    }
)

# Only what a printed column would otherwise leave blank, and only to the safe value.
DEFAULTS: Final[Mapping[tuple[str, str], str]] = MappingProxyType(
    {
        ("PlaybookSpec", "mode"): "Audit",
        ("PolicySpec", "maxMode"): "Audit",
        ("Pause", "by"): "somebody",  # the kill switch by kubectl needs no name, and the column shows one
    }
)

# Fields of RemediationSpec that may never change. All but ``cancel``, which may be added once.
IMMUTABLE: Final = (
    "machine", "node", "bootId", "pool", "returnTo", "trigger", "by", "mode", "faultClass", "severity",
    "firstSeen", "evidence", "playbook", "plan", "planHash", "spare", "term",
)  # fmt: skip
IMMUTABLE_OPTIONAL: Final = (
    "bootId", "pool", "returnTo", "by", "firstSeen", "evidence", "plan", "planHash", "spare", "term",
)  # fmt: skip

RESERVED: Final = frozenset({"for", "return", "in", "namespace", "package", "import", "if", "else", "const"})


@dataclass(frozen=True, slots=True)
class Rule:
    """One CEL rule and the text that a person reads when it refuses."""

    rule: str
    message: str


def cel_name(field: str) -> str:
    """Spell a field the way CEL wants it: reserved words are wrapped in underscores."""
    return f"__{field}__" if field in RESERVED else field


def exactly_one(fields: tuple[str, ...]) -> Rule:
    """Make the rule that exactly one of ``fields`` is set."""
    has = [f"has(self.{cel_name(field)})" for field in fields]
    rule = f"{has[0]} != {has[1]}" if len(has) == 2 else f"[{', '.join(has)}].filter(x, x).size() == 1"
    return Rule(rule, f"set exactly one of {', '.join(fields)}")


def _above_zero(field: str, optional: bool = True) -> Rule:
    test = f"self.{field}.matches('[1-9]')"
    return Rule(f"!has(self.{field}) || {test}" if optional else test, f"{field} must be above zero")


_HAS_SELECTOR: Final = (
    "has(self.selector) && ((has(self.selector.matchLabels) && self.selector.matchLabels.size() > 0)"
    " || (has(self.selector.matchExpressions) && self.selector.matchExpressions.size() > 0))"
)


def _once(actions: tuple[str, ...]) -> str:
    counts = ", ".join(f"self.steps.filter(s, has(s.{cel_name(name)})).size()" for name in actions)
    return f"[{counts}].all(n, n <= 1)"


_MATCH_ALL: Final = "has(self.matchAll) && self.matchAll"


def _first(wanted: str, *others: str) -> str:
    """CEL: of the steps with one of these actions, the first one is ``wanted``."""
    any_of = " || ".join(f"has(s.{cel_name(name)})" for name in (wanted, *others))
    return f"has(self.steps.filter(s, {any_of})[0].{cel_name(wanted)})"


def _order(wanted: str, *others: str) -> str:
    any_other = " || ".join(f"has(s.{cel_name(name)})" for name in others)
    return f"!self.steps.exists(s, {any_other}) || {_first(wanted, *others)}"


CEL: Final[Mapping[str, tuple[Rule, ...]]] = MappingProxyType(
    {
        **{name: (exactly_one(fields),) for name, fields in EXACTLY_ONE.items()},
        "Limit": (
            exactly_one(EXACTLY_ONE["Limit"]),
            Rule("!has(self.atLeast) || has(self.percent)", "atLeast goes with percent; count needs none"),
        ),
        "Rate": (_above_zero("per", optional=False),),
        "BreakerSpec": (_above_zero("within"), _above_zero("quiet")),
        "ExporterSpec": (_above_zero("period"), _above_zero("timeout")),
        "JobRepair": (_above_zero("timeout"),),
        "VerifyStep": (_above_zero("timeout"), _above_zero("quietFor")),
        "DrainStep": (_above_zero("deadline"),),
        "SwapStep": (_above_zero("timeout"),),
        "LabelRequirement": (
            Rule(
                "(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)",
                "In and NotIn need values; Exists and DoesNotExist take none",
            ),
        ),
        "NodeSelection": (
            Rule(
                f"({_MATCH_ALL}) || ({_HAS_SELECTOR})",
                "an empty selector would match every node: give matchLabels or matchExpressions,"
                " or write matchAll: true",
            ),
            Rule(
                f"!({_MATCH_ALL}) || !({_HAS_SELECTOR})",
                "matchAll: true and a selector contradict each other: keep one of them",
            ),
        ),
        "PlaybookSpec": (
            Rule(
                _order("quarantine", "drain", "detach", "repair", "verify", "return"),
                "put a quarantine step before the first drain, detach, repair, verify or return step",
            ),
            Rule(
                _order("drain", "detach", "repair"),
                "put a drain step before the first detach or repair step: pods would be lost",
            ),
            Rule(
                _order("verify", "return"),
                "put a verify step before the return step: no machine returns without evidence",
            ),
            Rule(
                "!self.steps.exists(s, has(s.report)) || self.steps.size() == 1",
                "report stands alone: give it a playbook of its own",
            ),
            Rule(_once(EXACTLY_ONE["Step"]), "a playbook does each action once: keep one of them"),
        ),
        "RemediationSpec": (
            Rule(
                " && ".join(f"has(self.{name}) == has(oldSelf.{name})" for name in IMMUTABLE_OPTIONAL),
                "the spec is complete at birth: fields cannot be added or removed, but for cancel",
            ),
            Rule("!has(oldSelf.cancel) || has(self.cancel)", "a cancelled run cannot be un-cancelled"),
        ),
        "Cancel": (Rule("self == oldSelf", "a cancelled run stays cancelled: cancel cannot change"),),
        "RemediationPolicy": (
            Rule(
                "self.metadata.name == 'cluster'",
                "there is exactly one RemediationPolicy, and its name is cluster",
            ),
        ),
    }
)

# By (type, field): rules on one property.
FIELD_CEL: Final[Mapping[tuple[str, str], tuple[Rule, ...]]] = MappingProxyType(
    {
        ("RemediationSpec", name): (Rule("self == oldSelf", f"spec.{name} cannot change after birth"),)
        for name in IMMUTABLE
    }
)
