"""Start and end the processes of one test bed, and only those.

A process is named by its pid *and* its start time, so that a pid that was used again is never
signalled. All of them are written to a state file, each before the next one starts, and carry the
test bed's folder in their environment: with either, a later process can end what a crashed one
left behind.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from remediator.errors import PermanentError
from remediator.testbed.waiting import WaitExpiredError, wait_until

MARK: Final = "REMEDIATOR_TESTBED_DIRECTORY"
STATE_FILE: Final = "state.json"
TERM_TIMEOUT_S: Final = 15.0  # kube-apiserver drains its watches first
KILL_TIMEOUT_S: Final = 5.0


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """One running program. ``started_ticks`` is field 22 of /proc/PID/stat."""

    name: str
    pid: int
    started_ticks: int


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What the state file holds: the processes in start order, and how to look at them.

    ``launcher`` is the process whose end ends all; None once they were left to run on their own.
    ``beside`` names the programs that run beside the components, with the port of each.
    """

    launcher: Process | None = None
    processes: tuple[Process, ...] = ()
    ports: dict[str, int] = {}
    beside: dict[str, int] = {}
    versions: dict[str, str] = {}
    timing: str = ""


def read_state(directory: Path) -> State | None:
    """Return the state of the test bed in ``directory``, or None where there never was one.

    Raises:
        PermanentError: the file is there and cannot be read.
    """
    path = directory / STATE_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=State)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise PermanentError(f"{path} is no state file of a test bed ({error}); remove the folder") from error


def write_state(directory: Path, state: State) -> None:
    """Replace the state file in one step."""
    partial = directory / f".{STATE_FILE}.partial"
    partial.write_bytes(msgspec.json.format(msgspec.json.encode(state)))
    os.replace(partial, directory / STATE_FILE)


def spawn(name: str, command: Sequence[str], *, directory: Path) -> subprocess.Popen[bytes]:
    """Start one program in its own session, with its output in ``logs/NAME.log``."""
    log = directory / "logs" / f"{name}.log"
    with open(log, "ab") as output:
        return subprocess.Popen(
            command,
            cwd=directory,
            env=_environment(directory),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # A Ctrl-C at the terminal must reach the launcher alone, which then stops them in order.
            start_new_session=True,
        )


def _environment(directory: Path) -> dict[str, str]:
    # Nothing else is inherited: a proxy or KUBECONFIG of the caller's shell must not leak in.
    kept: Mapping[str, str] = {key: os.environ[key] for key in ("PATH", "TMPDIR", "TZ") if key in os.environ}
    return {**kept, "HOME": str(directory), MARK: str(directory)}


def identify(name: str, pid: int) -> Process:
    """Return the record of a process that was just started and not yet waited for."""
    ticks = _started_ticks(pid)
    return Process(name=name, pid=pid, started_ticks=ticks if ticks is not None else -1)


def is_alive(process: Process) -> bool:
    """Say whether this very process still runs; a zombie does not."""
    return _started_ticks(process.pid) == process.started_ticks


def _started_ticks(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()  # the name before it may hold anything
    return None if fields[0] in "ZX" else int(fields[19])


def stop(process: Process, *, term_timeout_s: float = TERM_TIMEOUT_S) -> bool:
    """End one process: SIGTERM, and SIGKILL once the bound has passed; with a bound of 0 only SIGKILL.

    Returns:
        True if it went by itself, False if it had to be killed.

    Raises:
        WaitExpiredError: even SIGKILL did not end it.
    """
    if term_timeout_s > 0:
        _signal(process, signal.SIGTERM)
        _signal(process, signal.SIGCONT)  # one that a test paused could not end
        try:
            _await_end(process, term_timeout_s)
        except WaitExpiredError:
            pass
        else:
            return True
    _signal(process, signal.SIGKILL)
    _await_end(process, KILL_TIMEOUT_S)
    return False


def _await_end(process: Process, timeout_s: float) -> None:
    what = f"the end of {process.name} (pid {process.pid})"
    wait_until(lambda: not is_alive(process), timeout_s=timeout_s, every_s=0.02, what=what)


def _signal(process: Process, number: signal.Signals) -> None:
    if is_alive(process):
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)


def pause(process: Process) -> None:
    """Freeze a process (SIGSTOP) until ``resume``."""
    _signal(process, signal.SIGSTOP)


def resume(process: Process) -> None:
    """Let a paused process go on (SIGCONT)."""
    _signal(process, signal.SIGCONT)


def leftovers(directory: Path) -> tuple[Process, ...]:
    """Return the processes that carry this folder's mark, oldest first, whatever the state file says.

    They cover the moment between a start and the write of the state file.
    """
    mark = f"{MARK}={directory}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
            name = (entry / "comm").read_text(encoding="ascii", errors="replace").strip()
        except OSError:  # gone, or another user's
            continue
        if mark in variables:
            found.append(identify(name, int(entry.name)))
    return tuple(sorted(found, key=lambda process: (process.started_ticks, process.pid)))


def reap(directory: Path) -> tuple[str, ...]:
    """End everything that still runs for this folder, last started first.

    Returns:
        The names of what had to be killed, in stop order.
    """
    state = read_state(directory) or State()
    killed = []
    for process in reversed(state.processes):
        if is_alive(process) and not stop(process):
            killed.append(process.name)
    for process in reversed(leftovers(directory)):
        if is_alive(process) and not stop(process):
            killed.append(process.name)
    return tuple(killed)
