"""Label and field selectors, as the query parameters have them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from remediator.sim.refusal import Json, bad_request

Matches = Callable[[Json], bool]
_SET: Final = re.compile(r"^\s*(?P<key>[^\s!=]+)\s+(?P<op>in|notin)\s+\((?P<values>[^)]*)\)\s*$")
_COMPARE: Final = re.compile(r"^\s*(?P<key>[^\s!=<>]+)\s*(?P<op>==|=|!=)\s*(?P<value>[^\s=!]*)\s*$")
_PRESENT: Final = re.compile(r"^\s*(?P<no>!?)\s*(?P<key>[^\s!=<>(),]+)\s*$")
_COMMA: Final = re.compile(r",(?![^(]*\))")


def everything(_: Json) -> bool:
    """The selector that nobody asked for."""
    return True


def label_selector(text: str) -> Matches:
    """Read ``labelSelector``.

    Raises:
        Refused: 400, it does not parse.
    """
    if not text.strip():
        return everything
    tests = [_label_test(part) for part in _COMMA.split(text)]

    def matches(obj: Json) -> bool:
        labels = obj["metadata"].get("labels") or {}
        return all(test(labels) for test in tests)

    return matches


def _label_test(part: str) -> Callable[[Mapping[str, str]], bool]:
    if found := _SET.match(part):
        key, wanted = found["key"], frozenset(each.strip() for each in found["values"].split(","))
        if found["op"] == "in":
            return lambda labels: labels.get(key) in wanted
        return lambda labels: labels.get(key) not in wanted
    if found := _COMPARE.match(part):
        key, value = found["key"], found["value"]
        if found["op"] == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if found := _PRESENT.match(part):
        key, absent = found["key"], bool(found["no"])
        return lambda labels: (key in labels) is not absent
    raise bad_request(f"unable to parse requirement: {part!r}")


def field_selector(text: str, fields: Mapping[str, tuple[str, ...]]) -> tuple[Matches, dict[str, str]]:
    """Read ``fieldSelector``; also which fields must be equal to what, for an index.

    Args:
        text: terms with ``=``, ``==`` or ``!=`` between commas.
        fields: what the kind can be selected by, each with its path.

    Raises:
        Refused: 400, it does not parse or names another field.
    """
    if not text.strip():
        return everything, {}
    tests: list[Matches] = []
    equal: dict[str, str] = {}
    for part in text.split(","):
        found = _COMPARE.match(part)
        if found is None:
            raise bad_request(f"invalid field selector: {part!r}")
        key, value = found["key"], found["value"]
        path = fields.get(key)
        if path is None:
            raise bad_request(f"field label not supported: {key}")
        tests.append(_field_test(path, value, wanted=found["op"] != "!="))
        if found["op"] != "!=":
            equal[key] = value
    return (lambda obj: all(test(obj) for test in tests)), equal


def _field_test(path: tuple[str, ...], value: str, *, wanted: bool) -> Matches:
    return lambda obj: (text_at(obj, path) == value) is wanted


def text_at(obj: Json, path: tuple[str, ...]) -> str:
    """The value at ``path`` as a selector sees it: missing is empty, and a bool is a word."""
    found: Any = obj
    for part in path:
        if not isinstance(found, dict):
            return ""
        found = found.get(part)
    if found is None:
        return ""
    return str(found).lower() if isinstance(found, bool) else str(found)


def structured(selector: Json | None) -> Matches:
    """A ``LabelSelector`` object. None matches nothing; an empty one matches everything."""
    if selector is None:
        return lambda _: False
    terms = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    for each in selector.get("matchExpressions") or ():
        values = ",".join(each.get("values") or ())
        match each["operator"]:
            case "In" | "NotIn":
                terms.append(f"{each['key']} {each['operator'].lower()} ({values})")
            case "Exists":
                terms.append(each["key"])
            case "DoesNotExist":
                terms.append(f"!{each['key']}")
    return label_selector(",".join(terms))
