"""The controller dies at a write, or hears no reply to it; the story ends as if nothing had been.

A fixed choice of points here; every point that there is in the tests marked ``long``. A fault is only
good once it has struck: a run in which it did not is a failed test.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from remediator.testbed.binaries import Binaries
from remediator.testbed.stage import Stage
from remediator.testbed.write_faults import Fate
from tests.e2e import verdict
from tests.e2e.crash_scene import STORIES, CrashScene, Ending, assert_as_without_a_fault
from tests.e2e.small_world import open_fleet, workload

GRANT = "PUT remediationpolicies/status with 1 grants"
# Where two objects must agree, where the outside is touched, and the two ends.
CHOSEN = [
    ("hard", "PUT remediationpolicies/status with 0 grants", Fate.KILLED_AFTER),  # the term
    ("hard", "POST remediations", Fate.KILLED_AFTER),
    ("hard", GRANT, Fate.KILLED_AFTER),
    ("hard", GRANT, Fate.REPLY_LOST),
    ("hard", "PATCH nodes of fence", Fate.KILLED_AFTER),
    ("hard", "POST pods/eviction of drain", Fate.KILLED_AFTER),
    ("hard", "POST pods/eviction of drain", Fate.REPLY_LOST),
    ("hard", "POST jobs of reboot", Fate.KILLED_AFTER),
    ("hard", "POST jobs of reboot", Fate.REPLY_LOST),
    ("soft", "PATCH nodes of swap", Fate.KILLED_AFTER),
]
GRANT_GIVEN_BACK_S = 150.0  # 60 s until nobody waits for its run any more, and the story itself
FATES = (Fate.KILLED_BEFORE, Fate.KILLED_AFTER, Fate.REPLY_LOST)


@pytest.fixture(scope="module")
def scene(control_plane_binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrashScene]:
    """One small fleet for all runs."""
    directory = tmp_path_factory.mktemp("crashes") / "stage"
    with Stage(directory, control_plane_binaries, workload=workload(), specs=open_fleet()) as stage:
        yield CrashScene(stage)
        verdict.assert_custody(stage)
        verdict.assert_rules(stage)


@pytest.fixture(scope="module")
def references(scene: CrashScene) -> dict[str, Ending]:
    """Each story without a fault, by its name."""
    return {name: scene.play(story) for name, story in STORIES.items()}


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("story", "point", "fate"), CHOSEN, ids=[f"{story}-{point}-{fate.value}" for story, point, fate in CHOSEN]
)
def test_crash_changes_nothing_of_the_end(
    scene: CrashScene, references: dict[str, Ending], story: str, point: str, fate: Fate
) -> None:
    """Whatever the moment, the next leader finds in the cluster all that it needs, and does nothing twice."""
    assert_as_without_a_fault(scene.play(STORIES[story], point, fate), references[story])


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("fate", FATES, ids=[fate.value for fate in FATES])
@pytest.mark.parametrize("story", sorted(STORIES))
def test_every_crash_point_changes_nothing_of_the_end(
    scene: CrashScene,
    references: dict[str, Ending],
    subtests: pytest.Subtests,
    story: str,
    fate: Fate,
) -> None:
    """No write is left out: the points are those of a run without a fault.

    Two such runs, in fact: when a grant is given back the policy is written once or twice, as the looks fall.
    What only one of them writes is no point that could be met.
    """
    again = scene.play(STORIES[story]).points
    for point in (each for each in references[story].points if each in again):
        with subtests.test(point=point):
            assert_as_without_a_fault(scene.play(STORIES[story], point, fate), references[story])


@pytest.mark.long
@pytest.mark.timeout(300)
def test_grant_without_its_run_is_given_back(scene: CrashScene, references: dict[str, Ending]) -> None:
    """The grant lands, the Remediation does not: the grant must not block its node for ever."""
    ending = scene.play(STORIES["hard"], "POST remediations", Fate.OVERTAKEN, within_s=GRANT_GIVEN_BACK_S)

    assert_as_without_a_fault(ending, references["hard"])
