"""The gates of pyproject.toml bite: each planted offence is refused, and a clean tree passes."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import sys
import tomllib
import uuid
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(sys.executable).parent
CLEAN = (
    "cli/__init__.py",
    "chaos/__init__.py",
    "testbed/__init__.py",
    "app.py",
    "runtime/__init__.py",
    "adapters/__init__.py",
    "adapters/kube/__init__.py",
    "adapters/files/__init__.py",
    "adapters/ticks.py",
    "adapters/telemetry/__init__.py",
    "sim/__init__.py",
    "ports.py",
    "core/__init__.py",
    "model/__init__.py",
    "errors.py",
    "__main__.py",
    "__init__.py",
)
ALLOWED = {
    "cli/__init__.py": "import remediator.app",
    "adapters/kube/transport.py": "import kubernetes.aio",
    "adapters/ticks.py": "import apscheduler.schedulers",
    "adapters/telemetry/metrics.py": "import prometheus_client",
    "runtime/__init__.py": "import remediator.core",
    "core/__init__.py": "import remediator.model",
}
PLANTED = {
    "core looks up": ("core/drain.py", "import remediator.ports", "imports point down"),
    "core looks up through another": ("core/__init__.py", "import remediator.runtime", "imports point down"),
    "runtime knows an adapter": (
        "runtime/passes.py",
        "import remediator.adapters.kube",
        "imports point down",
    ),
    "chaos knows the test bed": ("chaos/live.py", "import remediator.testbed", "imports point down"),
    "a module without a place": ("extra.py", "", "imports point down"),
    "core asks the clock": ("core/drain.py", "import time", "deciding touches nothing outside"),
    "model throws dice": ("model/names.py", "from random import random", "deciding touches nothing outside"),
    "ports log": ("ports.py", "import structlog", "deciding touches nothing outside"),
    "adapters know each other": (
        "adapters/files/playbooks.py",
        "import remediator.adapters.kube",
        "adapters do not know each other",
    ),
    "the client elsewhere": ("runtime/passes.py", "import kubernetes.aio", "only adapters.kube"),
    "the ticks elsewhere": ("runtime/ticks.py", "import apscheduler", "only adapters.ticks"),
    "the metrics elsewhere": ("app.py", "import prometheus_client", "only adapters.telemetry"),
}
BANNED = {
    "clock": "import time\n\nSTARTED = time.time()\n",
    "clock by another name": "from time import monotonic as tick\n\nSTARTED = tick()\n",
    "wall clock": "from datetime import UTC, datetime\n\nSTARTED = datetime.now(UTC)\n",
    "pause": "import asyncio\n\n\nasync def wait() -> None:\n    await asyncio.sleep(1)\n",
    "clock of another kind": "from time import perf_counter\n\nSTARTED = perf_counter()\n",
    "clock in nanoseconds": "import time\n\nSTARTED = time.time_ns()\n",
    "clock handed on": "from datetime import datetime\n\nCLOCK = datetime.now\n",
    "today": "import datetime as d\n\nDAY = d.date.today()\n",
    "pause by another name": "from asyncio import sleep as pause\n\nPAUSE = pause\n",
    "dice": "import random\n\nROLLED = random.random()\n",
    "dice of the system": "from random import SystemRandom\n\nDICE = SystemRandom()\n",
    "secrets": "import secrets\n\nNAME = secrets.token_hex(4)\n",
    "random bytes": "from os import urandom\n\nDRAWN = urandom(4)\n",
    "random names": "import uuid\n\nNAME = uuid.uuid4()\n",
}


def run(*command: str | Path, cwd: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@pytest.fixture
def toy(tmp_path):
    """A package of our shape, under our own rules, that breaks none of them."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name in CLEAN:
        plant(tmp_path, name, "")
    for name, source in ALLOWED.items():
        plant(tmp_path, name, source)
    return tmp_path


def plant(root: Path, name: str, source: str) -> None:
    path = root / "remediator" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source + "\n", "utf-8")


def imports(root: Path) -> subprocess.CompletedProcess[str]:
    # Run from the toy's own folder: the first remediator on the path is the toy.
    return run(TOOLS / "lint-imports", "--no-cache", "--no-logo", cwd=root)


def test_imports_pass_on_a_clean_tree(toy):
    """A gate that refuses everything proves nothing by refusing."""
    done = imports(toy)

    assert done.returncode == 0, done.stdout
    # The toy's own files and the three libraries: not the package that is installed here.
    assert f"Analyzed {len({*CLEAN, *ALLOWED}) + 3} files" in done.stdout


@pytest.mark.parametrize(("name", "source", "contract"), PLANTED.values(), ids=PLANTED)
def test_imports_bite(toy, name, source, contract):
    """Each planted import breaks the contract that is meant for it."""
    plant(toy, name, source)

    done = imports(toy)

    assert done.returncode == 1, done.stdout
    assert any(contract in line and "BROKEN" in line for line in done.stdout.splitlines()), done.stdout


def lint(name: str, source: str) -> subprocess.CompletedProcess[str]:
    return run(TOOLS / "ruff", "check", "--no-cache", "--stdin-filename", name, "-", cwd=ROOT, stdin=source)


@pytest.mark.parametrize("name", ["remediator/core/toy.py", "remediator/runtime/toy.py", "tests/unit/toy.py"])
@pytest.mark.parametrize("source", BANNED.values(), ids=BANNED)
def test_banned_calls_bite(name, source):
    """Real time and real dice would make a failing run impossible to repeat."""
    done = lint(name, source)

    assert done.returncode == 1
    assert "TID251" in done.stdout


def test_every_die_of_the_library_is_banned():
    """A list by hand forgets ``gauss``; a newer Python adds another one."""
    banned = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["ruff"]["lint"]
    banned = banned["flake8-tidy-imports"]["banned-api"]
    rolls = {name for name in random.__all__ if name != "Random"}  # that one takes a seed

    assert {f"random.{name}" for name in rolls} - banned.keys() == set()
    assert {
        f"uuid.{name}" for name in dir(uuid) if re.fullmatch(r"uuid[12467]", name)
    } - banned.keys() == set()


@pytest.mark.parametrize(
    "name",
    [
        "remediator/adapters/clock.py",
        "remediator/adapters/dice.py",
        "remediator/testbed/toy.py",
        "bench/toy.py",
    ],
)
def test_banned_calls_are_allowed_where_real_time_counts(name):
    """These are all the places there are."""
    done = lint(name, BANNED["pause"])

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        ("try:\n    pass\nexcept Exception:\n    pass\n", "BLE001"),
        ("print('x')\n", "T201"),
        ("from datetime import datetime\n\nWHEN = datetime(2026, 1, 1)\n", "DTZ001"),
    ],
    ids=["broad except", "print", "naive time"],
)
def test_lint_bites(source, rule):
    """The three that matter most in a controller."""
    done = lint("remediator/runtime/toy.py", source)

    assert done.returncode == 1
    assert rule in done.stdout


def test_types_bite():
    """Strict means that a function without types is an error."""
    done = run(sys.executable, "-m", "mypy", "-c", "def decide(view): return view", cwd=ROOT)

    assert done.returncode == 1
    assert "no-untyped-def" in done.stdout
