"""Who took our taint away: read from the line of a live watch, or not known at all."""

from __future__ import annotations

import json

import pytest

from remediator.adapters.kube.rewriters import note_rewrite
from remediator.model.keys import TAINT_QUARANTINE
from remediator.model.views import NodeView, Rewrite, TaintView

OURS = TaintView(TAINT_QUARANTINE, "NoSchedule", "x")
POOL = TaintView("example.com/pool", "NoSchedule", "train")
HELD = NodeView("n", "u", "5", taints=(POOL, OURS))
BARE = NodeView("n", "u", "6", taints=(POOL,))


def owns(manager: str, *fields: str, subresource: str = "") -> dict[str, object]:
    return {
        "manager": manager,
        "operation": "Update",
        "fieldsType": "FieldsV1",
        "time": "2026-11-27T16:23:47Z",
        "fieldsV1": {"f:spec": {f"f:{field}": {} for field in fields}},
        **({"subresource": subresource} if subresource else {}),
    }


CONDITIONS: dict[str, object] = {"f:status": {"f:conditions": {".": {}}}}
STATUS: dict[str, object] = {"manager": "kubelet", "subresource": "status", "fieldsV1": CONDITIONS}


def a_line(*entries: dict[str, object]) -> bytes:
    return json.dumps({"type": "MODIFIED", "object": {"metadata": {"managedFields": list(entries)}}}).encode()


def test_owner_of_the_list_without_our_taint_is_named_with_its_version():
    line = a_line(STATUS, owns("kube-controller-manager", "podCIDR"), owns("old-labeller", "taints"))

    assert note_rewrite(HELD, BARE, line).rewrite == Rewrite("old-labeller", "6")


@pytest.mark.parametrize(
    "entries",
    [
        (),  # the API server was told to leave managedFields out
        (owns("old-labeller", "unschedulable"),),  # the list went as a whole: nobody owns it
        (owns("a", "taints"), owns("b", "taints")),  # two who wrote the same
        (owns("kubelet", "taints", subresource="status"),),
        (owns("remediator", "taints"),),  # our own undo
    ],
)
def test_writer_that_is_not_certain_is_nobody(entries):
    assert note_rewrite(HELD, BARE, a_line(*entries)).rewrite is None


def test_line_that_can_not_be_read_is_nobody_s():
    """The view came from elsewhere in the line; who wrote it stays unknown, and the watch goes on."""
    assert note_rewrite(HELD, BARE, b'{"object": {"metadata": {"managedFields": 7}}}').rewrite is None


def test_rewrite_is_known_for_as_long_as_the_taint_is_away():
    """A heartbeat follows within seconds, and the run pass looks after it."""
    lost = note_rewrite(HELD, BARE, a_line(owns("old-labeller", "taints")))
    heard = NodeView("n", "u", "7", taints=(POOL,))

    assert note_rewrite(lost, heard, b"not looked at").rewrite == lost.rewrite
    assert note_rewrite(lost, NodeView("n", "u", "8", taints=(OURS,)), b"").rewrite is None


def test_another_node_of_that_name_has_lost_nothing():
    other = NodeView("n", "another", "9")

    assert note_rewrite(HELD, other, a_line(owns("old-labeller", "taints"))).rewrite is None
