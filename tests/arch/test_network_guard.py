"""The guard of the unit tests refuses the network, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = """
import asyncio, contextlib, socket
import pytest

@pytest.fixture
def server():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening

def test_connects():
    with socket.socket() as own:
        own.connect(("127.0.0.1", 9))

def test_looks_a_name_up():
    socket.getaddrinfo("localhost", 80)

def test_code_that_catches_everything():
    with contextlib.suppress(BaseException):
        socket.create_connection(("127.0.0.1", 9))

def test_fixture_listens(server):
    pass

def test_that_a_loop_is_no_network():
    asyncio.run(asyncio.sleep(0))
"""


OTHERS = """
import socket

def test_listens():
    socket.create_server(("127.0.0.1", 0)).close()
"""


def test_network_guard_bites(tmp_path: Path):
    """In the test, in its fixtures, and where the code under test has swallowed the refusal.

    In one run with tests of another folder, which it leaves alone.
    """
    for folder, text in (("unit", TESTS), ("z_contract", OTHERS)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"test_{folder}.py").write_text(text)
    shutil.copy(ROOT / "tests" / "unit" / "conftest.py", tmp_path / "unit")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-c", "/dev/null", f"--rootdir={tmp_path}", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert "3 failed, 2 passed, 1 error" in done.stdout, done.stdout + done.stderr
    assert "socket.getaddrinfo ['localhost']: what needs a socket belongs into tests/contract" in done.stdout
