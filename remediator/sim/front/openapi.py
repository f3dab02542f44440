"""What ``kubectl apply`` asks before it sends anything: for which kinds the server itself checks fields.

An OpenAPI v3 document for each group, with that and nothing else: no schemas, so ``kubectl explain`` has
nothing to explain.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from remediator.sim.kinds import Kind
from remediator.sim.refusal import Json

ROOT: Final = "/openapi/v3"
_PARAMETERS: Final = [
    {"name": name, "in": "query", "schema": {"type": "string"}} for name in ("dryRun", "fieldValidation")
]


def document(path: str, kinds: Iterable[Kind]) -> Json | None:
    """The index, or the document of one group; None where nothing is served at the path."""
    by_place: dict[str, list[Kind]] = {}
    for kind in kinds:
        by_place.setdefault(_place(kind), []).append(kind)
    if path == ROOT:
        return {"paths": {place: {"serverRelativeURL": f"{ROOT}/{place}"} for place in sorted(by_place)}}
    found = by_place.get(path.removeprefix(f"{ROOT}/"))
    if found is None:
        return None
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "simulated"},
        "paths": {_object_path(kind): _item(kind) for kind in found},
        "components": {"schemas": {}},
    }


def _place(kind: Kind) -> str:
    return f"apis/{kind.api_version}" if kind.group else f"api/{kind.version}"


def _object_path(kind: Kind) -> str:
    within = "namespaces/{namespace}/" if kind.namespaced else ""
    return f"/{_place(kind)}/{within}{kind.plural}/{{name}}"


def _item(kind: Kind) -> Json:
    named = {"group": kind.group, "version": kind.version, "kind": kind.kind}
    return {
        "patch": {
            "operationId": f"patch{kind.kind}",
            "parameters": _PARAMETERS,
            "responses": {"200": {"description": "OK"}},
            "x-kubernetes-action": "patch",
            "x-kubernetes-group-version-kind": named,
        }
    }
