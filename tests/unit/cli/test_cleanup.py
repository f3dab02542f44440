"""The way out: everything of ours goes, everything of others stays, and cordons come back as they were."""

from __future__ import annotations

from typing import Any

import msgspec

from remediator.app.cleanup import NodeLeftover, leftovers
from remediator.core.prior import Prior, write_prior
from remediator.model.keys import ANNOTATION_PRIOR, ANNOTATION_RUN
from remediator.model.pool import Membership
from remediator.model.remediation import RemediationStatus
from tests.unit.core.builders import REPAIR, TRAIN, a_node, a_pool, a_run, quarantined

POOLS = {"train": TRAIN, "repair": REPAIR}
FOREIGN = {
    "key": "example.com/own",
    "value": "x",
    "effect": "NoSchedule",
    "timeAdded": "2026-11-01T00:00:00Z",
}


def plain(found: NodeLeftover) -> Any:
    """The patch as the server reads it."""
    return msgspec.json.decode(msgspec.json.encode(found.patch))


def test_cleanup_finds_nothing_on_a_node_that_we_never_touched():
    """A cordon and a taint of others are no leftovers of ours."""
    node = a_node(unschedulable=True, taints=[FOREIGN])

    assert leftovers([node], POOLS, {}) == ()


def test_cleanup_lifts_a_quarantine_and_leaves_foreign_taints_byte_for_byte():
    """Fields that we do not know, such as timeAdded, are somebody's."""
    node = quarantined(a_node(taints=[FOREIGN]))
    (found,) = leftovers([node], POOLS, {})

    assert plain(found)["spec"]["taints"] == [FOREIGN]
    assert plain(found)["spec"]["unschedulable"] is None
    assert found.uncordons
    assert found.prior_known
    assert found.taints == ("remediator.dev/quarantine",)


def test_cleanup_leaves_a_cordon_that_was_there_before_us():
    """Prior says so; to uncordon such a node is to lose somebody's decision."""
    prior = {ANNOTATION_PRIOR: write_prior(Prior(unschedulable=True)), ANNOTATION_RUN: "m-1/fence"}
    node = msgspec.structs.replace(quarantined(a_node()), annotations=prior)
    (found,) = leftovers([node], POOLS, {})

    assert "unschedulable" not in plain(found)["spec"]
    assert not found.uncordons


def test_cleanup_takes_the_record_s_copy_where_the_node_lost_its_prior():
    """The run keeps one for exactly this."""
    node = msgspec.structs.replace(quarantined(a_node()), annotations={ANNOTATION_RUN: "m-1/fence"})
    run = a_run(status=RemediationStatus(prior=write_prior(Prior(unschedulable=True))))
    (found,) = leftovers([node], POOLS, {"m-1": run})

    assert found.prior_known
    assert not found.uncordons


def test_cleanup_leaves_the_cordon_where_nobody_knows_what_was_before():
    """To guess could put a broken machine to work."""
    node = msgspec.structs.replace(quarantined(a_node()), annotations={})
    (found,) = leftovers([node], POOLS, {})

    assert not found.prior_known
    assert not found.uncordons
    assert "a cordon stays" in found.text


def test_cleanup_gives_back_what_a_detach_took():
    """The machine was taken out of its pool; its place is empty."""
    prior = Prior(labels={"example.com/pool": "train", "team": "train"})
    node = quarantined(a_node(pool="repair", labels={"team": "repair"}))
    node = msgspec.structs.replace(
        node, annotations={**node.annotations, ANNOTATION_PRIOR: write_prior(prior)}
    )
    (found,) = leftovers([node], POOLS, {})

    assert plain(found)["metadata"]["labels"] == {"example.com/pool": "train", "team": "train"}


def test_cleanup_takes_only_marks_from_a_spare_that_somebody_cordoned():
    """A spare carries our run mark, but its cordon is somebody else's."""
    node = a_node(unschedulable=True, annotations={ANNOTATION_RUN: "m-1/swap", "remediator.dev/term": "3"})
    (found,) = leftovers([node], POOLS, {})

    assert plain(found)["metadata"]["annotations"] == {ANNOTATION_RUN: None, "remediator.dev/term": None}
    assert "unschedulable" not in plain(found)["spec"]


def test_cleanup_leaves_labels_of_our_group_that_a_pool_is_made_of():
    """People chose that label for their pools; without it the pools would be empty."""
    pool = a_pool("train", membership=Membership(key="remediator.dev/pool", value="train"))
    labels = {"remediator.dev/pool": "train", "remediator.dev/opt-out": "true"}
    (found,) = leftovers([a_node(pool=None, labels=labels)], {"train": pool}, {})

    assert found.labels == ("remediator.dev/opt-out",)
