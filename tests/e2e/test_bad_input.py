"""Bad input from people, nodes and exporters: a clear word each, others unaffected, nothing half done."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from remediator.app.manifests import deploy_directory
from remediator.fleet.layout import (
    standard_fleet,
)
from remediator.testbed.launcher import ControlPlane
from remediator.testbed.stage import (
    GROUP,
    NODES,
    Stage,
)
from remediator.testbed.waiting import wait_until
from tests.e2e import verdict

UNREACHABLE = 20
WRONG_USAGE = 2


def run_controller(kubeconfig: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Start the controller and wait for it to give up."""
    command = [
        *(sys.executable, "-m", "remediator", "run", "--kubeconfig", str(kubeconfig)),
        *("--host", "127.0.0.1", "--port", "0", "--log-format", "json", *arguments),
    ]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "NO_COLOR": "1"}
    )


def test_missing_kubeconfig_is_named(tmp_path: Path) -> None:
    """The first thing that goes wrong on a new machine."""
    done = run_controller(tmp_path / "nowhere")
    assert done.returncode == WRONG_USAGE
    assert str(tmp_path / "nowhere") in done.stderr
    assert "Traceback" not in done.stderr


def test_unreadable_kubeconfig_is_named_with_its_line(tmp_path: Path) -> None:
    """Not YAML is not the same as not there."""
    path = tmp_path / "kubeconfig"
    path.write_text("clusters:\n  - {name: [\n")
    done = run_controller(path)
    assert done.returncode == WRONG_USAGE
    assert str(path) in done.stderr
    assert "Traceback" not in done.stderr


def test_api_server_away_is_said_and_ends_the_process(tmp_path: Path, control_plane: ControlPlane) -> None:
    """A Deployment starts it again; a person reads which server did not answer."""
    text = control_plane.kubeconfig.read_text().replace(str(control_plane.layout.api), "1")
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    done = run_controller(path)
    assert done.returncode == UNREACHABLE
    assert "127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_ca_is_told_apart_from_a_server_that_is_away(
    tmp_path: Path, control_plane: ControlPlane, quick_control_plane: ControlPlane
) -> None:
    """The server answers, but it is not the one that this kubeconfig trusts."""
    texts = [plane.kubeconfig.read_text() for plane in (control_plane, quick_control_plane)]
    here, there = (
        re.findall(r'certificate-authority-data[": ]+([A-Za-z0-9+/=]+)', text)[0] for text in texts
    )
    path = tmp_path / "kubeconfig"
    path.write_text(texts[0].replace(here, there))
    done = run_controller(path)
    assert done.returncode == UNREACHABLE
    assert "certificate" in done.stderr


def test_missing_kinds_name_the_command_that_installs_them(quick_control_plane: ControlPlane) -> None:
    """Nothing is installed by itself."""
    done = run_controller(quick_control_plane.kubeconfig)
    assert done.returncode == UNREACHABLE
    assert "kubectl apply -f deploy/crds" in done.stderr


def test_missing_rights_are_named_rule_by_rule(tmp_path: Path, control_plane: ControlPlane) -> None:
    """A 403 in the middle of the night tells less than a list at the start."""
    crds = str(deploy_directory() / "crds")
    control_plane.kubectl("apply", "-f", crds)
    control_plane.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", crds)
    control_plane.kubectl("create", "namespace", "bare")
    control_plane.kubectl("-n", "bare", "create", "serviceaccount", "powerless")
    path = tmp_path / "kubeconfig"
    control_plane.admin().service_account_kubeconfig("bare", "powerless", path)
    done = run_controller(path)
    assert done.returncode == UNREACHABLE
    assert "watch nodes" in done.stderr
    assert "kubectl apply -k deploy/base" in done.stderr


@pytest.mark.timeout(180)
def test_without_a_policy_everything_is_audit(stage: Stage) -> None:
    """Somebody deletes the policy: no limit is not "unlimited", it is "nothing"."""
    stage.stop_controller()
    stage.cluster.kubectl("delete", "rpol", "cluster")
    stage.start_controller(pages=False)
    stage.hardware.set_condition("gpu-a-01", "KernelDeadlock", "True", "Hung")
    stage.wait_run("gpu-a-01", "WouldAct", timeout_s=60)
    assert not verdict.our_writes(stage, "nodes")


@pytest.mark.timeout(240)
def test_strange_nodes_and_pages_stop_nobody_else(stage: Stage) -> None:
    """Every odd object and page at once; a healthy fault beside them is repaired all the same."""
    strange = ("odd-bare", "odd-many", "odd-twice")
    odd = [spec.name for spec in standard_fleet() if spec.name.startswith("gpu-h-")]
    stage.exporters.empty(odd[0])
    stage.exporters.html(odd[1])
    stage.exporters.binary(odd[2])
    stage.exporters.endless(odd[3])
    stage.exporters.slow(odd[4], 30.0)
    stage.exporters.malformed(odd[5])
    many = {f"example.com/label-{number}": "x" * 60 for number in range(200)}
    hung = [_condition("KernelDeadlock", "True")]
    stage.api.create(NODES, _bare_node("odd-bare", labels={}, conditions=hung))
    stage.api.create(NODES, _bare_node("odd-many", labels=many, conditions=hung))
    twice = [_condition("KernelDeadlock", "False"), _condition("KernelDeadlock", "True")]
    stage.api.create(NODES, _bare_node("odd-twice", labels={}, conditions=twice))
    stage.hardware.set_condition("gpu-g-01", "NobodyKnowsThis", "True", "Strange")

    stage.exporters.inject_xid("gpu-b-02", 5, 79)
    stage.wait_run("gpu-b-02", "Returned", timeout_s=120)

    assert stage.controller_alive
    for node in strange:  # of a condition that stands twice the worse one counts
        assert_no_pool(stage, node)
    assert "stands twice on the Node, also False" in _words(stage, "why", "odd-twice")
    why = _words(stage, "why", "gpu-g-01")
    assert "not judged: NobodyKnowsThis=True" in why
    assert "RemediationPolicy/cluster spec.conditions" in why, "and where to say what is good"
    told = ("empty", "<!doctype html", "binary", "of more than|within", "within")
    for name, said in zip(odd, told, strict=False):  # the last one's page is read
        assert_page_told(stage, name, said)
    # A GPU that is named on a bad line has no values: that much is unknown, and nothing else.
    assert "can't see, no DCGM_FI_DEV_ROW_REMAP_FAILURE of GPU 0 (GPU-no-value)" in _words(
        stage, "why", odd[5]
    )
    _, metrics = stage.controller.ask("/metrics")
    counted = re.findall(r'^remediator_page_failures_total{reason="(\w+)"} (\S+)$', metrics, re.M)
    failed = {reason for reason, count in counted if float(count) > 0}
    assert failed >= {"NotMetrics", "TooLarge", "TimedOut"}, counted
    assert_pools_tell(stage, odd[:5])
    assert_nothing_done(stage, *odd, *strange, "gpu-g-01")


def assert_no_pool(stage: Stage, node: str) -> None:
    """A node outside of every pool: its fault is seen, and the Event names the gate that keeps us off."""
    wait_until(lambda: "NoPool" in stage.told(node), timeout_s=60, what=f"the Event NoPool of {node}")
    # Asked for by name: a command's own clock of the condition begins with the command.
    why = stage.cli("why", node, "--playbook", "kernel-deadlock")
    assert why.returncode == 11, why.stdout
    assert "the node is a member of no ResourcePool" in " ".join(why.stdout.split())


def assert_page_told(stage: Stage, node: str, said: str) -> None:
    """The controller's log names the node and what is wrong with its page; `why` says who can't see."""
    reasons = [line["reason"] for line in stage.controller.lines("page not read") if line["node"] == node]
    assert len(reasons) == 1, f"told once, not at every try: {reasons}"
    assert re.search(said, reasons[0]), reasons
    why = _words(stage, "why", node)
    assert re.search(f"can't see, .*({said}).*gpu-off-bus/xid", why), why


def assert_pools_tell(stage: Stage, nodes: list[str]) -> None:
    """The condition on the pools names each node whose page can't be read, and a fix each."""
    found = [
        each["message"]
        for pool in stage.api.list(f"{GROUP}/resourcepools")
        for each in pool["status"]["conditions"]
        if (each["type"], each["status"]) == ("ExporterPages", "False")
    ]
    told = "; ".join(found)
    assert all(node in told for node in nodes), told
    assert "lead to something else" in told
    assert "timeout in RemediationPolicy/cluster spec.exporter" in told


def assert_nothing_done(stage: Stage, *nodes: str) -> None:
    """No run, no grant, and no write to the Node was even tried."""
    written = {record.object_ref.name for record in verdict.our_writes(stage, "nodes")}
    assert not written & set(nodes)
    for node in nodes:
        assert not stage.runs(node), node
        assert verdict.taint_of(stage.node(node)) is None, f"{node}: unknown is not sick"
    assert not {stage.node(node)["metadata"]["uid"] for node in nodes} & verdict.granted(stage)


def _words(stage: Stage, *command: str) -> str:
    """What a command prints, without its line breaks."""
    return " ".join(stage.cli(*command).stdout.split())


@pytest.mark.timeout(180)
def test_overlapping_pools_say_so(stage: Stage) -> None:
    """Two pools with one membership label: neither is Ready, and the condition names the other."""
    stage.api.create(
        f"{GROUP}/resourcepools",
        {
            "apiVersion": "remediator.dev/v1alpha1",
            "kind": "ResourcePool",
            "metadata": {"name": "train-again"},
            "spec": {"role": "Workload", "membership": {"key": "example.com/pool", "value": "train"}},
        },
    )

    def told() -> bool:
        pools = {pool["metadata"]["name"]: pool for pool in stage.api.list(f"{GROUP}/resourcepools")}
        conditions = pools["train"].get("status", {}).get("conditions", [])
        found = [each["message"] for each in conditions if each["reason"] == "PoolOverlap"]
        return any("train-again" in message for message in found)

    wait_until(told, timeout_s=40, what="the condition PoolOverlap")


def _bare_node(name: str, *, labels: dict[str, str], conditions: list[dict[str, str]]) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "status": {"conditions": conditions},
    }


def _condition(type_: str, status: str) -> dict[str, str]:
    at = "2026-01-01T00:00:00Z"
    return {
        "type": type_,
        "status": status,
        "reason": "Odd",
        "message": "odd",
        "lastHeartbeatTime": at,
        "lastTransitionTime": at,
    }
