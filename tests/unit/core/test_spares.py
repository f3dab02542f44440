"""Which spare: never an unfit one, the nearest of the fit, and the same in any order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remediator.core.spares import common_levels, on_probation, pick, rank, unfit
from remediator.model.pool import HardwareClass, TopologyLevel
from tests.unit.core.builders import BUFFER, TRAIN, a_fleetwide, a_node, a_pool, text
from tests.unit.core.tiny_world import SPARE_TAINT, a_spare

LEVELS = (TopologyLevel(key="zone"), TopologyLevel(key="rack"), TopologyLevel(key="domain"))
NEAR = a_pool("train", topology=LEVELS).spec
LEAVER = a_node(labels={"zone": "a", "rack": "1", "domain": "x", "nvidia.com/gpu.product": "H100"})


def spare(name="spare-1", **fields):
    labels = fields.pop("labels", {"zone": "a"})
    return a_node(name, pool="buffer", taints=fields.pop("taints", (SPARE_TAINT,)), labels=labels, **fields)


def why(candidate, pool=TRAIN.spec, **fleet):
    return unfit(candidate, LEAVER, pool, BUFFER, a_fleetwide(**fleet))


def ranked(*spares, reserved=frozenset(), pool=NEAR, **fleet):
    return rank(LEAVER, pool, [(BUFFER, spares)], reserved, a_fleetwide(**fleet))


UNFIT = {
    "not Ready": (spare(ready="False"), "NotReady"),
    "Ready unknown": (spare(ready="Unknown"), "ReadyUnknown"),
    "no Ready condition": (spare(ready=""), "ReadyUnknown"),
    "cordoned": (spare(unschedulable=True), "Cordoned"),
    "deleting": (spare(deleting=True), "Deleting"),
    "foreign taint": (spare(taints=(SPARE_TAINT, {"key": "x", "effect": "NoExecute"})), "Tainted"),
    "held": (spare(annotations={"remediator.dev/hold": "by=ann"}), "hold by ann"),
    "opted out": (spare(labels={"remediator.dev/opt-out": "true"}), "opt-out"),
    "autoscaler": (
        spare(taints=({"key": "DeletionCandidateOfClusterAutoscaler", "effect": "PreferNoSchedule"},)),
        "cluster-autoscaler",
    ),
    "too few GPUs": (spare(gpus=7), "7 GPUs"),
}


@pytest.mark.parametrize("name", sorted(UNFIT))
def test_unfit_spare_is_refused_with_its_reason(name):
    """The same filter runs at the claim and right before the hand-over."""
    candidate, reason = UNFIT[name]

    assert reason in (why(candidate) or "")


def test_unfit_spare_with_a_signal_or_without_a_fresh_page_is_refused():
    """A spare is proved healthy, not assumed so."""
    assert "xid 79" in (why(spare(), sick={"spare-1": "xid 79"}) or "")
    assert "not fresh" in (why(spare(), blind=frozenset({"spare-1"})) or "")
    assert why(spare()) is None


def test_unfit_spare_of_another_class_is_refused():
    """A gang does not run on two kinds of GPU, nor on two drivers."""
    product, driver = "nvidia.com/gpu.product", "nvidia.com/cuda.driver"
    pool = a_pool("train", hardware_class=HardwareClass(gpus=8, labels=(product,), driver=driver)).spec
    equal = spare(labels={product: "H100"})

    assert why(equal, pool) is None
    assert "A100" in (why(spare(labels={product: "A100"}), pool) or "")
    assert "550" in (why(spare(labels={product: "H100", driver: "550"}), pool) or "")


def test_unfit_spare_outside_a_required_level_is_refused():
    """Required means required, also where the leaver carries no such label."""
    pool = a_pool("train", topology=(TopologyLevel(key="zone", match="Required"),)).spec

    assert why(spare(labels={"zone": "a"}), pool) is None
    assert "zone=a" in (why(spare(labels={"zone": "b"}), pool) or "")
    assert unfit(spare(), a_node(), pool, BUFFER, a_fleetwide()) is not None


def test_common_levels_count_from_the_widest_to_the_first_difference():
    """The same rack number in another zone is no neighbour."""
    cases = {("a", "1"): 2, ("a", "2"): 1, ("b", "1"): 0}

    assert {
        place: common_levels(spare(labels=dict(zip(("zone", "rack"), place, strict=True))), LEAVER, NEAR)
        for place in cases
    } == cases


def test_rank_takes_the_nearest_then_the_least_repaired_then_the_name():
    """A far spare costs the job more than an often repaired one."""
    near, far = spare("z-near", labels={"zone": "a", "rack": "1"}), spare("a-far", labels={"zone": "b"})
    worn, new = spare("b-worn"), spare("c-new")
    found = ranked(far, worn, new, near, strikes={"b-worn": 2})

    assert [each.node.name for each in found] == ["z-near", "c-new", "b-worn", "a-far"]


def test_rank_puts_probation_last_of_the_fit_and_the_unfit_after_it():
    """A machine just repaired is the last choice, but still a choice."""
    fresh = spare("a", annotations={"remediator.dev/probation-until": text(60)})
    found = ranked(fresh, spare("b", ready="False"), spare("c", labels={"zone": "b"}))

    assert [each.node.name for each in found] == ["c", "a", "b"]
    assert [bool(each.refused) for each in found] == [False, False, True]


@given(st.permutations([spare(f"s-{number}", labels={"zone": "ab"[number % 2]}) for number in range(6)]))
def test_rank_ignores_list_order(spares):
    """The plan of a dry run has to be the plan of the real one."""
    assert ranked(*spares) == ranked(*sorted(spares, key=lambda each: each.name))


def picked(candidates, *sole_choices):
    found = pick(candidates, frozenset(sole_choices))
    return found.node.name if found is not None else None


def test_pick_spares_the_sole_choice_of_others_among_equals_only():
    """Kindness to others never costs nearness."""
    near, far = spare("a", labels={"zone": "a", "rack": "1"}), spare("b")
    equals = ranked(spare("a"), spare("b"))

    assert picked(equals, "a") == "b"
    assert picked(equals, "a", "b") == "a"
    assert picked(ranked(near, far), "a") == "a"


def test_pick_takes_no_refused_and_no_reserved_spare():
    """Nothing fit is nothing at all."""
    assert pick(ranked(spare(ready="False")), frozenset()) is None
    assert pick(ranked(spare(), reserved=frozenset({"spare-1"})), frozenset()) is None
    assert pick((), frozenset()) is None


@pytest.mark.parametrize(
    ("until", "expected"),
    [("", False), (text(1), True), (text(0), False), ("soon", True), ("2027-01-01", True)],
)
def test_probation_ends_at_its_time_and_never_when_unreadable(until, expected):
    """Garbage in an annotation must not make a doubtful machine the first choice."""
    node = a_spare(annotations={"remediator.dev/probation-until": until} if until else {})

    assert on_probation(node, a_fleetwide().now) is expected
