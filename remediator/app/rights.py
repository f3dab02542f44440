"""What the controller's account has to be allowed to do, and what of it the API server denies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import structlog
from msgspec import UNSET, Struct

from remediator.adapters.files.rbac import ACCOUNT, JOINS, NAMESPACES, controller_rules
from remediator.adapters.kube.discovery import Rule, missing_rules
from remediator.adapters.kube.reviewer import REVIEW_RULES
from remediator.errors import PermanentError
from remediator.model.policy import PolicySpec
from remediator.ports import Transport

AUDIT_FIX: Final = "kubectl apply -k deploy/base grants these"
REVIEW_FIX: Final = "the component deploy/components/metrics-auth grants these"

_log = structlog.get_logger(__name__)


class Rights(Struct, frozen=True):
    """Single permissions: those of Audit, and what Enforce, repair Jobs and letting nodes in add."""

    audit: frozenset[Rule]
    enforce: frozenset[Rule]
    repair: frozenset[Rule]
    joins: frozenset[Rule]


def needed_rights(namespace: str, policy: PolicySpec | None = None) -> Rights:
    """The permissions by the table of actions.

    Args:
        namespace: where the controller runs.
        policy: names the namespace of repair Jobs.
    """
    namespaces = {**NAMESPACES, "own": namespace}
    if policy is not None and policy.repair is not UNSET:
        namespaces["repair"] = policy.repair.namespace

    def single(*, enforce: bool, repair: bool = False) -> Iterator[Rule]:
        for rule in controller_rules(enforce=enforce, repair=repair, namespaces=namespaces):
            for verb in rule.verbs:
                yield Rule(group=rule.group, resource=rule.resource, verb=verb, namespace=rule.namespace)

    audit = frozenset(single(enforce=False))
    enforce = frozenset(single(enforce=True)) - audit
    repair = frozenset(single(enforce=True, repair=True)) - audit - enforce
    rules = (line.rule for line in JOINS)
    joins = frozenset(
        Rule(group=rule.group, resource=rule.resource, verb=verb) for rule in rules for verb in rule.verbs
    )
    return Rights(audit, enforce, repair, joins)


def account_user(namespace: str) -> str:
    """The user name of the controller's ServiceAccount."""
    return f"system:serviceaccount:{namespace}:{ACCOUNT}"


async def require_rights(transport: Transport, namespace: str, *, review_tokens: bool = False) -> None:
    """Refuse to start without the rights of Audit; say it when those of Enforce are missing.

    With ``review_tokens`` those of the reviews are needed too, or no scrape would ever be answered.

    Raises:
        PermanentError: rules are missing; the message names each.
    """
    needed = needed_rights(namespace)
    missing = await missing_rules(transport, sorted(needed.audit))
    if missing:
        raise PermanentError(f"the account lacks {'; '.join(map(str, missing))}: {AUDIT_FIX}")
    unreviewed = await missing_rules(transport, REVIEW_RULES) if review_tokens else ()
    if unreviewed:
        raise PermanentError(f"the account lacks {'; '.join(map(str, unreviewed))}: {REVIEW_FIX}")
    more = await missing_rules(transport, sorted(needed.enforce))
    if more:
        _log.info("rights for Audit only", missing=[str(rule) for rule in more])
