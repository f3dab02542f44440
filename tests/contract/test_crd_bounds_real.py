"""Every bound of every field that people write holds on the real server, and its refusal names the field.

The bad values are made from the shipped schemas, so that a new field is tried as soon as it exists.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from remediator.adapters.files.kinds import KIND_BY_NAME, KINDS, Kind
from remediator.model.keys import GROUP, VERSION
from remediator.testbed.api import Api, ApiError
from tests.contract.live import install_crds
from tests.unit.adapters.files.examples import Json
from tests.unit.adapters.files.full_examples import FULL

CRDS = Path(__file__).resolve().parents[2] / "deploy" / "crds"
STRICT = "?fieldValidation=Strict&dryRun=All"
WRONG_TYPE: dict[str, object] = {
    "string": 5,
    "integer": "five",
    "number": "five",
    "boolean": "yes",
    "array": {"a": 1},
    "object": ["a"],
}

# For each kind of bound how to pass it, from the bound and a good value.
BEYOND: dict[str, Callable[[Any, Any], object]] = {
    "enum": lambda _bound, _value: "no such word",
    "format": lambda _bound, _value: "tomorrow",
    "minLength": lambda _bound, _value: "",
    "maxLength": lambda bound, _value: "a" * (bound + 1),
    "minimum": lambda bound, _value: bound - 1,
    "maximum": lambda bound, _value: bound + 1,
    "minItems": lambda _bound, _value: [],
    "maxItems": lambda bound, value: [value[0]] * (bound + 1),
    "maxProperties": lambda bound, _value: {f"key-{number}": "x" for number in range(bound + 1)},
}

Place = tuple[str | int, ...]

pytestmark = pytest.mark.real_server


def spec_schema(kind: Kind) -> Json:
    crd = YAML(typ="safe").load(CRDS / f"{GROUP}_{kind.plural}.yaml")
    schema: Json = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return schema


def bad_values(schema: Json, value: Any) -> Iterator[tuple[str, object]]:
    """What this schema alone refuses, with the bound that does. ``value`` is a good one."""
    yield "type", WRONG_TYPE[schema["type"]]
    for bound, spoilt in BEYOND.items():
        if bound in schema:
            yield bound, spoilt(schema[bound], value)
    if any("matches" in rule["rule"] for rule in schema.get("x-kubernetes-validations", ())):
        yield "form", "?!"
    for name in schema.get("required", ()):
        yield f"required {name}", {key: each for key, each in value.items() if key != name}


def fields(schema: Json, value: Any, at: Place) -> Iterator[tuple[Place, Json, Any]]:
    """Every field of a good object, with its schema."""
    yield at, schema, value
    for name, each in schema.get("properties", {}).items():
        if isinstance(value, dict) and name in value:
            yield from fields(each, value[name], (*at, name))
    if "items" in schema and isinstance(value, list):
        for number, each in enumerate(value):
            yield from fields(schema["items"], each, (*at, number))


def every_field(schema: Json, at: str) -> Iterator[str]:
    """Every field of a schema, lists without their numbers."""
    yield at
    for name, each in schema.get("properties", {}).items():
        yield from every_field(each, f"{at}.{name}")
    if "items" in schema:
        yield from every_field(schema["items"], f"{at}[]")


def spelled(at: Place, *, numbers: bool = True) -> str:
    parts = [f"[{each if numbers else ''}]" if isinstance(each, int) else f".{each}" for each in at]
    return "".join(parts).removeprefix(".")


def spoil(made: Json, at: Place, value: object) -> Json:
    bad = copy.deepcopy(made)
    place: Any = bad
    for part in at[:-1]:
        place = place[part]
    place[at[-1]] = value
    return bad


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_examples_hold_every_field(kind: Kind):
    """A field that no example has would not be tried below."""
    schema = spec_schema(kind)
    held = {
        spelled(at, numbers=False)
        for made in (make() for make in FULL)
        if made["kind"] == kind.name
        for at, _, _ in fields(schema, made["spec"], ("spec",))
    }

    assert set(every_field(schema, "spec")) - held == set()


@pytest.mark.parametrize("make", FULL, ids=lambda make: make.__name__)
def test_every_bound_refuses_and_names_the_field(api: Api, make):
    """kubectl shows no more than this text: it has to say where."""
    install_crds(api)
    made = make()
    kind = KIND_BY_NAME[made["kind"]]
    path = f"/apis/{GROUP}/{VERSION}/{kind.plural}{STRICT}"
    api.create(path, made)  # what is spoiled below is good as it is
    wrong = []
    for at, schema, value in fields(spec_schema(kind), made["spec"], ("spec",)):
        for bound, bad in bad_values(schema, value):
            try:
                api.create(path, spoil(made, at, bad))
            except ApiError as error:
                if error.status not in (400, 422) or spelled(at) not in str(error):
                    wrong.append(f"{spelled(at)} {bound}: {error}")
            else:
                wrong.append(f"{spelled(at)} {bound}: {str(bad)[:60]} was accepted")

    assert wrong == []
