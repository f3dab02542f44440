"""What proves who we are runs out, and what we may do is taken away, while two faults are repaired.

Judged like every trouble with the API server: nothing twice or out of order, both runs end, and the
log tells it once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

import pytest
from msgspec.structs import replace

from remediator.app.manifests import deploy_directory
from remediator.fleet.repairs import (
    Reboot,
)
from remediator.testbed.api import Api, ApiError
from remediator.testbed.binaries import Binaries
from remediator.testbed.kubeconfig import Access
from remediator.testbed.stage import (
    ACCOUNT,
    NAMESPACE,
    NODES,
    Connect,
    Stage,
)
from remediator.testbed.tokens import TokenMint
from tests.e2e.stress_scene import VICTIMS, Story, StressScene, assert_calm, assert_no_harm, open_scene

LIFE_S = 6.0
EVENTS = "/apis/events.k8s.io/v1/namespaces/default/events"


@pytest.fixture(scope="module")
def scene(
    control_plane_binaries: Binaries, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StressScene]:
    with open_scene(control_plane_binaries, tmp_path_factory.mktemp("access") / "stage") as opened:
        yield opened


@pytest.fixture(scope="module")
def normal(scene: StressScene) -> Story:
    return scene.good_times()


@pytest.fixture
def mint(scene: StressScene) -> TokenMint:
    key = scene.stage.cluster.layout.pki / "service-account.key"
    return TokenMint(scene.stage.api, key, namespace=NAMESPACE, name=ACCOUNT)


def by_token(path: Path) -> Connect:
    """Under the token that stands in this file at the time."""
    return lambda plain: replace(plain, token_file=str(path))


@contextmanager
def rotated(mint: TokenMint, path: Path) -> Iterator[None]:
    """A kubelet at work: a new token well before the old one runs out."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(LIFE_S / 3):
            mint.put(path, life_s=LIFE_S)

    worker = threading.Thread(target=work, name="rotation")
    worker.start()
    try:
        yield
    finally:
        stop.set()
        worker.join()


def refused(scene: StressScene, token: str) -> bool:
    """Does the API server not know this token any more?"""
    mine = scene.stage.api.access
    client = Api(Access(server=mine.server, authority=mine.authority, token=token))
    try:
        client.get(f"{NODES}?limit=1")
    except ApiError as error:
        return error.status == HTTPStatus.UNAUTHORIZED
    finally:
        client.close()
    return False


@pytest.mark.timeout(240)
def test_token_that_is_rotated_is_no_news(
    scene: StressScene, normal: Story, mint: TokenMint, tmp_path: Path
) -> None:
    """A projected token lives for an hour; a process that reads it once dies in the night."""
    path = tmp_path / "token"
    first = mint.put(path, life_s=LIFE_S)
    with rotated(mint, path):
        scene.begin(access=by_token(path))
        scene.wait_until(lambda: refused(scene, first), "the first token to run out", 30.0)
        scene.inject()
        story = scene.end()

    assert story.restarts == 0
    assert_no_harm(scene.stage, story)
    assert_calm(story, normal)


@pytest.fixture
def slow_machines(scene: StressScene) -> Iterator[None]:
    """Machines that take half a minute to begin to reboot, so that runs last."""
    for victim in VICTIMS:
        scene.stage.player.plan(victim, Reboot(late_s=30.0))
    yield
    for victim in VICTIMS:
        scene.stage.player.plan(victim)


@pytest.mark.timeout(240)
@pytest.mark.usefixtures("slow_machines")
def test_token_that_is_renewed_too_late_stops_and_goes_on(
    scene: StressScene, normal: Story, mint: TokenMint, tmp_path: Path
) -> None:
    """Nobody knows us any more, in the middle of two runs: no loop, and no harm, until somebody does."""
    path = tmp_path / "token"
    token = mint.put(path, life_s=15.0)
    scene.begin(access=by_token(path))
    scene.inject()
    scene.wait_for("fence")
    scene.wait_until(lambda: refused(scene, token), "the token to run out", 40.0)
    assert any(not run["over"] for run in scene.world.runs())
    scene.watch_over(5.0)
    mint.put(path, life_s=600.0)
    story = scene.end()

    assert_no_harm(scene.stage, story)
    assert_calm(story, normal)


@pytest.mark.timeout(240)
def test_right_to_act_that_is_taken_away_is_named_and_waited_for(scene: StressScene, normal: Story) -> None:
    """A clumsy clean-up of RBAC: the runs stand, an Event says what is missing, and they go on."""
    stage = scene.stage
    scene.begin()
    scene.inject()
    scene.wait_for("fence")
    stage.cluster.kubectl("delete", "clusterrolebinding", "remediator-enforce")
    scene.wait_until(lambda: bool(_stuck(stage)), "an Event about the missing right", 60.0)
    told = _stuck(stage)
    before = len(scene.node_writes())
    scene.watch_over(5.0)
    assert len(scene.node_writes()) - before <= 5, "one try a second at most"
    stage.cluster.kubectl("apply", "-f", str(deploy_directory() / "overlays/enforce/rbac.yaml"))
    story = scene.end()

    assert any("cannot patch" in note or "pods/eviction" in note for note in told), told
    assert story.restarts == 0
    assert_no_harm(stage, story)
    assert_calm(story, normal)


def _stuck(stage: Stage) -> list[str]:
    return [each.get("note", "") for each in stage.api.list(EVENTS) if each["reason"] == "RunStuck"]
