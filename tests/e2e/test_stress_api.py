"""The API server, its store or the way to it are in trouble while two faults are repaired.

After each: nothing was done twice or out of order, both runs have ended, the server was not asked
more often than in good times, and the log says what happened without repeating it for ever.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from remediator.model.keys import ANNOTATION_HOLD
from remediator.testbed.binaries import Binaries
from remediator.testbed.node_edits import NODES
from remediator.testbed.pipe import watches
from remediator.testbed.waiting import monotonic
from remediator.testbed.write_faults import read_journal
from tests.e2e import verdict
from tests.e2e.small_world import BAD, SPARE
from tests.e2e.stress_scene import (
    REQUESTS_MAX,
    VICTIMS,
    Story,
    StressScene,
    assert_calm,
    assert_no_harm,
    open_scene,
)

ETCD, SERVER = "etcd", "kube-apiserver"


@pytest.fixture(scope="module")
def scene(
    control_plane_binaries: Binaries, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StressScene]:
    with open_scene(control_plane_binaries, tmp_path_factory.mktemp("stress") / "stage") as opened:
        yield opened


@pytest.fixture(scope="module")
def normal(scene: StressScene) -> Story:
    return scene.good_times()


@pytest.mark.timeout(300)
def test_server_killed_in_mid_run(scene: StressScene, normal: Story) -> None:
    """A new API server knows none of our watches; the runs go on where they were."""
    scene.begin()
    scene.inject()
    scene.wait_for("detach")
    scene.stage.cluster.stop_component(SERVER, crash=True)
    time.sleep(2)
    scene.stage.cluster.start_component(SERVER)
    scene.stage.api.close()  # the judge's own idle connections are dead, too
    # How long Kubernetes' own parts look for their server is not what is asked here.
    for part in ("kube-controller-manager", "kube-scheduler"):
        scene.stage.cluster.stop_component(part)
        scene.stage.cluster.start_component(part)
    story = scene.end()

    assert_no_harm(scene.stage, story, whole=False)
    assert_calm(story, normal)


@pytest.mark.timeout(300)
def test_store_stands_still_in_mid_run(scene: StressScene, normal: Story) -> None:
    """Requests hang and may be committed afterwards, when nobody waits for them any more."""
    scene.begin()
    scene.inject()
    scene.wait_for("fence")
    scene.stage.cluster.pause_component(ETCD)
    time.sleep(7)  # below the Lease's deadline: the leader stays
    scene.stage.cluster.resume_component(ETCD)
    story = scene.end()

    assert story.restarts == 0
    assert_no_harm(scene.stage, story)
    assert_calm(story, normal)


@pytest.mark.timeout(300)
def test_network_hangs_in_mid_run(scene: StressScene, normal: Story) -> None:
    """No reset, no refusal: bytes go in and none comes out, on old connections and on new ones."""
    scene.begin()
    scene.inject()
    scene.wait_for("fence")
    scene.pipe.accept_only()
    assert scene.pipe.hold_requests()
    assert scene.pipe.hold_replies()
    time.sleep(6)
    scene.pipe.resume()
    story = scene.end()

    assert_no_harm(scene.stage, story)
    assert_calm(story, normal)


@pytest.mark.timeout(300)
def test_reply_to_the_grant_is_lost(scene: StressScene, normal: Story) -> None:
    """Remediation and grant are committed and nobody was told: they count, and no second pair is made."""
    scene.begin()
    scene.find_the_lease()
    first, second = VICTIMS
    scene.inject(first)  # leaves the connections that the next grant goes out on
    scene.wait_until(scene.world.settled, "the first run to end", 60.0)
    scene.inject(second)

    def lost() -> bool:
        # Also summaries go out, and each lost reply takes its connection with it: the new ones drop too.
        scene.pipe.drop_replies(scene.is_pooled)
        return scene.lines()["fleet pass not recorded"] > 0

    scene.wait_until(lost, "the reply to the grant to be lost", 20.0)
    scene.pipe.resume()
    story = scene.end()

    assert_no_harm(scene.stage, story)
    assert_calm(story, normal)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("seconds", [10.0, pytest.param(120.0, marks=pytest.mark.long)])
def test_busy_server_is_not_asked_more(
    scene: StressScene, normal: Story, tmp_path: Path, seconds: float
) -> None:
    """Four of five requests are turned away: whoever tries harder keeps the server busy for ever."""
    flag, journal = tmp_path / "busy", tmp_path / "journal"
    words = ("--journal", str(journal), "--busy", str(flag))
    scene.begin(("remediator.testbed.faulty_controller", *words))
    scene.inject()
    scene.wait_for("fence")
    flag.touch()
    before = read_journal(journal)
    scene.watch_over(seconds)
    tries = read_journal(journal)[len(before) :]
    flag.unlink()
    began = monotonic()
    story = scene.end()

    assert ("request", "refused") in tries
    # Never less than one whole repair: on a loaded machine good times are slow, and pauses are not.
    repairs = max(1.0, seconds / normal.took_s)
    assert len(tries) <= REQUESTS_MAX * len(normal.requests()) * repairs
    took_s = monotonic() - began
    assert took_s < 60.0 + normal.took_s, "back to work within a minute, and then as fast as in good times"
    assert_no_harm(scene.stage, story)
    assert_calm(story, normal)


@pytest.mark.timeout(300)
def test_frozen_watches_harm_nobody(scene: StressScene) -> None:
    """The Lease is renewed and the view is old: what changed meanwhile is only found by preconditions."""
    scene.begin()
    scene.show_watches()
    assert scene.pipe.hold_replies(watches)
    api = scene.stage.api
    held = {"metadata": {"annotations": {ANNOTATION_HOLD: "by=alice;reason=looking into it"}}}
    api.merge_patch(f"{NODES}/{BAD}", held)
    api.merge_patch(f"{NODES}/{SPARE}", {"spec": {"unschedulable": True}})
    scene.stage.exporters.inject_xid(BAD, 5, 79)
    scene.wait_until(lambda: bool(scene.node_writes()), "a write on old sight", 30.0)
    assert scene.stage.controller_alive
    scene.pipe.resume()
    scene.wait_until(lambda: all(run["over"] for run in scene.world.runs()), "the run to give way", 30.0)
    scene.stage.stop_controller()

    assert not verdict.landed(scene.node_writes()), "a node that a person holds was touched"
    assert all(run["state"] != "Returned" for run in scene.world.runs())


@pytest.mark.long
@pytest.mark.timeout(300)
def test_frozen_watches_are_noticed(scene: StressScene, normal: Story) -> None:
    """Nobody tells a client that its watch is dead. Within 75 s it must find out by itself."""
    scene.begin()
    scene.show_watches()
    assert scene.pipe.hold_replies(watches)
    scene.inject()
    story = scene.end(within_s=100.0)

    assert story.took_s < 75.0 + normal.took_s + 10.0
    assert_no_harm(scene.stage, story)


@pytest.mark.long
@pytest.mark.timeout(400)
def test_store_stands_still_for_longer_than_the_lease(scene: StressScene, normal: Story) -> None:
    """The leader can't renew, so it ends; what starts in its place waits, and goes on from the objects."""
    scene.begin()
    scene.inject()
    scene.wait_for("fence")
    scene.stage.cluster.pause_component(ETCD)
    scene.watch_over(40.0)
    scene.stage.cluster.resume_component(ETCD)
    story = scene.end()

    assert story.restarts > 0
    assert_no_harm(scene.stage, story)


@pytest.mark.long
@pytest.mark.timeout(400)
def test_slow_network_only_slows(scene: StressScene, normal: Story) -> None:
    """Two seconds for each answer: everything takes longer, and nothing is sent twice."""
    scene.begin()
    scene.pipe.delay(1.0)
    scene.inject()
    story = scene.end(within_s=300.0)

    assert story.restarts == 0
    assert_no_harm(scene.stage, story)
    assert_calm(story, normal)
