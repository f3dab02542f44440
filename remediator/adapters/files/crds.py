"""Makes the CustomResourceDefinitions from the model types.

msgspec says the JSON Schema; here it becomes the structural form that an API server takes: no
references, no titles, no defaults but the few in ``rules.DEFAULTS``, CEL rules in place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from remediator.adapters.files.kinds import CATEGORY, Column, Kind
from remediator.adapters.files.rules import CEL, DEFAULTS, FIELD_CEL, LIST_KEYS, Rule
from remediator.adapters.files.words import PATTERN_WORDS, short
from remediator.model.keys import GROUP, VERSION

# A JSON Schema is untyped by nature; it stays inside this package.
Schema = dict[str, Any]

_KEPT: Final = (
    "type", "enum", "format", "pattern", "minLength", "maxLength", "minimum", "maximum",
    "minItems", "maxItems", "minProperties", "maxProperties",
)  # fmt: skip


def make_crd(kind: Kind) -> Schema:
    """Make the CustomResourceDefinition of one kind, ready to be written as YAML."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{kind.plural}.{GROUP}",
            "labels": {"app.kubernetes.io/name": "remediator", "app.kubernetes.io/component": "crd"},
        },
        "spec": {
            "group": GROUP,
            "scope": "Cluster",
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": kind.name.lower(),
                "shortNames": [kind.short],
                "categories": [CATEGORY],
            },
            "versions": [_version(kind)],
        },
    }


def _version(kind: Kind) -> Schema:
    version: Schema = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": [_column(column) for column in kind.columns],
    }
    if kind.selectable:
        version["selectableFields"] = [{"jsonPath": path} for path in kind.selectable]
    version["schema"] = {"openAPIV3Schema": structural_schema(kind)}
    return version


def _column(column: Column) -> Schema:
    made: Schema = {"name": column.name, "type": column.type, "jsonPath": column.path}
    return {**made, "priority": 1} if column.wide else made


def structural_schema(kind: Kind) -> Schema:
    """Make the structural OpenAPI v3 schema of one kind, root object included."""
    definitions: Mapping[str, Schema] = msgspec.json.schema(kind.type)["$defs"]
    root = definitions[kind.name]
    made: Schema = {"type": "object", "description": kind.summary}
    required = [name for name in root.get("required", ()) if name == "spec"]
    if required:
        made["required"] = required
    made["properties"] = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {
            "type": "object",
            "properties": {"name": {"type": "string", "maxLength": kind.name_max}},
        },
        "spec": _structural(root["properties"]["spec"], definitions),
        "status": _structural(root["properties"]["status"], definitions),
    }
    if kind.name in CEL:
        made["x-kubernetes-validations"] = _validations(CEL[kind.name])
    return made


def _structural(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        return _object(name, definitions[name], definitions)
    made: Schema = {}
    if "description" in schema:
        made["description"] = short(schema["description"])
    if "enum" in schema:
        made["type"] = "string"
    made.update({key: schema[key] for key in _KEPT if key in schema})
    if made.get("pattern") in PATTERN_WORDS:
        # The server refuses with the pattern itself what does not match one; with a rule, in words.
        pattern = made.pop("pattern")
        rule = Rule(f"self.matches('{pattern}')", PATTERN_WORDS[pattern])
        made["x-kubernetes-validations"] = _validations((rule,))
    if "items" in schema:
        made["items"] = _structural(schema["items"], definitions)
    if isinstance(schema.get("additionalProperties"), dict):
        made["additionalProperties"] = _structural(schema["additionalProperties"], definitions)
    return made


def _object(name: str, schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    made: Schema = {"type": "object"}
    if "description" in schema:
        made["description"] = short(schema["description"])
    if schema.get("required"):
        made["required"] = list(schema["required"])
    if schema["properties"]:
        made["properties"] = {
            field: _property(name, field, each, definitions) for field, each in schema["properties"].items()
        }
    if name in CEL:
        made["x-kubernetes-validations"] = _validations(CEL[name])
    return made


def _property(owner: str, field: str, schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    made = _structural(schema, definitions)
    if (owner, field) in DEFAULTS:
        made["default"] = DEFAULTS[owner, field]
    if (owner, field) in LIST_KEYS:
        made["x-kubernetes-list-type"] = "map"
        made["x-kubernetes-list-map-keys"] = [LIST_KEYS[owner, field]]
    if (owner, field) in FIELD_CEL:
        # A type used here may bring rules of its own; both must hold.
        own = made.get("x-kubernetes-validations", [])
        made["x-kubernetes-validations"] = own + _validations(FIELD_CEL[owner, field])
    return made


def _validations(rules: Iterable[Rule]) -> list[Schema]:
    return [{"rule": rule.rule, "message": rule.message} for rule in rules]
