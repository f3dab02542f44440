"""What kubectl is shown: columns, ages, tables, Events by their older name, documents of each group."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from remediator.sim.front import core_events, openapi
from remediator.sim.front.columns import at_path, columns_of, spoken_age
from remediator.sim.front.tables import as_table, as_table_event, wants_table
from remediator.sim.kinds import BUILT_IN, Kind

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
NODE = next(kind for kind in BUILT_IN if kind.kind == "Node")
PLAIN = next(kind for kind in BUILT_IN if kind.kind == "ConfigMap")
BORN = "2026-01-01T09:00:00Z"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-5, "<invalid>"), (-1, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (125, "2m5s"), (599, "9m59s"),
        (600, "10m"), (3 * 3_600 - 1, "179m"), (3 * 3_600, "3h"), (3 * 3_600 + 60, "3h1m"), (8 * 3_600, "8h"),
        (48 * 3_600 - 1, "47h"), (2 * 86_400, "2d"), (2 * 86_400 + 3_600, "2d1h"), (8 * 86_400, "8d"),
        (730 * 86_400, "2y"), (731 * 86_400, "2y1d"), (3_000 * 86_400, "8y"),
    ],
)  # fmt: skip
def test_age_is_written_as_kubectl_does(seconds, expected):
    """Two units at most, and the second one only while it says something."""
    assert spoken_age(seconds) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (".spec.node.name", "a"),
        (".spec.missing.name", None),
        ('.status.conditions[?(@.type=="Ready")].status', "False"),
        ('.status.conditions[?(@.type=="Other")].status', None),
        (".metadata.labels['example.com/pool']", "train"),
    ],
)
def test_value_is_found_by_its_path(path, expected):
    """The kinds of JSONPath that printer columns are written in."""
    obj = {
        "metadata": {"labels": {"example.com/pool": "train"}},
        "spec": {"node": {"name": "a"}},
        "status": {"conditions": [{"type": "Ready", "status": "False"}]},
    }
    assert at_path(obj, path) == expected


def test_path_of_another_kind_is_refused():
    """Half a value would be worse than none."""
    with pytest.raises(ValueError, match=r"not understood from '\.\.name'"):
        at_path({}, ".spec..name")


def a_node(**spec: Any) -> dict[str, Any]:
    ready = {"type": "Ready", "status": "True"}
    labels = {"node-role.kubernetes.io/gpu": "", "node-role.kubernetes.io/big": ""}
    return {
        "kind": "Node", "apiVersion": "v1", "spec": spec,
        "metadata": {"name": "a", "creationTimestamp": BORN, "labels": labels, "resourceVersion": "7"},
        "status": {"conditions": [ready], "nodeInfo": {"kubeletVersion": "v1.36.4"}},
    }  # fmt: skip


def test_table_of_a_list_has_a_row_for_each_object():
    """The list's version goes with it: a watch begins there."""
    items = [a_node(), a_node(unschedulable=True)]
    listed = {"kind": "NodeList", "apiVersion": "v1", "metadata": {"resourceVersion": "9"}, "items": items}
    table = msgspec.json.decode(as_table(NODE, msgspec.json.encode(listed), NOW))

    assert table["metadata"] == {"resourceVersion": "9"}
    assert [each["name"] for each in table["columnDefinitions"][:5]] == [
        "Name", "Status", "Roles", "Age", "Version",
    ]  # fmt: skip
    assert table["rows"][0]["cells"][:5] == ["a", "Ready", "big,gpu", "3h", "v1.36.4"]
    assert table["rows"][1]["cells"][1] == "Ready,SchedulingDisabled"
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"


@pytest.mark.parametrize(
    ("include", "has"), [("None", None), ("Metadata", "PartialObjectMetadata"), ("Object", "Node")]
)
def test_row_carries_what_was_asked_for(include, has):
    """kubectl asks for whole objects where it sorts by one of their fields."""
    row = msgspec.json.decode(as_table(NODE, msgspec.json.encode(a_node()), NOW, include=include))["rows"][0]
    assert row.get("object", {}).get("kind") == has


def test_bookmark_is_a_table_without_a_row_and_an_error_stays_one():
    """A watch goes on at the bookmark's version; an error has no columns."""
    bookmark = {"type": "BOOKMARK", "object": {"kind": "Node", "metadata": {"resourceVersion": "12"}}}
    found = msgspec.json.decode(as_table_event(NODE, msgspec.json.encode(bookmark), NOW))
    assert (found["object"]["rows"], found["object"]["metadata"]) == ([], {"resourceVersion": "12"})
    error = b'{"type":"ERROR","object":{"kind":"Status","code":410}}'
    assert as_table_event(NODE, error, NOW) == error


def test_kind_without_columns_of_its_own_has_name_and_age():
    """As the real server shows what it has no printer for."""
    custom = Kind(group="a.b", version="v1", plural="things", kind="Thing", custom=True)
    assert (
        [each.name for each in columns_of(PLAIN)]
        == [each.name for each in columns_of(custom)]
        == ["Name", "Age"]
    )


def test_columns_of_a_custom_kind_are_its_definition_s():
    """Dates become ages, and what is missing stays empty."""
    columns = (
        {"name": "Mode", "type": "string", "jsonPath": ".spec.mode"},
        {"name": "Since", "type": "date", "jsonPath": ".status.since"},
        {"name": "Why", "type": "string", "jsonPath": ".status.why", "priority": 1},
    )
    custom = Kind(group="a.b", version="v1", plural="things", kind="Thing", custom=True, columns=columns)
    thing = {"metadata": {"name": "x"}, "spec": {"mode": "Audit"}, "status": {"since": BORN}}
    table = msgspec.json.decode(as_table(custom, msgspec.json.encode(thing), NOW))
    assert table["rows"][0]["cells"] == ["x", "Audit", "3h", None]
    assert [each["priority"] for each in table["columnDefinitions"]] == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", True),
        ("application/json", False),
        ("application/json,application/json;as=Table;v=v1;g=meta.k8s.io", False),
        ("", False),
    ],
)
def test_table_is_for_who_asks_for_it_first(accept, expected):
    """Every client of kubectl's library takes both."""
    assert wants_table(accept) is expected


def test_events_are_found_by_their_older_name():
    """kubectl describe asks core/v1, by fields that the newer group calls otherwise."""
    query = {"fieldSelector": "involvedObject.uid=u,involvedObject.kind=Node"}
    assert core_events.where_kept("/api/v1/namespaces/default/events", query) == (
        "/apis/events.k8s.io/v1/namespaces/default/events",
        {"fieldSelector": "regarding.uid=u,regarding.kind=Node"},
    )
    assert core_events.where_kept("/api/v1/events", {}) == ("/apis/events.k8s.io/v1/events", {})
    assert core_events.where_kept("/api/v1/nodes", {}) is None
    event = {
        "kind": "Event",
        "apiVersion": "events.k8s.io/v1",
        "note": "n",
        "regarding": {"kind": "Node"},
        "eventTime": BORN,
    }
    listed = msgspec.json.encode({"kind": "EventList", "metadata": {}, "items": [event]})
    found = msgspec.json.decode(core_events.core_body(listed))["items"][0]
    assert (found["message"], found["involvedObject"], found["lastTimestamp"]) == (
        "n",
        {"kind": "Node"},
        BORN,
    )
    refused = msgspec.json.encode({"kind": "Status", "code": 404})
    assert msgspec.json.decode(core_events.core_body(refused))["code"] == 404


def test_document_of_a_group_says_that_fields_are_checked():
    """Without it kubectl apply refuses to send anything."""
    index = openapi.document("/openapi/v3", BUILT_IN)
    assert index is not None
    assert index["paths"]["apis/apps/v1"] == {"serverRelativeURL": "/openapi/v3/apis/apps/v1"}
    found = openapi.document("/openapi/v3/apis/apps/v1", BUILT_IN)
    assert found is not None
    patch = found["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"]
    assert patch["x-kubernetes-group-version-kind"] == {
        "group": "apps",
        "version": "v1",
        "kind": "Deployment",
    }
    assert {each["name"] for each in patch["parameters"]} == {"dryRun", "fieldValidation"}
    assert openapi.document("/openapi/v3/apis/nobody/v1", BUILT_IN) is None
