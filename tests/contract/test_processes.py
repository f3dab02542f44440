"""Nothing stays behind, and nothing that is not ours is touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from remediator.errors import PermanentError
from remediator.testbed import processes
from remediator.testbed.processes import Process, State
from remediator.testbed.waiting import wait_until

Start = Callable[..., tuple[subprocess.Popen[bytes], Process]]
# Ignores SIGTERM, and says so by a file once it does.
STUBBORN = "trap '' TERM; touch ready; while :; do sleep 0.05; done"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a marked process in the test's folder; killed at the end whatever happens."""
    (tmp_path / "logs").mkdir()
    children: list[subprocess.Popen[bytes]] = []

    def starter(name: str, *command: str) -> tuple[subprocess.Popen[bytes], Process]:
        child = processes.spawn(name, command or ("sleep", "60"), directory=tmp_path)
        children.append(child)
        return child, processes.identify(name, child.pid)

    yield starter
    for child in children:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def test_stop_ends_a_process(start):
    """The normal way: SIGTERM is enough."""
    _, process = start("one")

    assert processes.is_alive(process)
    assert processes.stop(process)
    assert not processes.is_alive(process)


def test_stop_kills_one_that_ignores_sigterm(start, tmp_path):
    """kube-apiserver hangs when etcd went first; a stop must end all the same."""
    _, process = start("stubborn", "sh", "-c", STUBBORN)
    wait_until((tmp_path / "ready").exists, timeout_s=10, what="the trap")

    assert processes.stop(process, term_timeout_s=0.1) is False
    assert not processes.is_alive(process)


def test_stop_ends_a_paused_process(start):
    """A story that paused a component and failed must not leave it behind."""
    _, process = start("one")
    processes.pause(process)

    assert processes.stop(process)


def test_stop_leaves_a_process_alone_that_got_the_pid_later(start):
    """Pids are used again; the start time tells the two apart."""
    child, process = start("one")
    earlier = msgspec.structs.replace(process, started_ticks=process.started_ticks - 1)

    assert processes.stop(earlier)
    assert child.poll() is None


def test_leftovers_are_found_by_folder_without_a_state_file(start, tmp_path):
    """The launcher may die between a start and the write of the state."""
    _, process = start("one")

    assert [found.pid for found in processes.leftovers(tmp_path)] == [process.pid]
    assert processes.leftovers(tmp_path / "other") == ()


def test_reap_ends_in_reverse_order_and_says_what_it_killed(start, tmp_path):
    """etcd, the first, must go last."""
    log = tmp_path / "order"
    script = "trap 'echo {} >> order; exit' TERM; touch {}; while :; do sleep 0.02; done"
    started = [start(name, "sh", "-c", script.format(name, name))[1] for name in ("first", "second")]
    for name in ("first", "second"):
        wait_until((tmp_path / name).exists, timeout_s=10, what=f"the trap of {name}")
    processes.write_state(tmp_path, State(processes=tuple(started)))
    killed = processes.reap(tmp_path)

    assert killed == ()
    assert log.read_text().split() == ["second", "first"]


def test_reap_of_an_empty_folder_does_nothing(tmp_path):
    """`down` twice is no error."""
    assert processes.reap(tmp_path) == ()


def test_state_that_cannot_be_read_names_the_file(tmp_path):
    """Somebody's own state.json must not be taken for ours."""
    (tmp_path / "state.json").write_text('{"processes": 3}')

    with pytest.raises(PermanentError, match=r"state\.json is no state file of a test bed"):
        processes.read_state(tmp_path)


def test_guardian_ends_everything_when_the_launcher_is_killed(tmp_path):
    """SIGKILL leaves the launcher no chance to clean up; somebody else must."""
    (tmp_path / "logs").mkdir()
    launcher = f"""
import time
from pathlib import Path
from remediator.testbed import guardian, processes
directory = Path({str(tmp_path)!r})
keeper = guardian.Guardian(directory)
child = processes.spawn("one", ("sleep", "60"), directory=directory)
processes.write_state(directory, processes.State(processes=(processes.identify("one", child.pid),)))
time.sleep(60)
"""
    root = Path(processes.__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", launcher], env={**os.environ, "PYTHONPATH": str(root)}
    ) as dying:
        state = wait_until(lambda: processes.read_state(tmp_path), timeout_s=20, what="the start")
        alive = processes.is_alive(state.processes[0])
        dying.kill()

    assert alive
    wait_until(lambda: not processes.is_alive(state.processes[0]), timeout_s=20, what="the end of the child")
