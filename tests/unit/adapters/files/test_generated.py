"""Generated files are fresh, the CRDs keep the API server's bounds, and schema and model agree."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from remediator.adapters.files.catalogue import by_code, load_catalogue
from remediator.adapters.files.crds import make_crd, structural_schema
from remediator.adapters.files.generated import generated_files, schema_file, stale_files, write_files
from remediator.adapters.files.kinds import KIND_BY_NAME, KINDS
from remediator.adapters.files.loader import load_objects, load_text
from remediator.adapters.files.rules import EXACTLY_ONE, IMMUTABLE, IMMUTABLE_OPTIONAL
from remediator.adapters.files.schema import FILE_KINDS, Schema, editor_schema
from remediator.adapters.files.walker import near_miss
from remediator.cli.generate import chaos_schemas
from remediator.model.keys import API_VERSION
from remediator.model.playbook import Matcher, Playbook, Step
from remediator.model.remediation import RemediationSpec
from tests.unit.adapters.files.examples import OBJECTS

ROOT = Path(__file__).resolve().parents[4]


def test_generated_files_are_fresh():
    """A stale CRD refuses what the program accepts; run `make generate`."""
    assert stale_files(ROOT, chaos_schemas()) == ()


def test_generate_writes_what_is_stale_and_removes_what_is_not_made(tmp_path: Path):
    """A kind that was renamed must not leave its old CRD to be installed."""
    (tmp_path / "deploy/crds").mkdir(parents=True)
    left = tmp_path / "deploy/crds/remediator.dev_old.yaml"
    left.write_text("old\n")

    written = write_files(tmp_path)

    assert set(written) == {*generated_files(), "deploy/crds/remediator.dev_old.yaml"}
    assert not left.exists()
    assert stale_files(tmp_path) == ()
    assert write_files(tmp_path) == ()


def schemas_in(schema: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    yield path, schema
    for name, each in schema.get("properties", {}).items():
        yield from schemas_in(each, f"{path}.{name}")
    if "items" in schema:
        yield from schemas_in(schema["items"], f"{path}[]")
    if "additionalProperties" in schema:
        yield from schemas_in(schema["additionalProperties"], f"{path}{{}}")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_list_map_and_text_of_a_crd_is_bounded(kind):
    """The server prices CEL rules by these bounds, and etcd holds 1.5 MB an object."""
    unbounded = []
    for path, schema in schemas_in(structural_schema(kind), kind.name):
        bound = {"string": "maxLength", "array": "maxItems"}.get(schema["type"], "")
        if "additionalProperties" in schema:
            bound = "maxProperties"
        if bound and bound not in schema and "enum" not in schema:
            unbounded.append(path)

    assert unbounded == [f"{kind.name}.apiVersion", f"{kind.name}.kind"]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_crd_columns_and_selectable_fields_exist(kind):
    """A column over a field that was renamed stays blank for ever, and nobody notices."""
    known = {path for path, _ in schemas_in(structural_schema(kind), "")}
    paths = [column.path for column in kind.columns] + list(kind.selectable)

    missing = [path for path in paths if not path.startswith(".metadata") and _generic(path) not in known]

    assert missing == []


def _generic(path: str) -> str:
    return re.sub(r"\[.*?\]\)?\]?", "[]", path)


def test_crd_holds_nothing_that_is_not_structural():
    """References, titles and propertyNames make the server refuse the whole CRD."""
    for kind in KINDS:
        text = json.dumps(make_crd(kind))
        for word in ('"$ref"', '"$defs"', '"title"', '"propertyNames"', '"examples"', "``"):
            assert word not in text


def test_unions_name_every_alternative():
    """A new action that the table lacks would be refused beside none at all."""
    steps = {each.encode_name for each in msgspec.structs.fields(Step)} - {"id"}
    matchers = {each.encode_name for each in msgspec.structs.fields(Matcher)} - {"id", "for", "faultClass"}

    assert set(EXACTLY_ONE["Step"]) == steps
    assert set(EXACTLY_ONE["Matcher"]) == matchers


def test_every_field_of_a_run_is_immutable_but_cancel():
    """A new field of the audit record must not be open to later edits."""
    fields = msgspec.structs.fields(RemediationSpec)

    assert set(IMMUTABLE) == {each.encode_name for each in fields} - {"cancel"}
    assert set(IMMUTABLE_OPTIONAL) == {each.encode_name for each in fields if not each.required} - {"cancel"}


@pytest.mark.parametrize("make", OBJECTS, ids=lambda make: make.__name__)
def test_model_round_trip_keeps_every_field(make):
    """A field that is lost between file and cluster is a limit that is not kept."""
    made = make()
    kind = KIND_BY_NAME[made["kind"]]

    value = msgspec.convert(made, kind.type)

    written = msgspec.json.encode(value)
    assert msgspec.json.decode(written, type=kind.type) == value
    # Defaults are left out, and so are kind and apiVersion: whoever sends an object adds them.
    sent = {**json.loads(written), "apiVersion": API_VERSION, "kind": kind.name}
    assert load_text(json.dumps(sent), "a.json")[0].value == value


def test_shipped_playbooks_start_in_audit_and_carry_their_costs():
    """An upgrade must never start to act, and a reader must see the price before switching on."""
    playbooks = [
        each.value for each in load_objects([ROOT / "playbooks"]) if isinstance(each.value, Playbook)
    ]

    assert len(playbooks) == 10
    for playbook in playbooks:
        annotations = playbook.metadata.annotations or {}
        name = playbook.metadata.name
        assert playbook.spec.mode == "Audit"
        assert annotations["remediator.dev/runbook"] == f"docs/runbooks/{name}.md"
        assert "\n" not in annotations["remediator.dev/costs"]


def test_shipped_playbooks_are_listed_in_their_readme():
    """The README is where people choose."""
    readme = (ROOT / "playbooks/README.md").read_text()

    for each in load_objects([ROOT / "playbooks"]):
        if isinstance(each.value, Playbook):
            assert f"[{each.name}]({Path(each.path).name})" in readme


def test_playbook_files_name_their_schema():
    """Without the modeline an editor checks nothing."""
    for path in (ROOT / "playbooks").glob("*.yaml"):
        first = path.read_text().splitlines()[0]
        target = first.removeprefix("# yaml-language-server: $schema=")
        assert (path.parent / target).resolve() == ROOT / "schemas" / schema_file("Playbook")


@pytest.mark.parametrize("kind", FILE_KINDS)
def test_editor_schemas_are_strict_and_whole(kind):
    """An unknown key that an editor lets through is found only after the commit."""
    schema = editor_schema(kind)
    text = json.dumps(schema)

    assert schema["additionalProperties"] is False
    assert all(each["additionalProperties"] is False for each in schema["$defs"].values())
    for name in re.findall(r'"#/\$defs/(\w+)"', text):
        assert name in schema["$defs"]


def test_catalogue_says_what_the_playbooks_rely_on():
    """These few rows decide whether a node is rebooted."""
    rows = by_code(load_catalogue())

    assert {code for code in (48, 64, 79, 95, 119, 120) if rows[code].standing != "Fault"} == set()
    assert [rows[code].standing for code in (13, 31, 43, 45)] == ["Application"] * 4
    assert [rows[code].standing for code in (63, 94, 154)] == ["Hint"] * 3
    assert rows[79].action == "RESTART_BM"
    assert list(rows) == sorted(rows)


@given(st.text(max_size=20), st.lists(st.text(min_size=1, max_size=10), max_size=8))
def test_near_miss_names_only_what_exists(wrong, known):
    """A suggestion that is not there sends people in circles."""
    assert near_miss(wrong, known) in (None, *known)
