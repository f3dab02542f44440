"""What the stories share: a stage of their own each, and the files to read when one fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from remediator.fleet.workloads import (
    Workload,
)
from remediator.testbed.binaries import Binaries
from remediator.testbed.stage import Stage
from tests.e2e import verdict


@pytest.fixture
def open_stage(
    control_plane_binaries: Binaries, tmp_path: Path
) -> Iterator[Callable[[Workload | None], Stage]]:
    """Make a stage with this workload, started, its controller not yet."""
    made: list[Stage] = []
    with ExitStack() as opened:

        def make(workload: Workload | None = None) -> Stage:
            directory = tmp_path / f"stage-{time.monotonic_ns()}"
            made.append(opened.enter_context(Stage(directory, control_plane_binaries, workload=workload)))
            return made[-1]

        yield make
        for stage in made:
            verdict.assert_custody(stage)


@pytest.fixture
def stage(open_stage: Callable[[Workload | None], Stage]) -> Stage:
    """A fleet of one's own without a workload, and the controller in command."""
    found = open_stage(None)
    found.start_controller()
    return found


@pytest.fixture
def full_stage(open_stage: Callable[[Workload | None], Stage]) -> Stage:
    """A fleet whose training pool is full to the last GPU, and the controller in command."""
    found = open_stage(Workload())
    found.start_controller()
    return found


@pytest.fixture(scope="module")
def shared_stage(
    control_plane_binaries: Binaries, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """One fleet for the stories of a module that leave each other's nodes alone."""
    with Stage(tmp_path_factory.mktemp("shared") / "stage", control_plane_binaries) as found:
        found.start_controller()
        yield found
        verdict.assert_custody(found)
        verdict.assert_rules(found)


@pytest.fixture(scope="module")
def shared_full_stage(
    control_plane_binaries: Binaries, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """As ``shared_stage``, with a training pool that is full to the last GPU."""
    directory = tmp_path_factory.mktemp("full") / "stage"
    with Stage(directory, control_plane_binaries, workload=Workload()) as found:
        found.start_controller()
        yield found
        verdict.assert_custody(found)
        verdict.assert_rules(found)


@pytest.fixture(scope="module")
def _victims() -> Iterator[str]:
    return iter([f"gpu-{rack}-0{number}" for number in (2, 3, 4) for rack in "abcdefgh"])


@pytest.fixture
def victim(_victims: Iterator[str]) -> str:
    """A train node of the shared stage that no other story of the module has touched."""
    return next(_victims)
