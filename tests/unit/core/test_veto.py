"""People say no in mid-run, at every point of it: what it undoes and what it leaves."""

from __future__ import annotations

import pytest
from msgspec import UNSET

from remediator.model.playbook import QuarantineStep, Step
from remediator.model.remediation import RunState
from tests.unit.core.builders import (
    HARD,
    POOL_KEY,
    a_playbook,
)
from tests.unit.core.tiny_world import (
    KINDS,
    POOLS,
    SWIFT,
    TinyWorld,
    ours,
    points_of,
    same,
    started,
)


@pytest.fixture(params=sorted(KINDS))
def kind(request):
    return KINDS[request.param]


@pytest.fixture(params=sorted(POOLS))
def pools(request):
    return POOLS[request.param]


def uncordon(world):
    world.change("gpu-1", unschedulable=False)


def untaint(world):
    world.untaint()


def hold(world):
    notes = {**world.node.annotations, "remediator.dev/hold": "until=2027-01-01T00:00:00Z;by=ann;reason=x"}
    world.change("gpu-1", annotations=notes)


def opt_out(world):
    world.change("gpu-1", labels={**world.node.labels, "remediator.dev/opt-out": "please"})


def cancel(world):
    world.cancel()


@pytest.mark.parametrize("veto", [uncordon, untaint, hold, opt_out, cancel])
def test_run_undoes_itself_after_a_veto_at_any_point(kind, pools, veto):
    """A person's no at any moment: nothing of ours stays, the node is as before, no further harm."""
    for world in points_of(kind, pools=pools):
        if veto in (uncordon, untaint) and not world.node.unschedulable:
            continue  # nothing to take back
        if world.states[-1:] == [RunState.VERIFYING] and not ours(world.node):
            continue  # returned, the record just does not say it yet
        evicted, jobs = list(world.evictions), len(world.jobs)
        veto(world)

        assert world.play() is RunState.CANCELLED
        assert same(world.node) == same(world.born)
        assert (world.evictions, len(world.jobs)) == (evicted, jobs)
        assert world.fleet_pass().status.grants == ()


def test_run_keeps_the_spare_in_the_pool_after_a_veto():
    """The spare may have pods already; taking it back would harm them (SurplusInPool)."""
    world = started(a_playbook(*HARD))
    world.play(until=RunState.DRAINING)
    world.cancel()
    world.play()

    assert world.nodes["spare-1"].labels[POOL_KEY] == "train"


def test_run_frees_the_claim_when_it_is_cancelled_before_the_hand_over():
    """Nothing leaks: a claim that nobody uses would starve the next fault."""
    world = started(a_playbook(*HARD))
    world.cancel()
    world.play()

    assert world.state is RunState.CANCELLED
    assert world.fleet_pass().status.grants == ()
    assert world.nodes["spare-1"].labels[POOL_KEY] == "buffer"
    assert world.writes == []


def test_run_that_is_cancelled_after_the_swap_tells_of_the_surplus():
    """The spare serves, and nobody takes a serving node away; people may give one back."""
    world = started(a_playbook(*HARD))
    world.play(until=RunState.DRAINING)
    world.cancel()
    world.play()
    assert world.run is not None
    assert world.run.status is not UNSET
    surplus = [each for each in world.run.status.conditions if each.type == "SurplusInPool"]

    assert [(each.status, each.reason) for each in surplus] == [("True", "SpareStays")]
    assert "spare-1 stays in pool train" in world.run.status.message


def test_run_says_that_a_repair_may_still_run_when_cancelled_in_it():
    """A Job that was sent is not deleted: people have to know."""
    world = started(a_playbook(*HARD))
    world.job_reboots = False
    world.play(until=RunState.REPAIRING)
    while not world.jobs:
        world.step()
    world.cancel()
    world.play()

    assert (world.state, world.reason) == (RunState.CANCELLED, "RepairMayStillRun")


def test_run_leaves_the_cordon_of_a_person_who_came_first():
    """Restore only what is ours: who cordoned before us finds the cordon again."""
    for end in ("return", "cancel"):
        world = TinyWorld(a_playbook(*HARD))
        world.change("gpu-1", unschedulable=True)
        assert world.start().granted
        if end == "cancel":
            world.play(until=RunState.DRAINING)
            world.cancel()
        world.play()

        assert world.node.unschedulable, end


def test_run_leaves_a_cordon_that_came_later_when_it_never_cordoned():
    """A quarantine without cordon owns no cordon, so it must not lift one."""
    gentle = Step(id="fence", quarantine=QuarantineStep(value="gpu", cordon=False))
    world = started(a_playbook(gentle, "drain", SWIFT, "return"))
    world.play(until=RunState.DRAINING)
    world.change("gpu-1", unschedulable=True)
    world.cancel()
    world.play()

    assert world.state is RunState.CANCELLED
    assert world.node.unschedulable


def test_run_restores_no_label_that_a_person_changed_after_the_detach():
    """What a person changed meanwhile stays, the node may have got another job."""
    world = started(a_playbook(*HARD))
    world.job_reboots = False
    world.play(until=RunState.REPAIRING)
    world.change("gpu-1", labels={**world.node.labels, "team": "infer"})
    world.cancel()
    world.play()

    assert world.node.labels["team"] == "infer"
    assert world.node.labels[POOL_KEY] == "train"


def test_run_restores_its_pool_even_when_the_prior_annotation_is_gone():
    """The record keeps a copy, since an annotation is easily removed by hand."""
    world = started(a_playbook(*HARD))
    world.job_reboots = False
    world.play(until=RunState.REPAIRING)
    notes = {key: value for key, value in world.node.annotations.items() if not key.endswith("/prior")}
    world.change("gpu-1", annotations=notes)
    world.cancel()
    world.play()

    assert world.node.labels[POOL_KEY] == "train"
    assert same(world.node) == same(world.born)


def test_run_stops_when_somebody_moves_the_node_to_another_pool():
    """Membership belongs to the Node: divergence in mid-run is a veto."""
    world = started(a_playbook(*HARD))
    world.play(until=RunState.DRAINING)
    world.change("gpu-1", labels={**world.node.labels, POOL_KEY: "infer"})
    world.play()

    assert (world.state, world.reason) == (RunState.CANCELLED, "PoolChanged")
    assert world.node.labels[POOL_KEY] == "infer"
    assert ours(world.node) == []
