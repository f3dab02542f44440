"""The API server's certificate comes from a new authority, in the middle of two runs.

The controller is told by the file of its authority, as in a pod. Until that says so it trusts nobody:
nothing is done then, and it goes on without having been restarted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from remediator.fleet.repairs import (
    Reboot,
)
from remediator.testbed.binaries import Binaries
from remediator.testbed.kubeconfig import Access
from remediator.testbed.stage import ACCOUNT, NAMESPACE
from remediator.testbed.tokens import TokenMint
from tests.e2e.stress_scene import VICTIMS, Story, StressScene, assert_calm, assert_no_harm, open_scene
from tests.rotation import NAME, answering, presents, sign

LIFE_S = 600.0
DISTRUST_S = 4.0  # with what settles before it shorter than the Lease
SETTLE_S = 1.0  # what the server had taken before the cut is done, and stands in its log


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("authorities")
    (folder / "ca.crt").write_bytes(sign(folder, "first").read_bytes())
    return folder


@pytest.fixture(scope="module")
def scene(
    control_plane_binaries: Binaries, tmp_path_factory: pytest.TempPathFactory, pki: Path
) -> Iterator[StressScene]:
    folder = tmp_path_factory.mktemp("authority") / "stage"
    with open_scene(control_plane_binaries, folder, answering(pki)) as opened:
        yield opened


@pytest.fixture(scope="module")
def normal(scene: StressScene) -> Story:
    return scene.good_times()


@pytest.fixture
def slow_machines(scene: StressScene) -> None:
    """Machines that take half a minute to begin to reboot, so that runs last."""
    for victim in VICTIMS:
        scene.stage.player.plan(victim, Reboot(late_s=30.0))


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("slow_machines")
def test_authority_that_is_rotated_in_mid_run_costs_time_and_nothing_else(
    scene: StressScene, normal: Story, pki: Path, tmp_path: Path
) -> None:
    """The server is first with its new certificate, all connections break, and the file comes last."""
    key = scene.stage.cluster.layout.pki / "service-account.key"
    token = tmp_path / "token"
    TokenMint(scene.stage.api, key, namespace=NAMESPACE, name=ACCOUNT).put(token, life_s=LIFE_S)

    def by_file(plain: Access) -> Access:
        return replace(plain, token_file=str(token), authority_file=str(pki / "ca.crt"), tls_name=NAME)

    scene.begin(access=by_file)
    scene.inject()
    scene.wait_for("fence")
    new, port = sign(pki, "second"), scene.stage.cluster.layout.api
    scene.wait_until(lambda: presents(port, new), "the API server to take the new pair", 90.0)
    tried = scene.pipe.accepted
    assert scene.pipe.cut() > 0
    scene.wait_until(lambda: scene.pipe.accepted > tried, "the controller to try again", 10.0)
    scene.watch_over(SETTLE_S)
    before = len(scene.node_writes())
    scene.watch_over(DISTRUST_S)
    assert len(scene.node_writes()) == before, "nobody is trusted, so nothing is written"
    assert any(not run["over"] for run in scene.world.runs())
    (pki / "ca.crt").write_bytes(new.read_bytes())
    story = scene.end()

    assert story.restarts == 0
    assert_no_harm(scene.stage, story)
    assert_calm(story, normal)
