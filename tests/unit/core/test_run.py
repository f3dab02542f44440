"""Whole runs in a tiny pure world: to the end, through crashes, lost writes, losses and time-outs."""

from __future__ import annotations

import pytest
from msgspec import UNSET
from msgspec.structs import replace

from remediator.core.run import decide_run
from remediator.core.validity import faults_of
from remediator.model.action import CreateJob, EvictPod
from remediator.model.decision import Look
from remediator.model.instant import write_instant
from remediator.model.keys import TAINT_QUARANTINE
from remediator.model.playbook import DrainStep, Step
from remediator.model.remediation import RemediationStatus, RunState, StepStatus
from remediator.model.views import PdbView
from tests.unit.core.builders import (
    HARD,
    POOL_KEY,
    SOFT,
    a_node,
    a_playbook,
    a_pod,
    a_run,
    a_view,
    at,
    text,
)
from tests.unit.core.tiny_world import (
    KINDS,
    POOLS,
    TinyWorld,
    leaver,
    look_of,
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


def test_run_ends_as_returned_and_leaves_nothing(kind, pools):
    """The whole point: the pool is as full as before, and no mark or grant of ours is left."""
    world = started(kind, pools=pools)

    assert world.play() is RunState.RETURNED
    assert ours(world.node) == []
    assert not world.node.unschedulable
    assert world.pods == []
    assert world.fleet_pass().status.grants == ()
    members = [name for name, node in world.nodes.items() if node.labels.get(POOL_KEY) == "train"]
    assert len(members) == 5


def test_run_puts_the_repaired_machine_into_the_buffer_and_its_spare_into_the_pool():
    """A swap moves both nodes, and the repaired one is the last choice until its probation ends."""
    world = started(a_playbook(*HARD))
    world.play()

    assert world.node.labels[POOL_KEY] == "buffer"
    assert "remediator.dev/probation-until" in world.node.annotations
    assert {taint.key for taint in world.node.taints} == {"example.com/mine", "example.com/spare"}
    assert world.nodes["spare-1"].labels[POOL_KEY] == "train"
    assert {taint.key for taint in world.nodes["spare-1"].taints} == {"nvidia.com/gpu"}
    assert world.nodes["spare-2"].labels[POOL_KEY] == "buffer"


def test_run_of_a_soft_fault_hands_the_spare_over_before_any_harm():
    """Spare before harm: a soft fault can wait, its pods can't."""
    world = started(a_playbook(*SOFT, severity="Soft"))
    world.play(until=RunState.HANDED_OVER)

    assert world.nodes["spare-1"].labels[POOL_KEY] == "train"
    assert ours(world.node) == []
    assert world.evictions == []


def test_run_of_a_hard_fault_writes_its_quarantine_first():
    """A hard fault must not schedule one more pod while a spare is looked for."""
    world = started(a_playbook(*HARD))
    world.step()

    assert [write.name for write in world.writes] == ["gpu-1"]
    assert world.node.taint(TAINT_QUARANTINE) is not None


def test_run_survives_a_crash_after_every_write(kind, pools):
    """Nothing that a restart would need lives only in memory."""
    calm, shaken = started(kind, pools=pools), started(kind, pools=pools)

    assert calm.play() is shaken.play(crash=True)
    assert {name: look_of(node)[:1] for name, node in calm.nodes.items()} == {
        name: look_of(node)[:1] for name, node in shaken.nodes.items()
    }
    assert calm.evictions == shaken.evictions
    assert len(shaken.jobs) == len(calm.jobs)


def test_run_survives_the_loss_of_any_one_write(kind):
    """A write that never landed is seen as such and sent again; nothing is done twice."""
    count = started(kind)
    count.play()
    for lost in range(1, count._sent + 1):
        world = started(kind)
        world.drop = lost.__eq__

        assert world.play() is RunState.RETURNED, lost
        assert sorted(world.evictions) == ["team/a", "team/b"]
        assert len(world.jobs) <= 1


def test_run_stores_each_intent_before_its_first_effect(kind):
    """Intent before effect: a write without a stored intent could not be explained after a crash."""
    world = started(kind)
    while world.state is not RunState.RETURNED:
        move = world.decide()
        assert world.run is not None
        status = world.run.status
        if move.actions and status is not UNSET and move.step != world.playbook.spec.steps[0].id:
            assert any(each.id == move.step and each.state == "Intent" for each in status.steps)
        world.step()


def test_run_writes_its_record_at_most_eighteen_times():
    """Writes per remediated node are a promise of the design."""
    world = started(a_playbook(*HARD))
    world.play()

    assert len(world.states) + len(world.writes) - len(world.evictions) <= 18
    assert sum(getattr(write, "name", "") == "gpu-1" for write in world.writes) <= 4


def test_run_that_has_ended_does_nothing():
    """Closed runs never replay."""
    world = started(a_playbook(*HARD))
    world.play()
    move = world.decide()

    assert (move.save, move.actions, move.after_s) == (None, (), None)


def test_run_waits_for_its_grant_when_it_has_none():
    """No grant, no harm."""
    move = decide_run(a_view(grant=None))

    assert (move.save, move.actions) == (None, ())
    assert move.after_s is not None
    assert move.after_s > 0


# -- the world changes


@pytest.mark.parametrize("again", [False, True], ids=["deleted", "new uid"])
def test_run_ends_when_its_node_is_gone_at_any_point(kind, again):
    """The same name under another uid is another machine: it inherits nothing."""
    for world in points_of(kind):
        del world.nodes["gpu-1"]
        if again:
            world.nodes["gpu-1"] = replace(leaver(), uid="uid-other")
        before = len(world.writes)

        assert world.play() is RunState.NODE_GONE
        assert len(world.writes) == before


@pytest.mark.parametrize("loss", ["deleted", "sick", "cordoned"])
def test_run_takes_another_spare_when_its_own_is_lost(loss):
    """A spare that turns bad within its claim is never handed over."""
    world = started(a_playbook(*HARD))
    while not any(each.action == "swap" for each in world.view().status.steps):
        world.step()
    if loss == "deleted":
        del world.nodes["spare-1"]
    elif loss == "sick":
        world.sick["spare-1"] = "xid 48"
    else:
        world.change("spare-1", unschedulable=True)
    world.sick.pop("gpu-1")

    assert world.play() is RunState.RETURNED
    assert world.nodes["spare-2"].labels[POOL_KEY] == "train"
    assert "spare-1" not in world.nodes or world.nodes["spare-1"].labels[POOL_KEY] == "buffer"


def test_run_without_any_spare_left_ends_a_soft_fault_without_harm():
    """At the time-out a soft fault ends before anything was done to the node."""
    world = started(a_playbook(*SOFT, severity="Soft"))
    world.nodes = {name: node for name, node in world.nodes.items() if "spare" not in name}

    assert world.play() is RunState.FAILED
    assert (world.reason, world.writes) == ("NoSpareInTime", [])
    assert world.node == world.born


def test_run_without_any_spare_left_goes_on_for_a_node_that_is_out_already():
    """A hard fault's node serves nobody: it is repaired, and comes back to its own pool."""
    world = started(a_playbook(*HARD))
    world.nodes = {name: node for name, node in world.nodes.items() if "spare" not in name}

    assert world.play() is RunState.RETURNED
    assert RunState.HANDED_OVER not in world.states
    assert world.node.labels[POOL_KEY] == "train"


def test_run_never_hands_a_second_spare_over_when_it_wakes_up_late():
    """A claim whose spare is a member already is used, however old the grant is."""
    world = started(a_playbook(*HARD))
    while world.nodes["spare-1"].labels[POOL_KEY] != "train":
        world.step()
    world.crash()
    world.later(3_600)
    world.play()

    assert world.nodes["spare-2"].labels[POOL_KEY] == "buffer"


# -- standing still


BRIEF = Step(id="drain", drain=DrainStep(deadline="30s"))


def held_by_a_pdb() -> TinyWorld:
    world = started(a_playbook(*(BRIEF if each == "drain" else each for each in HARD)))
    world.pdbs = (PdbView("team", "train", 0, {}),)
    world.play(until=RunState.HELD)
    return world


def test_run_is_held_when_a_pdb_refuses_until_the_deadline():
    """Nothing is ever forced: at the deadline people decide."""
    world = held_by_a_pdb()

    assert (world.state, world.reason) == (RunState.HELD, "DrainTimedOut")
    assert (world.now - at(0)).total_seconds() == 30
    assert len(world.pods) == 2
    assert world.view().status.waits_for == "a person"


def test_run_that_is_held_writes_nothing_more():
    """A run that waits for people for a week must not write its record for a week."""
    world = held_by_a_pdb()
    saves = len(world.states)
    for _ in range(50):
        world.step()

    assert len(world.states) == saves
    assert world.evictions == []


def test_run_that_is_held_is_cancelled_by_a_person():
    """Held has a way out, and it leaves nothing behind."""
    world = held_by_a_pdb()
    world.cancel()

    assert world.play() is RunState.CANCELLED
    assert same(world.node) == same(world.born)


def test_run_that_is_held_goes_on_when_a_person_removes_the_pods():
    """The other way out: remove the obstacle, and the run sees it by itself."""
    world = held_by_a_pdb()
    world.pods = []

    assert world.play() is RunState.RETURNED


def test_run_that_is_held_still_looks_at_the_pods():
    """Unknown is not empty, and it does not become known by waiting."""
    held = RemediationStatus(state="Held", message="x", steps=())
    view = a_view("drain", run=a_run(status=held), node=a_node())
    quarantined = replace(view, node=held_by_a_pdb().node)

    assert decide_run(quarantined).look is Look.PODS


def test_run_is_blocked_while_its_pods_are_refused_and_says_by_what():
    """No silent wait: the record names the PDB and the pod, at most every 15 seconds."""
    world = started(a_playbook(*HARD))
    world.pdbs = (PdbView("team", "train", 0, {"app": "x"}),)
    world.pods = [a_pod("a", labels={"app": "x"})]
    world.play(60, until=RunState.BLOCKED)
    status = world.view().status

    assert "PDB team/train" in status.waits_for
    assert status.until


def test_run_that_is_paused_starts_no_step_until_the_pause_ends():
    """A pause lets the running step finish; the next one waits, and says so."""
    world = started(a_playbook(*HARD))
    world.paused = "policy paused by ann: x"
    for _ in range(20):
        world.step()

    assert (world.state, world.writes) == (RunState.BLOCKED, [])
    world.paused = ""
    assert world.play() is RunState.RETURNED


def test_run_that_was_paused_for_long_has_its_full_time_afterwards():
    """A step's time starts when it may start, or a long pause would end every run as failed."""
    for state in (RunState.DRAINING, RunState.REPAIRING, RunState.VERIFYING):
        world = started(a_playbook(*HARD))
        world.play(until=state)
        world.paused = "policy paused by ann: x"
        for _ in range(10):
            world.step()
        world.later(48 * 3_600)
        world.step()
        world.paused = ""

        assert world.play() is RunState.RETURNED, state


def test_run_that_was_paused_has_its_full_time_once():
    """The step's time starts with its first effect after the pause, and not again at its deadline."""
    world = started(a_playbook(*HARD))
    world.play(until=RunState.DRAINING)
    world.paused = "policy paused by ann: x"
    for _ in range(5):
        world.step()
    assert world.view().status.reason == "NotBegun"
    world.later(600)
    world.paused = ""
    resumed = write_instant(world.now)
    while not world.evictions:
        world.step()

    status = world.view().status
    drain = next(each for each in status.steps if each.action == "drain")
    assert drain.started_at >= resumed
    assert status.reason == ""


def test_run_soaks_anew_when_a_signal_turned_bad_in_a_pause():
    """A pause must not blind the soak: it writes nothing to the cluster, so it goes on."""
    world = started(a_playbook(*HARD))
    world.play(until=RunState.VERIFYING)
    while not world.view().status.quiet_since:
        world.step()
    world.paused = "policy paused by ann: x"
    world.sick["gpu-1"] = "xid 79"
    for _ in range(5):
        world.step()

    assert not world.view().status.quiet_since


def test_run_fails_when_the_repair_changes_no_boot_id():
    """A Job that says OK is no evidence."""
    world = started(a_playbook(*HARD))
    world.job_reboots = False

    assert world.play() is RunState.FAILED
    assert world.reason == "RepairTimedOut"
    assert ours(world.node)


def test_run_fails_when_the_signal_stays_after_the_repair():
    """Never return a machine without evidence: it stays out, with our taint on."""
    world = started(a_playbook(*HARD))
    world.play(until=RunState.VERIFYING)
    world.sick["gpu-1"] = "xid 79"

    assert world.play() is RunState.FAILED
    assert world.reason == "VerifyFailed"
    assert world.node.taint(TAINT_QUARANTINE) is not None


def test_run_ends_as_handed_off_where_the_playbook_gives_it_to_people():
    """The hand-off ends the run; the machine stays out."""
    world = started(a_playbook("quarantine", "swap", "drain", "detach", "handoff"))

    assert world.play() is RunState.HANDED_OFF
    assert world.node.taint(TAINT_QUARANTINE) is not None
    assert POOL_KEY not in world.node.labels


def test_run_never_sends_two_jobs_or_one_eviction_twice():
    """External actions go out at most once, whatever crashes in between."""
    world = started(a_playbook(*HARD))
    world.play(crash=True)
    jobs = [write for write in world.writes if isinstance(write, CreateJob)]
    pods = [write.uid for write in world.writes if isinstance(write, EvictPod)]

    assert len(jobs) == 1
    assert sorted(pods) == ["uid-a", "uid-b"]


# -- every playbook that may be followed can be followed to its end


ACTIONS = ("collect", "quarantine", "swap", "drain", "detach", "repair", "verify", "return")


def every_valid_playbook(begun=()):
    """By growing what is valid so far: a swap may still be waiting for its quarantine."""
    for action in ACTIONS:
        if action in begun:
            continue
        playbook = a_playbook(*begun, action)
        faults = faults_of(playbook.spec)
        if not faults:
            yield playbook
        if all("swap without quarantine" in fault for fault in faults):
            yield from every_valid_playbook((*begun, action))


def test_run_of_every_valid_playbook_moves_only_along_the_table():
    """An order of steps that validity lets pass must not end the process with a broken rule."""
    followed = 0
    for playbook in every_valid_playbook():
        if "quarantine" not in playbook.actions:
            assert playbook.actions == ("collect",)
            continue
        world = TinyWorld(playbook)
        assert world.start().granted
        world.sick.pop("gpu-1")
        if "repair" not in playbook.actions:
            world.change("gpu-1", boot_id="boot-2")
        followed += 1

        assert world.play() in (RunState.RETURNED, RunState.HANDED_OFF), playbook.actions
    assert followed > 100


def test_run_that_a_hard_fault_joins_is_hard_for_good_and_has_its_time_anew():
    """Hours of a soft fault's patience must not have used up the minutes of a hard one."""
    waiting = StepStatus(id="drain", action="drain", state="Intent", started_at=text(0))
    done = StepStatus(id="swap", action="swap", state="Done", started_at=text(0), finished_at=text(1))
    status = RemediationStatus(state="Draining", steps=(done, waiting))
    run = a_run(severity="Soft", status=status)
    move = decide_run(a_view(*SOFT, run=run, now=at(7_200), hard_fault="gpu.bus: xid 79"))

    assert move.save == replace(
        status,
        raised_by="gpu.bus: xid 79",
        message="a hard fault has joined: gpu.bus: xid 79",
        steps=(done, replace(waiting, started_at=text(7_200))),
    )
    again = decide_run(a_view(*SOFT, run=replace(run, status=move.save), now=at(7_201), hard_fault="other"))
    assert again.save is None or again.save.raised_by == "gpu.bus: xid 79"


def test_run_of_a_hard_fault_is_not_raised_again():
    """It is as hard as it gets; one more write a fault would be noise."""
    move = decide_run(a_view(*HARD, hard_fault="gpu.bus: xid 79"))

    assert move.save is None or not move.save.raised_by


def test_run_without_status_or_steps_is_granted():
    """A record is complete at birth: its missing status means that nothing happened yet."""
    assert a_run().status is UNSET
    assert decide_run(a_view()).actions
