"""promtool and amtool for the tests, got by the project's own script."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.deploy.manifests import ROOT

SCRIPT = ROOT / "scripts/prometheus-tools.sh"
FETCH_S_MAX = 300
RUN_S_MAX = 60


@dataclass(frozen=True)
class PromTools:
    """The folder of the two programs."""

    folder: Path

    def run(self, tool: str, *words: str) -> str:
        """Run one to its end; return all that it said."""
        done = subprocess.run(
            [str(self.folder / tool), *words], capture_output=True, text=True, timeout=RUN_S_MAX, check=False
        )
        assert done.returncode == 0, f"{tool} {' '.join(words)}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr


@pytest.fixture(scope="session")
def promtools() -> PromTools:
    """Left out, loudly, where they cannot be had; with CI=true that is a failure."""
    done = subprocess.run([str(SCRIPT)], capture_output=True, text=True, timeout=FETCH_S_MAX, check=False)
    if done.returncode == 0:
        return PromTools(Path(done.stdout.strip()))
    if os.environ.get("CI", "").lower() in ("true", "1"):
        pytest.fail(done.stderr, pytrace=False)
    pytest.skip(done.stderr)
