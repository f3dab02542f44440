"""What the API server says of itself: version, kinds, who asks and what they may do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from remediator.sim.kinds import Kind
from remediator.sim.refusal import Json
from remediator.sim.request import Request

VERSION: Final = {"major": "1", "minor": "36", "gitVersion": "v1.36.4", "platform": "linux/amd64"}
# Below a kind, under a name of its own. Clients look here for how an eviction is to be written.
_BELOW: Final[Mapping[str, Json]] = {
    "eviction": {"group": "policy", "version": "v1", "kind": "Eviction"},
    "binding": {"kind": "Binding"},
}
VERBS: Final = ("create", "delete", "get", "list", "patch", "update", "watch")
_REVIEWS: Final = {
    "/apis/authentication.k8s.io/v1/selfsubjectreviews": "SelfSubjectReview",
    "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews": "SelfSubjectAccessReview",
    "/apis/authorization.k8s.io/v1/subjectaccessreviews": "SubjectAccessReview",
}

_encode = msgspec.json.encode


def answer_about_itself(request: Request, kinds: Iterable[Kind]) -> tuple[int, bytes] | None:
    """Status and body where the path is one of these; None for everything that is about objects.

    Raises:
        Refused: 400, the body of a review is no object.
    """
    if request.method == "POST":
        kind = _REVIEWS.get(request.path)
        return None if kind is None else (201, _encode(_review(request, kind)))
    parts = request.path.strip("/").split("/")
    match parts:
        case ["version"]:
            return 200, _encode(VERSION)
        case ["readyz" | "livez" | "healthz"]:
            return 200, b"ok"
        case ["api"]:
            return 200, _encode({"kind": "APIVersions", "versions": ["v1"]})
        case ["apis"]:
            return 200, _encode(_groups(kinds))
        case ["api", version]:
            return _resources("", version, kinds)
        case ["apis", group, version]:
            return _resources(group, version, kinds)
    return None


def _review(request: Request, kind: str) -> Json:
    asked = request.json()
    if kind == "SelfSubjectReview":
        status: Json = {"userInfo": {"username": request.user.name, "groups": list(request.user.groups)}}
    else:  # whoever gets this far may do everything: rights are left to a real server
        status = {"allowed": True}
    return asked | {"status": status}


def _groups(kinds: Iterable[Kind]) -> Json:
    found: dict[str, dict[str, None]] = {}
    for kind in kinds:
        if kind.group:
            found.setdefault(kind.group, {})[kind.version] = None
    groups = []
    for group, versions in sorted(found.items()):
        served = [{"groupVersion": f"{group}/{version}", "version": version} for version in versions]
        groups.append({"name": group, "versions": served, "preferredVersion": served[0]})
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def _resources(group: str, version: str, kinds: Iterable[Kind]) -> tuple[int, bytes] | None:
    """None where nothing is served: that is a 404 like any other."""
    found = [kind for kind in kinds if (kind.group, kind.version) == (group, version)]
    if not found:
        return None
    resources = []
    for kind in sorted(found, key=lambda each: each.plural):
        plain = {"singularName": kind.kind.lower(), "namespaced": kind.namespaced, "kind": kind.kind}
        resources.append(plain | {"name": kind.plural, "verbs": VERBS, "shortNames": kind.short_names})
        below = (*(("status",) if kind.status else ()), *kind.subresources)
        resources += [
            plain | {"name": f"{kind.plural}/{name}", "verbs": VERBS} | _BELOW.get(name, {}) for name in below
        ]
    group_version = f"{group}/{version}" if group else version
    listed = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version}
    return 200, _encode(listed | {"resources": resources})
