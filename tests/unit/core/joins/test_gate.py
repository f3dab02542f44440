"""The gate of one node: which nodes have one, and that it opens once in the life of a Node."""

from __future__ import annotations

import pytest

from remediator.core.joins.gate import Gate, gate_of, read_mark, waits_s, write_mark
from remediator.model.joins import GATE_KEY
from remediator.model.keys import ANNOTATION_HOLD, ANNOTATION_JOINED, LABEL_OPT_OUT
from tests.unit.core.builders import T0, a_node, at, text
from tests.unit.core.joins.builders import GATE, new_node

MARK = {ANNOTATION_JOINED: write_mark("uid-gpu-1", T0)}
HELD = {ANNOTATION_HOLD: "until=;by=anna;reason=burn-in"}


@pytest.mark.parametrize(
    ("node", "stands"),
    [
        (a_node(created_at=text(-1)), Gate.OPEN),
        (a_node(created_at=text(1)), Gate.ABSENT),
        (a_node(created_at=""), Gate.OPEN),
        (a_node(created_at="yesterday"), Gate.OPEN),
        (new_node(created_s=1), Gate.SHUT),
        (new_node(created_s=-9_999), Gate.SHUT),
        (a_node(created_at=text(1), annotations=MARK), Gate.OPEN),
        (new_node(created_s=1, annotations=MARK), Gate.SHUT_AGAIN),
        (new_node(created_s=1, uid="uid-of-the-next", annotations=MARK), Gate.SHUT),
        (a_node(created_at=text(1), uid="uid-of-the-next", annotations=MARK), Gate.ABSENT),
        (new_node(created_s=1, annotations=HELD), Gate.LEFT_ALONE),
        (new_node(created_s=1, labels={LABEL_OPT_OUT: "true"}), Gate.LEFT_ALONE),
        (a_node(created_at=text(1), labels={LABEL_OPT_OUT: "true"}), Gate.OPEN),
        (a_node(created_at=text(1), taints=[GATE | {"effect": "PreferNoSchedule"}]), Gate.ABSENT),
    ],
    ids=[
        "older than the gate",
        "new without it",
        "of no age",
        "of an age that nobody can read",
        "new with it",
        "old with it: somebody wants it gated",
        "let in before",
        "let in, and gated since",
        "another Node of the name, with the old mark",
        "another Node of the name, without the taint",
        "held",
        "opted out, gated",
        "opted out, not gated",
        "a taint that keeps nobody off",
    ],
)
def test_gate_of_says_where_a_node_stands(node, stands):
    """Old nodes are never gated, and one that was let in is let in once."""
    assert gate_of(node, GATE_KEY, T0, at(10)) is stands


def test_the_mark_says_when_and_is_of_one_node_only():
    """A Node that comes back under its name has to pass the gate again."""
    node = a_node(annotations={ANNOTATION_JOINED: write_mark("uid-gpu-1", at(7.5))})

    mark = read_mark(node)

    assert mark is not None
    assert mark.at == at(7)
    assert read_mark(a_node(uid="another", annotations=node.annotations)) is None


def test_a_mark_without_a_time_is_a_mark():
    """Whatever people make of it: with the Node's uid in front it is in."""
    mark = read_mark(a_node(annotations={ANNOTATION_JOINED: "uid-gpu-1 since-monday"}))

    assert mark is not None
    assert mark.at is None


def test_waits_s_counts_from_the_creation():
    """The server's own time, so that no restart of ours begins the wait anew."""
    assert waits_s(a_node(created_at=text(0)), at(90)) == 90.0
    assert waits_s(a_node(created_at=text(0)), at(-5)) == 0.0
