"""The simulated cluster on a socket, as people with kubectl and our own commands meet it."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from remediator.testbed.binaries import Binaries
from remediator.testbed.waiting import wait_until

START_S_MAX: Final = 30.0
SPEED: Final = "20"
MANIFEST: Final = "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: notes}}\ndata: {{text: {text}}}\n"

pytestmark = pytest.mark.timeout(300)


class Served:
    """One served cluster; everything that is asked of it goes through a program."""

    def __init__(self, directory: Path, binaries: Binaries) -> None:
        self.kubeconfig = directory / "kubeconfig"
        self._kubectl = binaries.path("kubectl")
        self._environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig), "HOME": str(directory)}

    def kubectl(self, *words: str, given: str = "", fails: bool = False) -> str:
        """What kubectl prints; its complaint where it is to fail."""
        return self._run([str(self._kubectl), *words], given, fails)

    def remediator(self, *words: str, fails: bool = False) -> str:
        return self._run([sys.executable, "-m", "remediator", *words], "", fails)

    def get(self, *words: str) -> Any:
        return json.loads(self.kubectl("get", *words, "-o", "json"))

    def _run(self, command: list[str], given: str, fails: bool) -> str:
        done = subprocess.run(
            command,
            env=self._environment,
            input=given,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert (done.returncode != 0) is fails, f"{command}: {done.stdout}\n{done.stderr}"
        return done.stderr if fails else done.stdout

    def follow(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(self._kubectl), *words], env=self._environment, stdout=subprocess.PIPE, text=True
        )


@pytest.fixture(scope="module")
def served(control_plane_binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two racks of GPU nodes, everything in Enforce, twenty times as fast as life."""
    directory = tmp_path_factory.mktemp("sim")
    command = [sys.executable, "-m", "remediator", "sim", "serve", "--directory", str(directory)]
    command += ["--racks", "2", "--enforce", "--speed", SPEED]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        lines = [next_line(process) for _ in range(3)]
        assert "serving 18 nodes" in lines[0], lines
        assert "of the controller runs" in lines[2], lines
        yield Served(directory, control_plane_binaries)
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=20)
        assert process.returncode == 0, rest
        assert (directory / "audit.log").stat().st_size > 0


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], START_S_MAX)[0], "not a word"
    return process.stdout.readline()


def test_kubectl_shows_the_columns_that_people_know(served: Served) -> None:
    """Who looks at nodes all day must not have to look twice."""
    nodes = served.kubectl("get", "nodes", "-o", "wide").splitlines()
    assert nodes[0].split()[:5] == ["NAME", "STATUS", "ROLES", "AGE", "VERSION"]
    assert re.match(r"gpu-a-01 +Ready +<none> +\d+[smh]", nodes[1])
    assert len(nodes) == 19
    books = served.kubectl("get", "rpb").splitlines()
    assert books[0].split() == ["NAME", "MODE", "FAULT", "MATCHING", "ACTIVE", "PAUSED-BY", "READY", "AGE"]
    assert re.match(r"gpu-double-bit-ecc +Enforce +gpu.ecc +16 +0 +True", books[1])
    pods = served.kubectl("get", "pods", "-A", "--field-selector", "spec.nodeName=gpu-a-01")
    assert len(pods.splitlines()) > 1


def test_kubectl_describes_a_node_with_its_pods_and_events(served: Served) -> None:
    """Pods, Lease and Events come from three other kinds, one of them by an older name."""
    served.remediator("sim", "happen", "Xid", "gpu-a-02", "--value", "79")
    wait_until(
        lambda: any(run["spec"]["node"]["name"] == "gpu-a-02" for run in served.get("rmd")["items"]),
        timeout_s=30.0,
        every_s=0.5,
        what="a run on gpu-a-02",
    )
    wait_until(
        lambda: "Quarantined" in served.kubectl("describe", "node", "gpu-a-02"),
        timeout_s=30.0,
        every_s=0.5,
        what="the Event of the quarantine",
    )
    told = served.kubectl("describe", "node", "gpu-a-02")
    assert "remediator.dev/quarantine=gpu-bus:NoSchedule" in told
    assert "node-agent-" in told
    assert "gpu-a-02" in served.remediator("status")
    assert "gpu-a-02" in served.kubectl("get", "events", "-A")


def test_kubectl_changes_a_node_and_follows_it(served: Served) -> None:
    """label, taint, cordon, patch, uncordon; each shows in a watch that began before."""
    watching = served.follow("get", "node", "gpu-b-01", "-w", "-o", "json", "--output-watch-events")
    assert watching.stdout is not None
    assert '"type":"ADDED"' in watching.stdout.readline()
    served.kubectl("label", "node", "gpu-b-01", "team=vision")
    served.kubectl("taint", "node", "gpu-b-01", "example.com/test=yes:NoSchedule")
    served.kubectl("cordon", "gpu-b-01")
    served.kubectl("patch", "node", "gpu-b-01", "-p", '{"metadata":{"annotations":{"example.com/note":"x"}}}')
    node = served.get("node", "gpu-b-01")
    assert node["metadata"]["labels"]["team"] == "vision"
    assert node["metadata"]["annotations"]["example.com/note"] == "x"
    assert {"key": "example.com/test", "value": "yes", "effect": "NoSchedule"} in node["spec"]["taints"]
    assert node["spec"]["unschedulable"]
    served.kubectl("uncordon", "gpu-b-01")
    served.kubectl("taint", "node", "gpu-b-01", "example.com/test-")
    with watching:
        seen = [watching.stdout.readline() for _ in range(6)]
        watching.terminate()
    assert all('"type":"MODIFIED"' in line for line in seen)
    assert any('"unschedulable":true' in line for line in seen)


def test_kubectl_drains_a_node_and_waits_for_it(served: Served) -> None:
    """A drain asks discovery how to evict, and then waits for each pod's end."""
    told = served.kubectl("drain", "gpu-b-02", "--ignore-daemonsets", "--timeout=60s")
    assert "evicted" in told
    assert "gpu-b-02 drained" in told
    selector = "spec.nodeName=gpu-b-02"
    left = served.get("pods", "-A", "--field-selector", selector)["items"]
    assert {pod["metadata"]["ownerReferences"][0]["kind"] for pod in left} == {"DaemonSet"}
    served.kubectl("uncordon", "gpu-b-02")
    served.kubectl("wait", "--for=condition=Ready", "node/gpu-b-02", "--timeout=10s")


def test_kubectl_deletes_and_waits_for_the_end(served: Served) -> None:
    """A pod's end takes its kubelet; a Node is gone at once."""
    told = served.kubectl("delete", "pod", "-n", "workload", "frontend-0", "--timeout=30s")
    assert "deleted" in told
    served.kubectl("delete", "node", "gpu-b-03")
    assert "NotFound" in served.kubectl("get", "node", "gpu-b-03", fails=True)


def test_kubectl_applies_what_it_applied_before(served: Served) -> None:
    """Apply asks for the OpenAPI documents before it sends anything."""
    assert "created" in served.kubectl("apply", "-f", "-", given=MANIFEST.format(text="one"))
    assert "configured" in served.kubectl("apply", "-f", "-", given=MANIFEST.format(text="two"))
    assert served.get("configmap", "notes")["data"] == {"text": "two"}
    broken = served.kubectl("get", "rpb", "gpu-off-bus", "-o", "json").replace('"Enforce"', '"Enfroce"')
    assert "Enfroce" in served.kubectl("apply", "-f", "-", given=broken, fails=True)


def test_what_cannot_happen_is_refused_with_the_fix(served: Served) -> None:
    """A typo must not look like a node that is well."""
    assert "Invalid enum value 'Xod'" in served.remediator("sim", "happen", "Xod", "gpu-a-01", fails=True)
    told = served.remediator("sim", "happen", "Xid", "gpu-z-01", "--value", "79", fails=True)
    assert "'gpu-z-01' is no GPU node of this fleet" in told
    told = served.remediator("sim", "happen", "PageTrouble", "gpu-a-01", "--detail", "dwon", fails=True)
    assert "write one of down, html" in told
    assert "end the controller's process yourself" in served.remediator(
        "sim", "happen", "KillLeader", fails=True
    )
