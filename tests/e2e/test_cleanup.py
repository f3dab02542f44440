"""The way out, when it is needed most: the controller was killed in the middle of a drain."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any, Final

import pytest

from remediator.testbed.binaries import Binaries
from remediator.testbed.node_edits import is_settled
from remediator.testbed.stage import NODES, POLICY, Stage
from remediator.testbed.waiting import wait_until
from tests.e2e.access import as_user
from tests.e2e.small_world import BAD, OURS, SPARE, open_fleet
from tests.e2e.verdict import QUARANTINE, pool_of

CLI_PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "cli.md"
LEASE: Final = "/apis/coordination.k8s.io/v1/namespaces/remediator/leases/remediator"
LEASE_S: Final = 5.0
PRESSES_MAX: Final = 3
HELD: Final = "gpu-a-02"
STUCK: Final = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "stuck", "namespace": "default"},
    "spec": {
        "nodeName": BAD,
        "tolerations": [{"operator": "Exists"}],
        "containers": [{"name": "main", "image": "registry.example.com/bare:v1"}],
    },
}

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def stage(control_plane_binaries: Binaries, tmp_path: Path) -> Iterator[Stage]:
    with Stage(tmp_path / "stage", control_plane_binaries, specs=open_fleet()) as found:
        yield found


def test_cleanup_after_a_kill_in_mid_drain_leaves_the_cluster_as_before(stage: Stage, tmp_path: Path) -> None:
    """Whoever gives us up does it on a bad day; nobody should have to look for our marks by hand."""
    before = snapshot(stage)
    run = kill_in_mid_drain(stage)
    cleaner = as_user(stage, "carol", tmp_path / "kubeconfig", role=documented_role(stage))

    listed = stage.cli("cleanup", "--dry-run", kubeconfig=cleaner)
    assert listed.returncode == 0, listed.stderr
    lines = {line.partition(": ")[0]: line for line in listed.stdout.splitlines()}
    for word in (
        f"taint {QUARANTINE}",
        "our cordon",
        *(f"annotation {OURS}{key}" for key in ("prior", "run")),
    ):
        assert word in lines[f"node/{BAD}"]
    for word in (f"label {OURS}opt-out", f"annotation {OURS}hold"):
        assert word in lines[f"node/{HELD}"]
    assert lines["remediationpolicy/cluster"].endswith(f"1 grant ({run})")
    assert f"lease/remediator in remediator, held by {holder(stage)}" in listed.stdout
    assert "nothing was done" in listed.stderr
    check_all_is_left(stage)

    refused = run_without_terminal(cleaner)
    assert refused.returncode == 2
    assert "add --yes" in refused.stderr
    check_all_is_left(stage)

    no = answer_on_a_terminal(cleaner, "n\n")
    assert no.returncode == 1
    assert f"Take away all of this from {stage.cluster.layout.server}?" in no.stderr
    assert "nothing was done" in no.stderr
    check_all_is_left(stage)

    code, words = interrupt_at_the_question(cleaner)
    assert code == 130
    assert words.splitlines()[-1] == "error: interrupted"
    check_all_is_left(stage)

    done = answer_on_a_terminal(cleaner, "y\n")
    assert done.returncode == 0, done.stderr
    for what in (f"node/{BAD}", f"node/{HELD}", "remediationpolicy/cluster grants", "lease/remediator"):
        assert f"{what} cleaned" in done.stdout
    check_as_before(stage, before)
    again = stage.cli("cleanup", "--yes", kubeconfig=cleaner)
    assert (again.returncode, "nothing to take away" in again.stdout) == (0, True)


def kill_in_mid_drain(stage: Stage) -> str:
    """A run that waits in its drain, marks of people on another node, and nobody alive. Returns the run."""
    stage.api.create("/api/v1/namespaces/default/pods", STUCK)
    stage.start_controller(lease_seconds=LEASE_S)
    stage.exporters.inject_xid(BAD, 5, 79)
    run = stage.wait_run(BAD, "Blocked")
    good = stage.cli("hold", HELD, "--for", "4h", "--reason", "vendor on site")
    assert good.returncode == 0, good.stderr
    stage.cluster.kubectl("label", "node", HELD, f"{OURS}opt-out=true")
    stage.stop_controller(crash=True)
    return str(run["metadata"]["name"])


def documented_role(stage: Stage) -> str:
    """The role that the manual names, as it stands there; nothing else is granted."""
    leaving = CLI_PAGE.read_text().partition("\n## Leaving\n")[2].partition("\n## ")[0]
    (manifest,) = re.findall(r"^```yaml\n(.*?)^```$", leaving, re.DOTALL | re.MULTILINE)
    stage.cluster.kubectl("apply", "-f", "-", stdin=manifest)
    return "remediator-cleanup"


def run_without_terminal(user: Path) -> subprocess.CompletedProcess[str]:
    """Call it as a script does. While the dead leader's Lease still runs, it must refuse for that."""

    def look() -> subprocess.CompletedProcess[str] | None:
        done = cleanup(user, stdin=DEVNULL)
        if "still leads; stop it first" not in done.stderr:
            return done
        assert done.returncode == 1
        return None

    return wait_until(look, timeout_s=LEASE_S + 60, what="the end of the dead leader's Lease")


def answer_on_a_terminal(user: Path, answer: str) -> subprocess.CompletedProcess[str]:
    """Call it as a person does, who has typed the answer already."""
    terminal, program_s = pty.openpty()
    try:
        os.write(terminal, answer.encode())
        return cleanup(user, stdin=program_s)
    finally:
        os.close(terminal)
        os.close(program_s)


def interrupt_at_the_question(user: Path) -> tuple[int, str]:
    """Press Ctrl-C while it waits for an answer. Returns its exit code, and what it said to the person."""
    terminal, program_s = pty.openpty()
    said = ""
    try:
        asking = subprocess.Popen(
            cleanup_command(user), stdin=program_s, stdout=DEVNULL, stderr=PIPE, text=True
        )
        with asking:
            assert asking.stderr is not None
            while "[y/N]" not in said and (letter := asking.stderr.read(1)):
                said += letter
            for _ in range(PRESSES_MAX):
                asking.send_signal(signal.SIGINT)
                # Pressed in the instant before it begins to wait for a line, it is noticed with the next one.
                with suppress(subprocess.TimeoutExpired):
                    asking.wait(10)
                    break
            else:
                asking.kill()
            said += asking.stderr.read()
    finally:
        os.close(terminal)
        os.close(program_s)
    return asking.returncode, said


def cleanup_command(user: Path) -> list[str]:
    return [sys.executable, "-m", "remediator", "cleanup", "--kubeconfig", str(user)]


def cleanup(user: Path, *, stdin: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        cleanup_command(user), stdin=stdin, capture_output=True, text=True, timeout=60, check=False
    )


def snapshot(stage: Stage) -> dict[str, Any]:
    """What people and we may change on nodes, by name; a taint's time of adding is the server's."""
    return {
        node["metadata"]["name"]: {
            "labels": node["metadata"]["labels"],
            "annotations": node["metadata"].get("annotations", {}),
            "taints": [
                {key: value for key, value in taint.items() if key != "timeAdded"}
                for taint in node["spec"].get("taints", [])
            ],
            "unschedulable": bool(node["spec"].get("unschedulable")),
        }
        for node in stage.api.list(NODES)
    }


def check_all_is_left(stage: Stage) -> None:
    """A list and a refusal take nothing away."""
    node = stage.node(BAD)
    assert node["spec"]["unschedulable"]
    assert any(taint["key"] == QUARANTINE for taint in node["spec"]["taints"])
    assert f"{OURS}hold" in stage.node(HELD)["metadata"]["annotations"]
    assert stage.api.get(POLICY)["status"]["grants"]
    assert stage.api.find(LEASE) is not None


def check_as_before(stage: Stage, before: dict[str, Any]) -> None:
    """Every node is as it was, but the spare, which serves in the pool that it was handed to."""
    wait_until(
        lambda: all(is_settled(node) for node in stage.api.list(NODES)),
        timeout_s=30,
        what="node lifecycle to take its own taint off the uncordoned node",
    )
    after = snapshot(stage)
    assert pool_of(stage.node(SPARE)) == "train"
    for name in before.keys() - {SPARE}:
        assert after[name] == before[name], name
    for marks in (after[SPARE]["labels"], after[SPARE]["annotations"]):
        assert not [key for key in marks if key.startswith(OURS)]
    assert not stage.api.get(POLICY)["status"].get("grants")
    assert stage.api.find(LEASE) is None


def holder(stage: Stage) -> str:
    return str(stage.api.get(LEASE)["spec"]["holderIdentity"])
