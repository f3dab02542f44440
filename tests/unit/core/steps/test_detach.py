"""Detach: out of the pool in one patch, and never round in circles."""

from __future__ import annotations

from remediator.core.prior import read_prior
from remediator.core.steps.detach import decide_detach
from remediator.model.decision import Act, Done
from tests.unit.core.builders import POOL_KEY, REPAIR, a_node, a_view, quarantined
from tests.unit.core.tiny_world import leaver, patched

NODE = quarantined(leaver())


def decide(node=NODE, **fields):
    return decide_detach(a_view(node=node, **fields), "detach")


def test_detach_takes_membership_and_dress_away_and_writes_down_what():
    """Undo needs it, also after a restart."""
    node = patched(NODE, decide().actions[0].patch)

    assert POOL_KEY not in node.labels
    assert node.taint("nvidia.com/gpu") is None
    prior = read_prior(node)
    assert prior is not None
    assert prior.labels == {POOL_KEY: "train", "team": "train"}
    assert node.annotations["remediator.dev/run"] == "m-1/detach"
    assert isinstance(decide(node), Done)


def test_detach_joins_the_repair_pool_where_there_is_one():
    """Its own autoscaling and monitoring rules apply from there on."""
    node = patched(NODE, decide(repair_pool=REPAIR).actions[0].patch)

    assert node.labels == {POOL_KEY: "repair", "team": "repair", "zone": "a"}
    assert isinstance(decide(node, repair_pool=REPAIR), Done)


def test_detach_of_a_node_in_the_repair_pool_is_done():
    """To leave a pool and join it again in one patch would never end."""
    node = quarantined(a_node(pool="repair"))

    assert isinstance(decide(node, home=REPAIR, repair_pool=REPAIR), Done)


def test_detach_of_a_node_without_a_pool_is_done():
    """There is nothing to leave."""
    assert isinstance(decide(home=None), Done)
    assert isinstance(decide(quarantined(a_node(pool=None))), Done)
    assert isinstance(decide(), Act)
