"""A CustomResourceDefinition's schema at work: what it drops, fills in and refuses.

CEL rules (``x-kubernetes-validations``) are left to a real server.
"""

from __future__ import annotations

from typing import Any, Final

import jsonschema_rs

from remediator.sim.refusal import Json

PROBLEMS_MAX: Final = 20
_OPAQUE: Final = frozenset(("apiVersion", "kind", "metadata"))
# Of a structural schema to what a validator of JSON Schema knows; everything else is left out.
_KEPT: Final = frozenset((
    "type", "enum", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
    "minLength", "maxLength", "pattern", "minItems", "maxItems", "uniqueItems",
    "minProperties", "maxProperties", "required",
))  # fmt: skip


class Schema:
    """One version of one kind."""

    def __init__(self, structural: Json) -> None:
        self._root = structural
        plain = _plain(structural)
        for name in _OPAQUE:
            plain.get("properties", {}).pop(name, None)
        self._validator = jsonschema_rs.Draft202012Validator(plain)

    def pruned(self, obj: Json) -> tuple[Json, list[str]]:
        """Without the fields that the schema does not know; and which these were."""
        unknown: list[str] = []
        kept = {key: obj[key] for key in obj if key in _OPAQUE}
        rest = {key: value for key, value in obj.items() if key not in _OPAQUE}
        return kept | _prune(rest, self._root, "", unknown), unknown

    def filled(self, obj: Json) -> Json:
        """With every default that is missing, at every depth that is there."""
        filled: Json = _fill(obj, self._root)
        return filled

    def problems(self, obj: Json) -> list[tuple[str, str]]:
        """What is wrong, by path, at most ``PROBLEMS_MAX``."""
        if self._validator.is_valid(obj):
            return []
        found = []
        for error in self._validator.iter_errors(obj):
            found.append(_problem(error))
            if len(found) == PROBLEMS_MAX:
                break
        return found


def _plain(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    result: Json = {key: value for key, value in node.items() if key in _KEPT}
    for key in ("properties", "patternProperties"):
        if key in node:
            result[key] = {name: _plain(child) for name, child in node[key].items()}
    for key in ("items", "additionalProperties", "not"):
        if isinstance(node.get(key), dict):
            result[key] = _plain(node[key])
    for key in ("anyOf", "allOf", "oneOf"):
        if key in node:
            result[key] = [_plain(child) for child in node[key]]
    return _extended(result, node)


def _extended(plain: Json, node: Json) -> Json:
    """What Kubernetes says in words of its own."""
    if node.get("x-kubernetes-int-or-string"):
        plain.pop("type", None)
        plain["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if node.get("nullable") and "type" in plain:
        plain["type"] = [plain["type"], "null"]
    if node.get("x-kubernetes-list-type") == "set":
        plain["uniqueItems"] = True
    return plain


def _prune(value: Any, schema: Json, path: str, unknown: list[str]) -> Any:
    if isinstance(value, list):
        items = schema.get("items") or {}
        return [_prune(each, items, f"{path}[{index}]", unknown) for index, each in enumerate(value)]
    if not isinstance(value, dict) or schema.get("x-kubernetes-preserve-unknown-fields"):
        return value
    known = schema.get("properties") or {}
    others = schema.get("additionalProperties")
    result = {}
    for key, child in value.items():
        at = f"{path}.{key}" if path else key
        if key in known:
            result[key] = _prune(child, known[key], at, unknown)
        elif isinstance(others, dict):
            result[key] = _prune(child, others, at, unknown)
        elif others is True:
            result[key] = child
        else:
            unknown.append(at)
    return result


def _fill(value: Any, schema: Json) -> Any:
    if isinstance(value, list):
        items = schema.get("items") or {}
        return [_fill(each, items) for each in value]
    if not isinstance(value, dict):
        return value
    known = schema.get("properties") or {}
    result = dict(value)
    for key, child in known.items():
        if result.get(key) is None and key in result and not child.get("nullable"):
            del result[key]
        if key not in result and "default" in child:
            result[key] = child["default"]
        if key in result and key not in _OPAQUE:
            result[key] = _fill(result[key], child)
    others = schema.get("additionalProperties")
    if isinstance(others, dict):
        for key in result.keys() - known.keys():
            result[key] = _fill(result[key], others)
    return result


def _problem(error: jsonschema_rs.ValidationError) -> tuple[str, str]:
    path = _path(error.instance_path)
    if isinstance(error.kind, jsonschema_rs.ValidationErrorKind.Required):
        return (f"{path}.{error.kind.property}".lstrip("."), "Required value")
    return path, f"Invalid value: {error.message}"


def _path(parts: Any) -> str:
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".")
