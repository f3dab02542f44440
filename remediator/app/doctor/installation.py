"""Checks of what was installed: server, kinds, policy, admission policies, who leads. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from remediator.adapters.files.crds import structural_schema
from remediator.adapters.files.kinds import Kind
from remediator.adapters.kube.discovery import Installed
from remediator.adapters.kube.errors import INSTALL_CRDS
from remediator.adapters.kube.neighbours import Admission
from remediator.app.doctor.finding import Finding, Level, Unseen, unknown
from remediator.app.leadership import Leadership
from remediator.core.people import paused
from remediator.model.duration import spoken
from remediator.model.keys import POLICY_NAME
from remediator.model.policy import RemediationPolicy
from remediator.model.words import shortened

# Field selectors of custom resources came with 1.31, admission policies with 1.30.
MINIMUM: Final = (1, 31)
INSTALL: Final = "kubectl apply -k deploy/base"
DOCTOR_ROLE: Final = "bind the ClusterRole remediator-doctor"
GUARDS: Final = ("remediator-fencing", "remediator-own-keys")

_VERSION: Final = re.compile(r"v?(\d+)\.(\d+)")


def server(found: Installed) -> Iterator[Finding]:
    """Is the API server new enough?"""
    text = found.server_version
    match = _VERSION.match(text)
    least = ".".join(map(str, MINIMUM))
    if match is None:
        yield Finding("server", Level.UNKNOWN, f"the API server calls its version {text!r}")
    elif (int(match[1]), int(match[2])) < MINIMUM:
        said = f"Kubernetes {text} is older than {least}"
        yield Finding("server", Level.FAILURE, said, f"upgrade to {least} at least")
    else:
        yield Finding("server", Level.OK, f"Kubernetes {text}, at least {least}")


def kinds(
    found: Installed, schemas: Mapping[str, Mapping[str, Any] | Unseen], ours: Iterable[Kind]
) -> Iterator[Finding]:
    """Are our kinds served, with the fields that this program writes?

    Args:
        found: what the server serves.
        schemas: the stored schema by the kind's name.
        ours: the kinds of this program.
    """
    if found.missing:
        names = ", ".join(name for name in found.missing if "/" not in name)
        yield Finding("kinds", Level.FAILURE, f"the API server does not serve {names}", INSTALL_CRDS)
        return
    good = True
    for kind in ours:
        schema = schemas[kind.name]
        if isinstance(schema, Unseen):
            yield unknown("kinds", schema, f"{DOCTOR_ROLE}, which may read CustomResourceDefinitions")
            return
        lacking = sorted(_paths(structural_schema(kind)) - _paths(schema))
        if lacking:
            good = False
            said = f"the installed {kind.name} is of another version: it lacks {shortened(lacking, 3)}"
            lost = "what is written there is dropped without a word"
            yield Finding("kinds", Level.FAILURE, f"{said}, and {lost}", INSTALL_CRDS)
    if good:
        yield Finding("kinds", Level.OK, "all kinds are served, with every field that this version knows")


def policy(found: RemediationPolicy | None, now: datetime) -> Iterator[Finding]:
    """Is there a RemediationPolicy, and does it let anything through?"""
    if found is None:
        said = f"no RemediationPolicy/{POLICY_NAME}: every playbook is in Audit, and nothing is fenced"
        yield Finding("policy", Level.FAILURE, said, f"{INSTALL} brings one")
        return
    pause = paused(found.spec.pause, "policy", now)
    if pause is not None:
        yield Finding("policy", Level.NOTE, f"paused: {pause}", "remediator resume")
    said = f"RemediationPolicy/{POLICY_NAME} is there, maxMode {found.spec.max_mode}"
    yield Finding("policy", Level.OK, said)


def leader(found: Leadership, now: datetime) -> Iterator[Finding]:
    """Does somebody lead?"""
    if not found.known:
        yield unknown("leader", Unseen(found.problem))
    elif found.leads(now):
        yield Finding("leader", Level.OK, f"{found.holder} leads")
    elif found.renewed is None or not found.holder:
        said = found.problem or "the Lease has no holder"
        yield Finding("leader", Level.FAILURE, f"nobody leads, so nothing happens: {said}", INSTALL)
    else:
        ago = spoken(found.age_s(now))
        said = f"{found.holder} renewed the Lease {ago} ago, and it holds {found.lease_s} s"
        fix = "kubectl -n remediator logs deployment/remediator says why; or is this machine's clock wrong?"
        yield Finding("leader", Level.FAILURE, f"nobody leads, so nothing happens: {said}", fix)


def guards(found: Mapping[str, Admission | Unseen | None]) -> Iterator[Finding]:
    """Are both admission policies on, and do they deny?"""
    for name, seen in found.items():
        if isinstance(seen, Unseen):
            yield unknown("fencing", seen, f"{DOCTOR_ROLE}, which may read admission policies")
            continue
        wrong = _wrong(name, seen)
        if wrong:
            said = f"ValidatingAdmissionPolicy {name} {wrong}"
            yield Finding("fencing", Level.FAILURE, said, INSTALL)
        else:
            said = f"ValidatingAdmissionPolicy {name} is bound and denies"
            yield Finding("fencing", Level.OK, said)


def _wrong(name: str, seen: Admission | None) -> str:
    if seen is None:
        return "is missing: an old leader, or a bug of ours, is stopped by our own code only"
    if not seen.bound or not seen.expressions:
        return f"judges nothing: it has no binding {name}, or no validation"
    if "Deny" not in seen.actions:
        return f"only does {', '.join(seen.actions) or 'nothing'}: it has to Deny"
    if seen.param != POLICY_NAME:
        return f"takes its term from RemediationPolicy/{seen.param or '(none)'}, not /{POLICY_NAME}"
    warning = " ".join(" ".join(seen.warnings).split())
    return f"does not fit the installed kinds: {warning[:160]}" if warning else ""


def _paths(schema: Mapping[str, Any], at: str = "") -> frozenset[str]:
    """Every field of a structural schema, as ``.spec.steps[].drain.deadline``."""
    found: set[str] = set()
    for name, each in schema.get("properties", {}).items():
        path = f"{at}.{name}"
        found |= {path, *_paths(each, path)}
    for key, sign in (("items", "[]"), ("additionalProperties", ".*")):
        inner = schema.get(key)
        if isinstance(inner, Mapping):
            found |= _paths(inner, f"{at}{sign}")
    return frozenset(found)
