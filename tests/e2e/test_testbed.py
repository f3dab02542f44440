"""The life of a control plane against its promises, on the real programs: start, stop, crash, restart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from remediator.errors import PermanentError
from remediator.testbed import processes
from remediator.testbed.api import Api, ConnectionFailedError
from remediator.testbed.components import START_ORDER, Options
from remediator.testbed.launcher import ControlPlane, StartError
from remediator.testbed.waiting import wait_until


def test_every_component_is_up_and_kubectl_agrees_on_the_version(control_plane):
    """A placeholder version makes clients misjudge the skew."""
    version = json.loads(control_plane.kubectl("version", "-o", "json").stdout)
    serving = [name for name in START_ORDER if processes.is_alive(control_plane.process(name))]

    assert serving == list(START_ORDER)
    assert version["serverVersion"]["gitVersion"] == version["clientVersion"]["gitVersion"] == "v1.36.4"


def test_start_and_stop_leave_nothing_behind_and_disturb_no_other(
    control_plane, api, control_plane_binaries, tmp_path
):
    """Two at once, in any order of start and stop, and everything on loopback."""
    second = ControlPlane(tmp_path / "second", control_plane_binaries, Options())
    with second:
        mine = [second.process(name).pid for name in START_ORDER]
        client = second.admin()
        client.create("/api/v1/namespaces", {"metadata": {"name": "only-here"}})
        listening = _listening_addresses(mine)
        client.close()

    assert listening == {"127.0.0.1"}
    assert processes.leftovers(second.directory) == ()
    assert api.find("/api/v1/namespaces/only-here") is None
    assert processes.is_alive(control_plane.process("etcd"))


def _listening_addresses(pids: list[int]) -> set[str]:
    inodes = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            target = os.readlink(descriptor)
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pids[0]}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                address = fields[1].partition(":")[0]
                found.add("127.0.0.1" if address == "0100007F" else address)
    return found


def test_launcher_killed_leaves_nothing(control_plane_binaries, tmp_path):
    """A test run that is killed with -9 must not leave a gigabyte of servers behind."""
    script = f"""
import sys, time
from pathlib import Path
from remediator.testbed.binaries import Binaries
from remediator.testbed.launcher import ControlPlane
programs = Binaries(Path({str(control_plane_binaries.directory)!r}), {{}})
ControlPlane(Path({str(tmp_path / "one")!r}), programs).start()
print("started", flush=True)
time.sleep(600)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env=_environment()
    ) as launcher:
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == b"started\n"
        before = processes.leftovers(tmp_path / "one")
        launcher.kill()

    assert len(before) == len(START_ORDER)
    wait_until(
        lambda: not processes.leftovers(tmp_path / "one"), timeout_s=60, every_s=0.2, what="the end of all"
    )


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(processes.__file__).parents[2])}


def test_up_status_down_by_command(control_plane_binaries, tmp_path):
    """What a person types: it outlives the command, says how it is, and goes when told."""
    directory = tmp_path / "standing"

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "remediator.testbed", *words, "--directory", str(directory)]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=120, env=_environment(), check=False
        )

    before = run("status")
    started = run("up")
    try:
        again = run("up")
        shown = run("status")
        kubeconfig = directory / "kubeconfig" / "admin.kubeconfig"
        namespaces = Api.from_kubeconfig(kubeconfig).list("/api/v1/namespaces")
        attached = ControlPlane.attach(directory, control_plane_binaries)
        alice = attached.kubectl("auth", "can-i", "get", "nodes", "--as=alice", check=False)
    finally:
        ended = run("down")

    assert (before.returncode, before.stdout) == (1, f"no test bed runs in {directory}\n")
    assert started.returncode == 0, started.stderr
    assert f"export KUBECONFIG={kubeconfig}\n" in started.stdout
    assert again.returncode == 1
    assert "a test bed runs in" in again.stderr
    assert shown.returncode == 0
    assert shown.stdout.count("  ok\n") == len(START_ORDER)
    assert len(namespaces) >= 4
    assert alice.stdout == "no\n"
    assert (ended.returncode, ended.stdout) == (0, "stopped\n")
    assert processes.leftovers(directory) == ()


def test_start_says_what_the_component_said_when_it_ends_at_once(control_plane_binaries, tmp_path):
    """A wrong flag must show its cause, not a time-out; and the parts started before it are gone."""
    options = Options(extra={"kube-apiserver": ("--no-such-flag",)})
    control_plane = ControlPlane(tmp_path / "wrong", control_plane_binaries, options)
    with pytest.raises(
        StartError, match=r"(?s)kube-apiserver ended \(exit 1\).*unknown flag: --no-such-flag"
    ):
        control_plane.start()

    assert processes.leftovers(control_plane.directory) == ()


def test_start_refuses_a_folder_that_is_not_its_own(control_plane_binaries, tmp_path):
    """It clears its folder before it starts: pointed at a home folder it must not."""
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(PermanentError, match="is not empty and holds no test bed"):
        ControlPlane(tmp_path, control_plane_binaries).start()

    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("crash", [False, True], ids=["stopped", "crashed"])
def test_component_comes_back_on_its_old_port(quick_control_plane, quick_api, crash):
    """Stories take the scheduler or the API server away and give it back."""
    began = quick_api.get("/version")
    for name in ("kube-scheduler", "kube-apiserver"):
        quick_control_plane.stop_component(name, crash=crash)
    with pytest.raises(ConnectionFailedError):
        quick_api.get("/version")
    for name in ("kube-apiserver", "kube-scheduler"):
        quick_control_plane.start_component(name)

    assert quick_api.get("/version") == began


def test_refused_start_leaves_the_running_one_alone(control_plane, control_plane_binaries):
    """A second launcher in the same folder must neither start nor, in its clean-up, stop anything."""
    second = ControlPlane(control_plane.directory, control_plane_binaries)
    with pytest.raises(PermanentError, match=r"runs in .* already"):
        second.start()
    stopped = second.stop()

    assert stopped == ()
    assert processes.is_alive(control_plane.process("kwok"))
