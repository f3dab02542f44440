"""Which machine a Node is, and what its objects are called."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remediator.core.identity import BOGUS, conflicts, identify, machine_name, machine_object_name
from remediator.model.policy import IdentitySpec
from remediator.model.views import NodeView

TAGS = IdentitySpec(labels=("example.com/asset",), annotations=("example.com/serial",))
SYSTEM = "4C4C4544-0042-3510-8054-B7C04F4D3533"


def a_node(name="gpu-a-03", *, uid="uid-1", asset="", serial="", system="", provider="", deleting=False):
    return NodeView(
        name=name,
        uid=uid,
        resource_version="1",
        labels={"example.com/asset": asset} if asset else {},
        annotations={"example.com/serial": serial} if serial else {},
        system_uuid=system,
        provider_id=provider,
        deleting=deleting,
    )


@pytest.mark.parametrize(
    ("node", "text", "source"),
    [
        (a_node(asset="SN1", serial="S2", system=SYSTEM, provider="p://1"), "SN1", "label"),
        (a_node(serial="S2", system=SYSTEM, provider="p://1"), "S2", "annotation"),
        (a_node(system=SYSTEM, provider="p://1"), SYSTEM.lower(), "systemUUID"),
        (a_node(provider="p://1"), "p://1", "providerID"),
        (a_node(), "uid-1", "uid"),
        (a_node(asset=" ", serial="None", system="Not Settable", provider="p://1"), "p://1", "providerID"),
    ],
)
def test_identify_takes_the_first_that_is_worth_something(node, text, source):
    """The memory of a machine must follow the hardware and not the name."""
    found = identify(node, TAGS)

    assert (found.text, found.source, found.weak) == (text, source, source == "uid")


@pytest.mark.parametrize("system", ["", *sorted(BOGUS), "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF"])
def test_identify_refuses_system_uuids_that_thousands_share(system):
    """Two boards with one placeholder would be one machine, and share their strikes."""
    assert identify(a_node(system=system), TAGS).source == "uid"


@pytest.mark.parametrize("text", ["gpu-a-03", "x" * 50, "4c4c4544-0042-3510-8054-b7c04f4d3533"])
def test_machine_object_name_keeps_a_plain_text(text):
    """Most names are readable as they are."""
    assert machine_object_name(text) == text


@pytest.mark.parametrize(
    ("text", "begin"),
    [
        ("SN.17", "sn-17-"),
        ("aws:///eu/i-0a", "aws----eu-i-0a-"),
        ("x" * 51, "x" * 50 + "-"),
        ("___", "machine-"),
        ("-a", "a-"),
    ],
)
def test_machine_object_name_marks_what_it_changed(text, begin):
    """Otherwise two machines could get one name."""
    assert re.fullmatch(re.escape(begin) + "[0-9a-f]{6}", machine_object_name(text))


@given(st.text(min_size=1, max_size=120), st.text(min_size=1, max_size=120))
def test_machine_object_name_is_a_valid_name_and_tells_texts_apart(one, other):
    """The API server must take it with ``-<n>`` behind it, and no two machines may share it."""
    name = machine_object_name(one)

    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name)
    assert len(name) <= 57
    assert one == other or name != machine_object_name(other)


def test_machine_name_is_the_name_of_the_identity():
    """Both ways to a name must agree."""
    assert machine_name(a_node(asset="sn-1"), TAGS) == "sn-1"


def test_conflicts_name_machines_with_two_live_nodes():
    """Neither of them may be acted on; a Node on its way out is no second one."""
    nodes = [
        a_node("b", asset="sn-1"),
        a_node("a", asset="sn-1"),
        a_node("c", asset="sn-2"),
        a_node("d", asset="sn-2", deleting=True),
        a_node("e", asset="sn-3"),
    ]

    assert conflicts(nodes, TAGS) == {"sn-1": ("a", "b")}
