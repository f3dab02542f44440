"""Does a node serve: the one definition behind every budget."""

from __future__ import annotations

import pytest

from remediator.core.serving import not_serving, pools_of
from tests.unit.core.builders import BUFFER, TRAIN, a_node, a_pool, quarantined

SERVING = ("nvidia.com/gpu", "example.com/ok")


def tainted(key, effect="NoSchedule"):
    return a_node(taints=({"key": key, "effect": effect},))


# Peers' budgets were emptied by states that nobody counted.
STATES = {
    "healthy": (a_node(), None),
    "cordoned by anybody": (a_node(unschedulable=True), "Cordoned"),
    "not Ready": (a_node(ready="False"), "NotReady"),
    "Ready unknown": (a_node(ready="Unknown"), "ReadyUnknown"),
    "never reported": (a_node(ready=""), "ReadyUnknown"),
    "being deleted": (a_node(deleting=True), "Deleting"),
    "quarantined by us": (quarantined(a_node(), cordon=False), "Tainted"),
    "joining": (tainted("node.cilium.io/agent-not-ready"), "Tainted"),
    "evicting": (tainted("example.com/maintenance", "NoExecute"), "Tainted"),
    "preferred elsewhere": (tainted("example.com/maintenance", "PreferNoSchedule"), None),
    "in its projection": (a_node(taints=({"key": "nvidia.com/gpu", "effect": "NoSchedule"},)), None),
    "listed as serving": (tainted("example.com/ok"), None),
    "shadow of a cordon that is over": (tainted("node.kubernetes.io/unschedulable"), None),
}


@pytest.mark.parametrize("name", sorted(STATES))
def test_node_counts_as_not_serving_whoever_took_it_out(name):
    """Whatever does not serve counts as out."""
    node, reason = STATES[name]

    assert not_serving(node, TRAIN, SERVING) == reason


def test_taint_of_the_buffer_serves_the_buffer_and_not_the_pool():
    """The same taint is a spare's dress and a member's fault."""
    node = tainted("example.com/spare")

    assert not_serving(node, BUFFER, SERVING) is None
    assert not_serving(node, TRAIN, SERVING) == "Tainted"


def test_pools_of_a_node_are_all_that_match_in_their_order():
    """Two pools with one membership are an error of people; the answer must not flap all the same."""
    twin = a_pool("train")

    assert pools_of(a_node(), (BUFFER, TRAIN, twin)) == (TRAIN, twin)
    assert pools_of(a_node(pool=None), (BUFFER, TRAIN)) == ()
    assert pools_of(a_node(pool="other"), (BUFFER, TRAIN)) == ()
