"""A run without a real API server says what it left out, and in CI it fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOY = """
import pytest

def test_pure(): pass

@pytest.mark.real_server
def test_real(): raise AssertionError("ran without a server")
"""


@pytest.fixture
def without_go(tmp_path):
    """Run a toy suite under our own conftest, where nothing is on PATH and nothing is built."""
    (tmp_path / "test_toy.py").write_text(TOY, "utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider"]
    command += ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path), str(tmp_path / "test_toy.py")]

    def run(**variables: str) -> subprocess.CompletedProcess[str]:
        environ = {name: value for name, value in os.environ.items() if name != "CI"}
        environ |= {"PATH": str(tmp_path), "REMEDIATOR_TESTBED_CACHE": str(tmp_path / "cache"), **variables}
        return subprocess.run(
            command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=50, check=False
        )

    return run


def test_run_without_go_says_what_it_left_out(without_go):
    """Green must not be read as more than it is."""
    done = without_go()

    assert done.returncode == 0, done.stdout
    assert "1 passed, 1 skipped" in done.stdout
    assert "1 tests against a real API server" in done.stdout
    assert "install Go" in done.stdout


def test_run_without_go_fails_in_ci(without_go):
    """A build machine that lost its Go must not turn the proof off."""
    done = without_go(CI="true")

    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "CI=true leaves nothing out: install Go" in done.stdout + done.stderr
