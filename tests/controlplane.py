"""Pytest plugin: a real control plane for whoever asks, one per session, worker and timing.

Registered once for all of tests/ so that the contract suite and the end-to-end suite share it. The
programs are built the first time; where that is impossible the tests are skipped, loudly, and with
CI=true they fail instead.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from remediator.testbed import binaries
from remediator.testbed.api import Api
from remediator.testbed.audit import AuditLog, Mark
from remediator.testbed.binaries import Binaries, BuildError
from remediator.testbed.components import Options
from remediator.testbed.launcher import ControlPlane
from remediator.testbed.lifecycle import describe_progress


@pytest.fixture(scope="session")
def control_plane_binaries(pytestconfig: pytest.Config) -> Binaries:
    """The programs of the control plane, built now if they are not there yet."""
    found = binaries.find(os.environ)
    if found is not None:
        return found
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    reporter = pytestconfig.pluginmanager.getplugin("terminalreporter")

    def show(progress: binaries.Progress) -> None:
        if reporter is None:  # a worker has no terminal
            return
        with capture.global_and_fixture_disabled():
            reporter.write_line(describe_progress(progress))

    try:
        return binaries.build(os.environ, progress=show)
    except BuildError as error:
        _give_up(f"NO REAL CONTROL PLANE: {error}")


def _give_up(reason: str) -> NoReturn:
    if os.environ.get("CI", "").lower() in ("true", "1"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def control_plane(
    control_plane_binaries: Binaries, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ControlPlane]:
    """A control plane with production-like timing (lease 40 s, grace 50 s): no node flaps under load."""
    yield from _running(tmp_path_factory.mktemp("control-plane"), control_plane_binaries, Options())


@pytest.fixture(scope="session")
def quick_control_plane(
    control_plane_binaries: Binaries, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ControlPlane]:
    """A second one where a silent node is Unknown after about 12 s, for stories that wait for that."""
    options = Options.quick(toleration_s=10)
    yield from _running(tmp_path_factory.mktemp("quick-control-plane"), control_plane_binaries, options)


def _running(directory: Path, built: Binaries, options: Options) -> Iterator[ControlPlane]:
    with ControlPlane(directory, built, options) as started:
        yield started


@pytest.fixture(scope="session")
def api(control_plane: ControlPlane) -> Iterator[Api]:
    """The harness's administrator; never hand it to the controller."""
    client = control_plane.admin()
    yield client
    client.close()


@pytest.fixture(scope="session")
def quick_api(quick_control_plane: ControlPlane) -> Iterator[Api]:
    """The harness's administrator of the quick control plane."""
    client = quick_control_plane.admin()
    yield client
    client.close()


@pytest.fixture(scope="session")
def audit(control_plane: ControlPlane) -> AuditLog:
    """The audit log of the shared control plane; read it from ``audit_mark`` on."""
    return control_plane.audit


@pytest.fixture
def audit_mark(audit: AuditLog) -> Mark:
    """Where this test's part of the audit log begins."""
    return audit.mark()
