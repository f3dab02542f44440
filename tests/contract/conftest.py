"""A cluster with the shipped manifests, for the tests of what the API server itself refuses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from remediator.testbed.binaries import Binaries
from remediator.testbed.launcher import ControlPlane
from tests.contract.guarded import Guarded, install


@pytest.fixture(scope="session")
def guarded(control_plane_binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A control plane of its own: other suites share theirs and must not meet our policies."""
    directory = tmp_path_factory.mktemp("guarded")
    with ControlPlane(directory / "cluster", control_plane_binaries) as plane:
        yield install(plane, directory)
