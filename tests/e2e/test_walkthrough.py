"""The README's walk-through as a stranger does it: its own blocks, in order, in one shell.

What a block prints is kept for the report only; what came of it is read from the cluster.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

from remediator.cli.exits import BLOCKED
from remediator.fleet.node_objects import LABEL_POOL, Object
from remediator.fleet.workloads import (
    Workload,
)
from remediator.testbed import lifecycle, processes
from remediator.testbed.api import Api
from remediator.testbed.stage import NODES, RUNS
from remediator.testbed.waiting import wait_until
from remediator.testbed.workloads import (
    pending_pods,
    running_pods,
)

ROOT: Final = Path(__file__).resolve().parents[2]
README: Final = ROOT / "README.md"
OURS: Final = "remediator.dev/"
BLOCK_S_MAX: Final = 240.0
SWAPPED: Final = "gpu-b-02"
SPARE: Final = "gpu-b-08"
HELD: Final = "gpu-c-03"

pytestmark = pytest.mark.timeout(900)


def sections() -> dict[int, list[str]]:
    """The shell blocks of the walk-through by the number of their section, in order."""
    text = README.read_text().partition("\n## Walk-through\n")[2].partition("\n## ")[0]
    found: dict[int, list[str]] = {}
    for part in text.split("\n### ")[1:]:
        number = int(part.partition(".")[0])
        found[number] = re.findall(r"^```sh\n(.*?)^```$", part, re.DOTALL | re.MULTILINE)
    return found


class Shell:
    """One bash, which stops at the first command that fails, as a careful reader would.

    That `why` exits with 11 where a gate stops something is an answer, no failure.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._log = directory / "shell.log"
        self._blocks = 0
        environment = {key: value for key, value in os.environ.items() if not key.startswith("KUBECONFIG")}
        environment.pop("REMEDIATOR_TESTBED", None)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["bash", "-u", "-o", "pipefail", "-s"],
                cwd=ROOT,
                env={**environment, "XDG_STATE_HOME": str(directory), "NO_COLOR": "1"},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

        self._send(f'trap \'code=$?; [ "$code" -eq {BLOCKED} ] || exit "$code"\' ERR\n')

    def _send(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())
        self._process.stdin.flush()

    def run(self, block: str) -> str:
        """Run one block to its end; return what it printed."""
        self._blocks += 1
        seen = self._log.stat().st_size
        script, done = (self._directory / f"block-{self._blocks}.{end}" for end in ("sh", "done"))
        script.write_text(block)
        # A command of the block that reads its standard input must not eat what comes next.
        self._send(f". '{script}' < /dev/null\ntouch '{done}'\n")
        wait_until(
            lambda: done.exists() or self._process.poll() is not None,
            timeout_s=BLOCK_S_MAX,
            what=f"the end of the block\n{block}",
            detail=lambda: self._log.read_text(errors="replace")[-4_000:],
        )
        printed = self._log.read_bytes()[seen:].decode(errors="replace")
        assert done.exists(), f"exit {self._process.poll()} in the block\n{block}\n{printed}"
        return printed

    def end(self) -> None:
        """End the shell and what it left in the background."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        self._process.wait(30)


@pytest.fixture
def bed(tmp_path: Path) -> Path:
    """Where `testbed up` puts itself in the shell."""
    return lifecycle.default_directory({"XDG_STATE_HOME": str(tmp_path)})


@pytest.fixture
def shell(tmp_path: Path, bed: Path) -> Iterator[Shell]:
    opened = Shell(tmp_path)
    yield opened
    opened.end()
    processes.reap(bed)


@pytest.mark.skipif(
    not (ROOT / ".venv/bin/remediator").exists(), reason="the README runs .venv/bin/remediator: make venv"
)
def test_walk_through_as_written(control_plane_binaries: object, shell: Shell, bed: Path):
    """By copy and paste from an empty machine to a swapped node, and back to nothing."""
    blocks = sections()
    assert list(blocks) == [1, 2, 3, 4, 5, 6]

    play(shell, blocks[1])
    api = Api.from_kubeconfig(bed / "kubeconfig" / "admin.kubeconfig")
    assert len(api.list(NODES)) == 66
    assert len(running_pods(api)) == Workload().pods(66)

    play(shell, blocks[2])
    play(shell, blocks[3])
    check_audit_touched_nothing(api)

    play(shell, blocks[4])
    check_swapped(api)

    asked, resumed = blocks[5]
    said = shell.run(asked)
    assert runs_of(api, HELD) == []
    assert "gate hold stops it" in said
    assert "gate pause stops it" in said
    shell.run(resumed)
    assert is_quarantined(node_of(api, HELD))

    left, gone = blocks[6]
    shell.run(left)
    check_nothing_of_ours_is_left(api)
    api.close()
    shell.run(gone)
    assert processes.leftovers(bed) == ()


def play(shell: Shell, blocks: list[str]) -> None:
    assert blocks, "a section without a block"
    for block in blocks:
        shell.run(block)


def check_audit_touched_nothing(api: Api) -> None:
    """One record of what it would do; the node as it was."""
    run, node = *runs_of(api, SWAPPED), node_of(api, SWAPPED)

    assert (run["spec"]["mode"], run["status"]["state"]) == ("Audit", "WouldAct")
    assert marks_of(node) == []
    assert node["metadata"]["labels"][LABEL_POOL] == "train"


def check_swapped(api: Api) -> None:
    """The spare serves, the machine was rebooted and is a spare, the workload lost nothing."""
    enforced = [run for run in runs_of(api, SWAPPED) if run["spec"]["mode"] == "Enforce"]
    machine, spare = node_of(api, SWAPPED), node_of(api, SPARE)
    wait_until(
        lambda: len(running_pods(api)) == Workload().pods(66) and not pending_pods(api),
        timeout_s=60,
        what="the workload to run in full",
    )

    assert [run["status"]["state"] for run in enforced] == ["Returned"]
    assert machine["metadata"]["labels"][LABEL_POOL] == "buffer"
    assert spare["metadata"]["labels"][LABEL_POOL] == "train"
    assert machine["status"]["nodeInfo"]["bootID"] != enforced[0]["spec"]["bootId"]
    assert not is_quarantined(machine)


def check_nothing_of_ours_is_left(api: Api) -> None:
    """Stopped in mid-run, and yet no node and no Lease carries a mark of ours."""
    held = node_of(api, HELD)

    assert [marks_of(node) for node in api.list(NODES) if marks_of(node)] == []
    assert held["metadata"]["labels"][LABEL_POOL] == "train"
    assert not held["spec"].get("unschedulable")
    assert api.list("/apis/coordination.k8s.io/v1/namespaces/remediator/leases") == []


def node_of(api: Api, name: str) -> Object:
    return api.get(f"{NODES}/{name}")


def runs_of(api: Api, node: str) -> list[Object]:
    return [run for run in api.list(RUNS) if run["spec"]["node"]["name"] == node]


def is_quarantined(node: Object) -> bool:
    return any(taint["key"] == f"{OURS}quarantine" for taint in node["spec"].get("taints", []))


def marks_of(node: Object) -> list[str]:
    """Keys of ours on a Node."""
    metadata = node["metadata"]
    keys = [*metadata.get("labels", {}), *metadata.get("annotations", {})]
    keys += [taint["key"] for taint in node["spec"].get("taints", [])]
    return sorted(key for key in keys if key.startswith(OURS))


def test_links_of_the_readme_lead_somewhere():
    """A page that moved would leave a stranger in the dark."""
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", README.read_text())

    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
