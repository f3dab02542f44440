"""What every test folder shares: what this machine can run, and how generated tests behave.

It starts nothing. The fixtures of a real cluster live beside the suites that use them.
"""

from __future__ import annotations

import os
import shutil
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from remediator.testbed import binaries

pytest_plugins = ["tests.controlplane"]

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = "no real API server: neither Go nor a built control plane"
HOW_TO_GET_GO = (
    f"install Go {binaries.GO_NEEDED} or newer (the package golang, or the archive from its web site), "
    "put it on PATH, and run `make testbed-build` once"
)

# Cores are shared, so a deadline per example would fail for reasons that are not in the test. In CI the
# examples are the same in every run: a red build must come from the change.
settings.register_profile("here", deadline=None, print_blob=True)
settings.register_profile(
    "ci", deadline=None, print_blob=True, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "here")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if ROOT / "tests" / "e2e" in item.path.parents:
            item.add_marker(pytest.mark.real_server)


@cache
def can_have_a_server() -> bool:
    return shutil.which("go") is not None or binaries.find(os.environ) is not None


@pytest.hookimpl(tryfirst=True)  # before any fixture starts something
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out what needs a real control plane where there is none and none can be built."""
    if item.get_closest_marker("real_server") is None or can_have_a_server():
        return
    if os.environ.get("CI") == "true":
        pytest.fail(
            f"needs a real API server, and CI=true leaves nothing out: {HOW_TO_GET_GO}", pytrace=False
        )
    pytest.skip(LEFT_OUT)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say plainly what a green run did not prove; from the reports, since workers have no terminal."""
    left_out = sum(LEFT_OUT in str(each.longrepr) for each in terminalreporter.getreports("skipped"))
    if left_out:
        terminalreporter.section("left out", yellow=True)
        terminalreporter.line(
            f"{left_out} tests against a real API server (end-to-end, and that half of the contract suite) "
            f"did not run. To run them: {HOW_TO_GET_GO}."
        )
