"""One HTTP request as the API server reads it: who, which verb, which object."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

import msgspec

from remediator.sim.kinds import Kind
from remediator.sim.refusal import Json, Refused, bad_request, unknown_path

_VERBS: Final = {"POST": "create", "PUT": "update", "PATCH": "patch"}


@dataclass(frozen=True, slots=True)
class User:
    """Who asks, as the server's authentication found it."""

    name: str
    groups: tuple[str, ...] = ("system:authenticated",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """As it arrived. Header names are lower case."""

    user: User
    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def json(self) -> Json:
        """The body as an object.

        Raises:
            Refused: 400, it is none.
        """
        try:
            found = msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise bad_request(f"couldn't decode the body: {error}") from error
        if not isinstance(found, dict):
            raise bad_request("the body must be an object")
        return found

    @property
    def dry_run(self) -> bool:
        """
        Raises:
            Refused: 400, a dry run of another name.
        """
        asked = self.query.get("dryRun", "")
        if asked not in ("", "All"):
            raise bad_request(f"unsupported dryRun value: {asked!r}")
        return bool(asked)


@dataclass(frozen=True, slots=True)
class Route:
    """What a path names. ``name`` is empty for a collection."""

    kind: Kind
    namespace: str
    name: str
    subresource: str
    verb: str

    @property
    def key(self) -> tuple[str, str]:
        return (self.namespace, self.name)


def find_route(request: Request, kind_of: Callable[[str, str, str], Kind | None]) -> Route:
    """Read the path.

    Args:
        request: any.
        kind_of: (group, version, plural) to the kind that is served.

    Raises:
        Refused: 404, nobody serves the path; 405, not by that method.
    """
    parts = [unquote(part) for part in request.path.strip("/").split("/")]
    group, rest = ("", parts[1:]) if parts[0] == "api" else (parts[1] if len(parts) > 1 else "", parts[2:])
    if parts[0] not in ("api", "apis") or len(rest) < 2:
        raise unknown_path()
    version, rest = rest[0], rest[1:]
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    kind = kind_of(group, version, rest[0])
    if kind is None or (namespace and not kind.namespaced) or len(rest) > 3:
        raise unknown_path()
    name = rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 else ""
    if subresource and not (subresource == "status" and kind.status) and subresource not in kind.subresources:
        raise unknown_path()
    if kind.namespaced and name and not namespace:
        raise unknown_path()
    return Route(kind, namespace, name, subresource, _verb(request, name, subresource))


def _verb(request: Request, name: str, subresource: str) -> str:
    if request.method == "GET":
        if name:
            return "get"
        return "watch" if request.query.get("watch") in ("1", "true") else "list"
    if request.method == "DELETE":
        return "delete" if name else "deletecollection"
    verb = _VERBS.get(request.method, "")
    plural = not name
    wrong = (not plural and subresource in ("", "status")) if verb == "create" else plural
    if not verb or wrong:
        raise Refused(
            405, "MethodNotAllowed", "the server does not allow this method on the requested resource"
        )
    return verb
