"""Checks a tree against a JSON Schema and reports every error, with near misses and what to write.

One walker for all kinds. It knows the keywords that ``schema`` uses and no others.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from remediator.adapters.files.schema import Schema
from remediator.adapters.files.tree import Member, Path, Tree, spell
from remediator.adapters.files.words import PATTERN_WORDS
from remediator.errors import Problem

_WORDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "string": "text",
        "integer": "a whole number",
        "number": "a number",
        "boolean": "true or false",
        "array": "a list",
        "object": "a mapping",
        "null": "nothing",
    }
)


def near_miss(wrong: str, known: Iterable[str]) -> str | None:
    """The one name that was probably meant, or None."""
    names = sorted(known)
    folded = {name.lower(): name for name in reversed(names)}
    if wrong.lower() in folded:
        return folded[wrong.lower()]
    found = difflib.get_close_matches(wrong.lower(), list(folded), n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def walk(tree: Tree, schema: Schema, file: str, *, at: Path = ()) -> list[Problem]:
    """Check one document.

    Args:
        tree: the document.
        schema: of ``schema.editor_schema``; references are looked up in its ``$defs``.
        file: the path that problems name.
        at: where the document stands in its file, for an item of a List.

    Returns:
        Every problem, in file order.
    """
    walker = _Walker(file, schema.get("$defs", {}))
    walker.check(tree, schema, at)
    return sorted(walker.problems, key=lambda each: (each.line, each.column))


@dataclass(slots=True)
class _Walker:
    file: str
    definitions: Schema
    problems: list[Problem]

    def __init__(self, file: str, definitions: Schema) -> None:
        self.file = file
        self.definitions = definitions
        self.problems = []

    def check(self, tree: Tree, schema: Schema, path: Path) -> None:
        while "$ref" in schema:
            schema = self.definitions[schema["$ref"].removeprefix("#/$defs/")]
        if "const" in schema or "enum" in schema:
            self._choice(tree, schema, path)
            return
        if not _fits(tree.value, _types(schema)):
            self._wrong(tree, path, *_wrong_type(tree, schema))
            return
        match tree.value:
            case bool() | None:
                pass
            case str(text):
                self._each(tree, path, _text_faults(text, schema))
            case int() | float():
                self._each(tree, path, _number_faults(tree.value, schema))
            case list(items):
                self._each(tree, path, _size_faults(len(items), schema, "Items", "entries"))
                for index, item in enumerate(items):
                    self.check(item, schema.get("items", {}), (*path, index))
            case dict(members):
                self._mapping(tree, members, schema, path)

    def _choice(self, tree: Tree, schema: Schema, path: Path) -> None:
        allowed = [schema["const"]] if "const" in schema else schema["enum"]
        if tree.value in allowed and not isinstance(tree.value, bool):
            return
        shown = ", ".join(allowed)
        if not isinstance(tree.value, str):
            self._wrong(tree, path, *_wrong_type(tree, {"type": "string"}, allowed))
            return
        meant = near_miss(tree.value, allowed)
        fix = f"did you mean {meant}?" if meant else ""
        one_of = "must be" if len(allowed) == 1 else "must be one of"
        self._wrong(tree, path, f"{tree.value!r} {one_of} {shown}", fix)

    def _mapping(self, tree: Tree, members: dict[str, Member], schema: Schema, path: Path) -> None:
        properties: Schema = schema.get("properties", {})
        others = schema.get("additionalProperties", True)
        for name, member in members.items():
            if name in properties:
                self.check(member.tree, properties[name], (*path, name))
            elif isinstance(others, dict):
                self._each(
                    member.tree, (*path, name), _text_faults(name, schema.get("propertyNames", {}), "key ")
                )
                self.check(member.tree, others, (*path, name))
            elif others is False:
                message, fix = _unknown_key(name, properties)
                at = Tree(member.line, member.column, None)
                self._wrong(at, (*path, name), message, fix)
        for name in schema.get("required", ()):
            if name not in members:
                self._wrong(tree, path, f"{name} is missing", _example(name, properties.get(name, {})))
        self._each(tree, path, _union_faults(members, schema))
        self._each(tree, path, _size_faults(len(members), schema, "Properties", "keys"))

    def _each(self, tree: Tree, path: Path, faults: Iterator[tuple[str, str]]) -> None:
        for message, fix in faults:
            self._wrong(tree, path, message, fix)

    def _wrong(self, tree: Tree, path: Path, message: str, fix: str = "") -> None:
        self.problems.append(Problem(self.file, tree.line, tree.column, spell(path), message, fix))


def _types(schema: Schema) -> tuple[str, ...]:
    found = schema.get("type", ())
    return (found,) if isinstance(found, str) else tuple(found)


_IS: Final[Mapping[str, Callable[[Any], bool]]] = MappingProxyType(
    {
        "string": lambda value: isinstance(value, str),
        "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
        "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
        "boolean": lambda value: isinstance(value, bool),
        "array": lambda value: isinstance(value, list),
        "object": lambda value: isinstance(value, dict),
        "null": lambda value: value is None,
    }
)


def _fits(value: object, types: tuple[str, ...]) -> bool:
    return not types or any(_IS[name](value) for name in types)


def _wrong_type(tree: Tree, schema: Schema, allowed: Iterable[str] = ()) -> tuple[str, str]:
    wanted = " or ".join(_WORDS[name] for name in _types(schema))
    value = tree.value
    match value:
        case None:
            fix = (
                "write {} for an empty one"
                if "object" in _types(schema)
                else "write a value or remove the key"
            )
            return f"expected {wanted}, found nothing", fix
        case bool() | int() | float():
            shown = str(value).lower() if isinstance(value, bool) else str(value)
            quoted = str(value) if allowed else shown  # a condition's status carries a capital
            is_text = "string" in _types(schema) and (not allowed or quoted in allowed)
            return f"expected {wanted}, found {shown}", f'write "{quoted}" in quotes' if is_text else ""
        case str():
            bare = _types(schema)[0] in ("integer", "number", "boolean")
            unquoted = bare and re.fullmatch(r"-?[0-9.]+|true|false", value)
            return f"expected {wanted}, found text {_clip(value)!r}", "remove the quotes" if unquoted else ""
        case list():
            return f"expected {wanted}, found a list", ""
        case _:
            return f"expected {wanted}, found a mapping", "put '- ' before it" if "array" in _types(
                schema
            ) else ""


def _clip(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"


def _text_faults(text: str, schema: Schema, what: str = "") -> Iterator[tuple[str, str]]:
    if len(text) < schema.get("minLength", 0):
        short = (
            f"has {len(text)} characters, at least {schema['minLength']} are needed" if text else "is empty"
        )
        yield f"{what}{_clip(text)!r} {short}", PATTERN_WORDS.get(schema.get("pattern", ""), "")
    elif "pattern" in schema and not re.search(schema["pattern"], text):
        words = PATTERN_WORDS.get(schema["pattern"], f"must match {schema['pattern']}")
        yield f"{what}{_clip(text)!r} has the wrong form", words
    if len(text) > schema.get("maxLength", len(text)):
        yield f"{what}{_clip(text)!r} has {len(text)} characters", f"at most {schema['maxLength']}"
    if schema.get("format") == "date-time" and not _is_time(text):
        yield f"{_clip(text)!r} is not a time", "write it as 2026-01-31T12:00:00Z"


def _is_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None and "T" in text
    except ValueError:
        return False


def _number_faults(number: float, schema: Schema) -> Iterator[tuple[str, str]]:
    low, high = schema.get("minimum", number), schema.get("maximum", number)
    above = schema.get("exclusiveMinimum", number - 1)
    if not (low <= number <= high and number > above):
        bounds = [f"at least {low}"] * ("minimum" in schema)
        bounds += [f"above {above}"] * ("exclusiveMinimum" in schema)
        bounds += [f"at most {high}"] * ("maximum" in schema)
        yield f"{number} is out of bounds", " and ".join(bounds)


def _size_faults(size: int, schema: Schema, suffix: str, what: str) -> Iterator[tuple[str, str]]:
    low, high = schema.get(f"min{suffix}", 0), schema.get(f"max{suffix}", size)
    if size < low:
        yield f"has {size} {what}", f"at least {low}"
    if size > high:
        yield f"has {size} {what}", f"at most {high}"


def _union_faults(members: Mapping[str, Member], schema: Schema) -> Iterator[tuple[str, str]]:
    names = [option["required"][0] for option in schema.get("oneOf", ())]
    found = [name for name in members if name in names]
    if names and len(found) != 1:
        yield f"found {' and '.join(found) or 'none'}", f"set exactly one of {', '.join(names)}"


def _unknown_key(name: str, properties: Schema) -> tuple[str, str]:
    meant = near_miss(name, properties)
    known = ", ".join(properties) or "none: write {}"
    return f"unknown key {name!r}", f"did you mean {meant}?" if meant else f"known: {known}"


def _example(name: str, schema: Schema) -> str:
    if "const" in schema:
        return f"add {name}: {schema['const']}"
    if "enum" in schema:
        return f"add {name}: {' | '.join(schema['enum'])}"
    return f"add {name}"
