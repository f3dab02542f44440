"""Makes the strict JSON Schemas: for editors, and for the walker that checks files.

Unlike the CRDs they refuse unknown keys and say the defaults. Draft 7, since that is what the YAML
plugins of editors know best.
"""

from __future__ import annotations

import functools
import json
from types import MappingProxyType
from typing import Any, Final

import msgspec

from remediator.adapters.files import testfile
from remediator.adapters.files.kinds import KINDS
from remediator.adapters.files.rules import EXACTLY_ONE
from remediator.adapters.files.words import NAME_PATTERN, whole
from remediator.model.keys import API_VERSION

# A JSON Schema is untyped by nature; it stays inside this package.
Schema = dict[str, Any]

_TYPES: Final = MappingProxyType({**{kind.name: kind.type for kind in KINDS}, **testfile.TYPES})
FILE_KINDS: Final[tuple[str, ...]] = tuple(_TYPES)

# ``exactly one`` of types that only files have.
_EXACTLY_ONE: Final = MappingProxyType(
    {
        **EXACTLY_ONE,
        "Happening": testfile.HAPPENINGS,
    }
)

_DRAFT: Final = "http://json-schema.org/draft-07/schema#"
_TEXT_MAP: Final[Schema] = {"type": "object", "additionalProperties": {"type": "string"}}

# Wider than ObjectMeta of the model: what people and `kubectl get -o yaml` put into files.
_METADATA: Final[Schema] = {
    "title": "ObjectMeta",
    "description": "Standard object metadata.",
    "type": "object",
    "properties": {
        "name": {
            "type": "string",
            "minLength": 1,
            "pattern": NAME_PATTERN,
        },
        "labels": _TEXT_MAP,
        "annotations": _TEXT_MAP,
        "finalizers": {"type": "array", "items": {"type": "string"}},
        "ownerReferences": {"type": "array", "items": {"type": "object"}},
        "managedFields": {"type": "array", "items": {"type": "object"}},
        "uid": {"type": "string"},
        "resourceVersion": {"type": "string"},
        "generation": {"type": "integer"},
        "creationTimestamp": {"type": ["string", "null"]},
        "deletionTimestamp": {"type": ["string", "null"]},
        "deletionGracePeriodSeconds": {"type": "integer"},
    },
    "required": ["name"],
    "additionalProperties": False,
}


@functools.cache
def editor_schema(kind: str) -> Schema:
    """Make the strict schema of one kind of file. The result is shared: do not change it.

    Raises:
        KeyError: ``kind`` is not in ``FILE_KINDS``.
    """
    definitions = _definitions(_TYPES[kind])
    definitions["ObjectMeta"] = {
        **_METADATA,
        "properties": {
            **_METADATA["properties"],
            "name": {**_METADATA["properties"]["name"], "maxLength": _name_max(kind)},
        },
    }
    root = definitions.pop(kind)
    properties = {**root["properties"]}
    properties["apiVersion"] = {"const": API_VERSION}
    properties["kind"] = {"const": kind}
    if "status" in properties:
        properties["status"] = {"type": "object", "description": "The controller's; ignored in files."}
    # What only the status refers to is of no use to somebody who writes a file.
    used = _reachable(properties, definitions)
    return {
        "$schema": _DRAFT,
        **root,
        "title": f"{kind} ({API_VERSION})",
        "properties": properties,
        "required": ["apiVersion", "kind", *root["required"]],
        "$defs": {name: definitions[name] for name in definitions if name in used},
    }


def strict_schema(type_: type[msgspec.Struct], title: str) -> Schema:
    """The strict schema of a type that is no object of Kubernetes, and whose file holds nothing else."""
    definitions = _definitions(type_)
    root = definitions.pop(type_.__name__)
    return {"$schema": _DRAFT, **root, "title": title, "$defs": definitions}


def _definitions(type_: type[msgspec.Struct]) -> Schema:
    # Through JSON once, so that defaults are plain lists and mappings.
    made: Schema = json.loads(json.dumps(msgspec.json.schema(type_)))
    return {name: _strict(name, each) for name, each in made["$defs"].items()}


def _name_max(kind: str) -> int:
    return next((each.name_max for each in KINDS if each.name == kind), 253)


def _strict(name: str, schema: Schema) -> Schema:
    made = {**schema, "additionalProperties": False}
    if not made.get("required"):
        made.pop("required", None)
    if "description" in made:
        made["description"] = whole(made["description"])
    if name in _EXACTLY_ONE:
        made["oneOf"] = [{"required": [field]} for field in _EXACTLY_ONE[name]]
    made["properties"] = {field: _without_null(each) for field, each in made.get("properties", {}).items()}
    made.setdefault("required", [])
    return made


def _without_null(schema: Schema) -> Schema:
    """What may be absent is left out of a file: nobody writes null, and problems are told of the rest."""
    match schema:
        case {"anyOf": [dict(some), {"type": "null"}], "default": None}:
            return {**some, **{key: schema[key] for key in ("description",) if key in schema}}
    return schema


def _reachable(start: Schema, definitions: Schema) -> set[str]:
    found: set[str] = set()
    queue: list[Any] = [start]
    while queue:
        each = queue.pop()
        if isinstance(each, dict):
            name = str(each.get("$ref", "")).removeprefix("#/$defs/")
            if name in definitions and name not in found:
                found.add(name)
                queue.append(definitions[name])
            queue.extend(each.values())
        elif isinstance(each, list):
            queue.extend(each)
    return found
