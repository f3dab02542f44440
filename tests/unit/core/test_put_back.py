"""Our taint is lost to a controller that writes old lists: put back where that harms nobody, else a No."""

from __future__ import annotations

import pytest

from remediator.core.put_back import PUT_BACKS_MAX
from remediator.model.keys import TAINT_QUARANTINE
from remediator.model.remediation import RunState
from remediator.model.views import Rewrite
from tests.unit.core.builders import HARD, SOFT, a_playbook, a_policy
from tests.unit.core.tiny_world import KINDS, TinyWorld, points_of, same, started

LISTED = "old-labeller"
POLICY = a_policy(rewriters=(LISTED,))


def overwrite(world: TinyWorld, manager: str = LISTED, version: str = "77") -> None:
    """A whole object of before the run is written over ours: labels, annotations, taints and cordon."""
    old = world.born
    world.change(
        "gpu-1",
        labels=old.labels,
        annotations=old.annotations,
        unschedulable=old.unschedulable,
        taints=old.taints,
        taints_raw=old.taints_raw,
        rewrite=Rewrite(manager, version),
    )


def fenced(world: TinyWorld) -> bool:
    return world.node.taint(TAINT_QUARANTINE) is not None


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_run_survives_one_lost_taint_or_is_taken_back_whole(kind):
    """Wherever it happens: the run goes on behind its fence to the same end, or nothing of it is left."""
    ends = set()
    for world in points_of(KINDS[kind], policy=POLICY):
        if not fenced(world):
            continue
        overwrite(world)
        end = world.play()

        ends.add(end)
        if end is RunState.CANCELLED:
            assert same(world.node) == same(world.born)
        assert not fenced(world)
    assert RunState.RETURNED in ends


def quarantined(*actions: str, manager: str = LISTED) -> TinyWorld:
    """A run that has stored the end of its quarantine, and is at work on the next step."""
    world = started(a_playbook(*actions), policy=POLICY)
    while world.view().did("quarantine") is None:
        world.step()
    overwrite(world, manager)
    return world


def test_run_writes_the_loss_down_before_it_puts_the_taint_back():
    """After a crash in between it is counted once, and people see who did it."""
    world = quarantined(*HARD)
    world.step()

    assert not fenced(world)
    status = world.view().status
    assert (status.put_backs, status.taint_lost) == (1, f"{LISTED} at 77")
    assert LISTED in next(each.message for each in status.conditions if each.type == "TaintLost")
    world.crash()
    world.step()
    assert fenced(world)
    assert world.node.unschedulable
    assert world.view().status.put_backs == 1


def test_run_ends_when_the_taint_is_lost_again_and_again():
    """Two controllers that write against each other without end help nobody."""
    world = quarantined(*HARD)
    for number in range(PUT_BACKS_MAX):
        for _ in range(20):
            if fenced(world):
                break
            world.step()
        assert fenced(world), number
        overwrite(world, version=f"{100 + number}")

    assert world.play() is RunState.CANCELLED
    assert world.view().status.put_backs == PUT_BACKS_MAX


@pytest.mark.parametrize("manager", ["kubectl-taint", ""])
def test_run_takes_everybody_else_s_write_for_a_no(manager):
    """Who is not listed has decided."""
    world = quarantined(*HARD, manager=manager)

    assert world.play() is RunState.CANCELLED
    assert "removed our taint" in world.view().status.message


def test_run_is_not_put_back_where_pods_may_have_come_before_a_reboot():
    """What got in while the fence was away would die with the machine."""
    world = started(a_playbook(*SOFT, severity="Soft"), policy=POLICY)
    world.play(until=RunState.REPAIRING)
    overwrite(world)

    assert world.play() is RunState.CANCELLED
    assert world.view().status.put_backs == 0


def test_run_is_not_put_back_where_nobody_knows_what_stood_before():
    """A later undo would lift a cordon that was there first."""
    world = started(a_playbook(*HARD), policy=POLICY)
    while not fenced(world):
        world.step()
    assert world.view().did("quarantine") is None
    overwrite(world)
    world.step()

    assert world.view().status.put_backs == 0
