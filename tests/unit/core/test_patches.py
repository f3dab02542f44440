"""Node patches: foreign taints survive, and undo gives back exactly what was taken."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from remediator.core import patches
from remediator.core.prior import Prior, read_prior
from remediator.model.keys import TAINT_QUARANTINE
from remediator.model.meta import Taint
from tests.unit.core.builders import (
    BUFFER,
    GPU_TAINT,
    POOL_KEY,
    REPAIR,
    TRAIN,
    a_node,
    a_pool,
    a_projection,
    raw_taints,
)
from tests.unit.core.tiny_world import look_of, patched, taint_set

KEYS = ("example.com/mine", "nvidia.com/gpu", "example.com/spare", "team", "rack")
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
VALUES = ("", "a", "train", "repair")

taints = st.lists(
    st.fixed_dictionaries(
        {"key": st.sampled_from(KEYS), "effect": st.sampled_from(EFFECTS)},
        optional={
            "value": st.sampled_from(VALUES),
            "timeAdded": st.just("2026-01-01T00:00:00Z"),
            "new": st.just(1),
        },
    ),
    max_size=5,
    unique_by=lambda taint: (taint["key"], taint["effect"]),
)
labels = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES), max_size=4)
nodes = st.builds(
    lambda taints, labels, annotations, cordoned: a_node(
        taints=taints, labels=labels, annotations=annotations, unschedulable=cordoned
    ),
    taints,
    labels,
    labels,
    st.booleans(),
)
projections = st.builds(
    lambda taints, labels, annotations: a_projection(
        *(Taint(key=each["key"], effect=each["effect"]) for each in taints),
        labels=labels,
        annotations=annotations,
    ),
    taints,
    labels,
    labels,
)


def quarantine(node):
    prior = Prior(unschedulable=node.unschedulable)
    patch = patches.quarantine(
        node, mark="m-1/fence", value="gpu", cordon=True, prior=prior, because="xid 79"
    )
    return patched(node, patch)


def detach(node, pool, repair):
    prior = patches.what_detach_takes(node, pool, read_prior(node) or Prior(), repair)
    return patched(node, patches.detach(node, mark="m-1/detach", pool=pool, repair=repair, prior=prior))


def restore(node, leaving=()):
    return patched(node, patches.restore(node, read_prior(node) or Prior(), leaving))


@given(nodes)
def test_quarantine_adds_one_taint_and_loses_none(node):
    """A patch of the taints list replaces it whole: every foreign field has to survive byte for byte."""
    found = quarantine(node)

    assert taint_set(node) < taint_set(found)
    assert [each for each in found.taints if each.key == TAINT_QUARANTINE] != []
    assert found.unschedulable


@given(nodes)
def test_quarantine_twice_leaves_one_taint_of_ours(node):
    """A step may be carried out again after a lost reply."""
    assert taint_set(quarantine(quarantine(node))) == taint_set(quarantine(node))


@given(nodes)
def test_restore_undoes_a_quarantine(node):
    """Undo restores, it never cleans."""
    assert look_of(restore(quarantine(node))) == look_of(node)


@given(nodes, projections, projections, st.booleans())
def test_restore_undoes_a_detach_whatever_the_pools_project(node, own, other, with_repair):
    """Labels and taints that both pools know, or that only look like one's projection, come back too."""
    home = a_pool("train", projection=own).spec
    repair = a_pool("repair", "Repair", projection=other).spec if with_repair else None
    away = detach(quarantine(node), home, repair)
    back = restore(away, (repair,) if repair else ())

    assert look_of(back) == look_of(node)


@given(nodes, projections)
def test_restore_before_the_detach_leaves_what_only_looks_like_the_repair_pool(node, projection):
    """A cancelled drain must not take a taint that the Repair pool happens to project as well."""
    repair = a_pool("repair", "Repair", projection=projection).spec

    assert look_of(restore(quarantine(node), (repair,))) == look_of(node)


@given(nodes, taints)
def test_restore_keeps_foreign_taints_that_came_meanwhile(node, later):
    """Others write to the node while we work on it."""
    ours = quarantine(node)
    present = {(each.key, each.effect) for each in ours.taints}
    more = [each for each in later if (each["key"], each["effect"]) not in present]
    raw = msgspec.json.encode([*msgspec.json.decode(ours.taints_raw), *more])
    mixed = patched(ours, {"spec": {"taints": msgspec.Raw(raw)}})

    assert taint_set(restore(mixed)) == taint_set(node) | taint_set(
        patched(node, {"spec": {"taints": msgspec.Raw(raw_taints(*more))}})
    )


@given(nodes, projections, projections)
def test_hand_over_makes_a_member_and_keeps_what_is_nobodys(spare, from_, to):
    """The spare gets the pool's label and taints; a taint of neither pool stays as it is."""
    buffer = a_pool("train", "Buffer", projection=from_).spec
    pool = a_pool("infer", projection=to).spec
    member = patched(spare, patches.hand_over(spare, pool=pool, buffer=buffer))
    moved = {(each.key, each.effect) for each in (*from_.taints, *to.taints)}
    foreign = [each for each in spare.taints if (each.key, each.effect) not in moved]

    assert member.labels[POOL_KEY] == "infer"
    assert {(each.key, each.effect) for each in to.taints} <= {
        (each.key, each.effect) for each in member.taints
    }
    assert [each for each in member.taints if (each.key, each.effect) not in moved] == foreign


def test_hand_over_ends_the_probation():
    """A member of a workload pool is no last choice any more."""
    spare = a_node(pool="buffer", annotations={"remediator.dev/probation-until": "2026-12-01T00:00:00Z"})

    assert patched(spare, patches.hand_over(spare, pool=TRAIN.spec, buffer=BUFFER.spec)).annotations == {}


@given(nodes)
def test_give_back_lifts_all_marks_and_keeps_a_cordon_that_was_there_before(node):
    """What a person cordoned before us comes back cordoned."""
    away = detach(quarantine(node), TRAIN.spec, REPAIR.spec)
    prior = read_prior(away)
    assert prior is not None
    back = patched(
        away,
        patches.give_back(
            away,
            target=BUFFER.spec,
            leaving=(TRAIN.spec, REPAIR.spec),
            prior=prior,
            probation_until="2026-12-01T00:00:00Z",
        ),
    )

    assert back.labels[POOL_KEY] == "buffer"
    assert back.unschedulable == node.unschedulable
    assert back.taint(TAINT_QUARANTINE) is None
    assert not {"remediator.dev/run", "remediator.dev/prior", "remediator.dev/because"} & set(
        back.annotations
    )


def test_quarantine_cuts_its_reason_to_one_line():
    """An annotation is no place for a page of text."""
    patch = patches.quarantine(
        a_node(), mark="m-1/fence", value="gpu", cordon=False, prior=Prior(), because="x" * 999
    )

    assert len(patched(a_node(), patch).annotations["remediator.dev/because"]) == 256
    assert "unschedulable" not in dict(patch["spec"])  # type: ignore[call-overload]  # a patch is nested JSON


def test_restore_keeps_an_uncordoned_node_uncordoned():
    """A person who uncordoned in mid-run must not find the node cordoned again."""
    node = quarantine(a_node())
    freed = patched(node, {"spec": {"unschedulable": None}})

    assert not restore(freed).unschedulable


def test_what_detach_takes_is_nothing_without_a_pool():
    """A node of no pool has no projection to lose."""
    prior = Prior(unschedulable=True)

    assert patches.what_detach_takes(a_node(pool=None), None, prior) == prior


def test_detach_keeps_a_label_whose_value_is_not_the_projected_one():
    """Only what still has the projected value is ours to take away."""
    node = a_node(labels={"team": "other"}, taints=({"key": GPU_TAINT.key, "effect": "NoSchedule"},))
    away = detach(node, TRAIN.spec, None)

    assert away.labels == {"team": "other"}
    assert away.taints == ()
