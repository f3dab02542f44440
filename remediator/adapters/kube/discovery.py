"""Asks the API server, once at start, what it is, what is installed and what we may do.

Reads only; it installs nothing and decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final, TypeVar

import msgspec
from msgspec import Struct

from remediator.adapters.kube.errors import check_read
from remediator.adapters.kube.wire import Bookmark, GarbledError, ObjectDecoder, ServerError, close_lines
from remediator.errors import PermanentError
from remediator.model.keys import API_VERSION
from remediator.ports import Lane, Transport

T = TypeVar("T")

READ_TIMEOUT_S: Final = 10.0
RULES_MAX: Final = 256
RESOURCES: Final = (
    "managednodes",
    "managednodes/status",
    "playbooks",
    "playbooks/status",
    "remediationpolicies",
    "remediationpolicies/status",
    "remediations",
    "remediations/status",
    "resourcepools",
    "resourcepools/status",
)
OWN_REVIEWS: Final = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
REVIEWS: Final = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


class Installed(Struct, frozen=True):
    """What the server has.

    ``server_version`` is as the server writes it (``v1.36.4``). ``missing`` lists those of
    ``RESOURCES`` that it does not serve, all of them where the group is absent. ``watch_list``:
    it streams the initial state of a watch and marks its end.
    """

    server_version: str
    missing: tuple[str, ...]
    watch_list: bool


class Rule(Struct, frozen=True, order=True):
    """One permission, as in RBAC. ``resource`` may be ``pods/eviction``; ``group`` "" is core.

    ``namespace`` "" asks for all namespaces, or for a cluster-scoped kind.
    """

    group: str
    resource: str
    verb: str
    namespace: str = ""

    def __str__(self) -> str:
        text = f"{self.verb} {self.resource} {self.group or 'core'}"
        return f"{text} namespace={self.namespace}" if self.namespace else text


class _Version(Struct, rename="camel"):
    git_version: str = ""


class _Resource(Struct):
    name: str


class _Resources(Struct):
    resources: list[_Resource] | None = None


class _ReviewStatus(Struct, frozen=True):
    allowed: bool = False


class _Review(Struct):
    status: _ReviewStatus = _ReviewStatus()


class _AnyMeta(Struct, rename="camel"):
    name: str = ""
    resource_version: str = ""


class _Any(Struct):
    metadata: _AnyMeta


async def check_installed(transport: Transport) -> Installed:
    """Ask for version, our custom resources and watch-list.

    Raises:
        TransientError: the server is away or not ready.
        PermanentError: it does not let us ask.
    """
    version = await _get(transport, "/version", _Version)
    return Installed(
        server_version=version.git_version,
        missing=await _missing_resources(transport),
        watch_list=await _streams_lists(transport),
    )


async def missing_rules(transport: Transport, rules: Sequence[Rule], account: str = "") -> tuple[Rule, ...]:
    """Return those of ``rules`` that the server would deny, sorted. One review each.

    Args:
        rules: at most ``RULES_MAX``.
        account: user name of a ServiceAccount to ask about, which takes the right to create
            SubjectAccessReviews. Empty: ourselves, which every authenticated user may ask.

    Raises:
        TransientError, PermanentError: a review itself failed.
        ValueError: more than ``RULES_MAX`` rules.
    """
    if len(rules) > RULES_MAX:
        raise ValueError(f"{len(rules)} rules to check, at most {RULES_MAX}")
    return tuple([rule for rule in sorted(set(rules)) if not await _allowed(transport, rule, account)])


async def _allowed(transport: Transport, rule: Rule, account: str) -> bool:
    resource, _, subresource = rule.resource.partition("/")
    attributes = {"group": rule.group, "resource": resource, "verb": rule.verb}
    if subresource:
        attributes["subresource"] = subresource
    if rule.namespace:
        attributes["namespace"] = rule.namespace
    spec: dict[str, object] = {"resourceAttributes": attributes}
    if account:
        # A review does not add the groups that the server's own authentication would.
        namespace = account.split(":")[2]
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]
        spec |= {"user": account, "groups": groups}
    kind, path = ("SubjectAccessReview", REVIEWS) if account else ("SelfSubjectAccessReview", OWN_REVIEWS)
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec}
    response = await transport.request(
        "POST", path, body=msgspec.json.encode(body), timeout_s=READ_TIMEOUT_S, lane=Lane.NORMAL
    )
    reply = check_read(response, f"review of {rule}")
    return _decode(reply, _Review, path).status.allowed


async def _missing_resources(transport: Transport) -> tuple[str, ...]:
    try:
        found = await _get(transport, f"/apis/{API_VERSION}", _Resources)
    except PermanentError as error:
        if error.status != 404:
            raise
        return RESOURCES
    served = {each.name for each in found.resources or ()}
    return tuple(name for name in RESOURCES if name not in served)


async def _streams_lists(transport: Transport) -> bool:
    """Try it, on a list that is empty by its selector: feature gates say more than versions."""
    lines = transport.stream(
        "/api/v1/nodes",
        query={
            "watch": "1",
            "sendInitialEvents": "true",
            "resourceVersionMatch": "NotOlderThan",
            "allowWatchBookmarks": "true",
            "fieldSelector": "metadata.name=remediator.dev-nobody",
            "timeoutSeconds": "2",
        },
        connect_timeout_s=READ_TIMEOUT_S,
        idle_timeout_s=READ_TIMEOUT_S,
    )
    decoder = ObjectDecoder(_Any, lambda found: found)
    try:
        # A refusal, or a line that makes no sense, is an answer too: no.
        with suppress(PermanentError, GarbledError):
            async for line in lines:
                match decoder.event(line):
                    case Bookmark(initial_end=True):
                        return True
                    case ServerError():
                        return False
        return False
    finally:
        await close_lines(lines)


async def _get(transport: Transport, path: str, type_: type[T]) -> T:
    response = await transport.request("GET", path, timeout_s=READ_TIMEOUT_S, lane=Lane.NORMAL)
    return _decode(check_read(response, f"GET {path}"), type_, path)


def _decode(body: bytes, type_: type[T], what: str) -> T:
    try:
        return msgspec.json.decode(body, type=type_)
    except ValueError as error:
        raise GarbledError(f"{what}: {error}") from error
