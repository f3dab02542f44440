"""The detached world: a fleet, its hardware and its workload that outlive the command which made them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from remediator.errors import PermanentError
from remediator.testbed import lifecycle, node_edits, processes, world
from remediator.testbed.api import Api
from remediator.testbed.components import Options
from remediator.testbed.launcher import ControlPlane
from remediator.testbed.node_edits import NODES
from remediator.testbed.waiting import wait_until

NODE = "gpu-c-03"


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "remediator", "testbed", *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def bed(control_plane_binaries: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a fleet that stands, without a workload."""
    directory = tmp_path_factory.mktemp("world") / "bed"
    started = command("up", "--quick", "--no-workload", "--directory", str(directory))
    try:
        assert started.returncode == 0, started.stderr
        yield directory
    finally:
        processes.reap(directory)


@pytest.fixture(scope="module")
def cluster(bed: Path) -> Iterator[Api]:
    client = Api.from_kubeconfig(bed / "kubeconfig" / "admin.kubeconfig")
    yield client
    client.close()


def page(bed: Path) -> list[str]:
    """The lines of one node's page, as the address for the policy names it."""
    address = world.exporter_address(bed).replace("{node}", NODE)
    with urlopen(address, timeout=10) as reply:
        return str(reply.read().decode()).splitlines()


def value(bed: Path, field: str, gpu: int) -> str:
    start = f'{field}{{gpu="{gpu}"'
    return next(line.rpartition(" ")[2] for line in page(bed) if line.startswith(start))


def do(bed: Path, *words: str) -> str:
    done = command(*words, "--directory", str(bed))
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_status_and_env_say_what_a_shell_needs(bed, cluster):
    """Copied and pasted; a machine without kubectl must do."""
    shown = do(bed, "status")
    script = f"{do(bed, 'env')}\nkubectl get --raw /readyz; echo; command -v remediator; echo $EXPORTER"
    path = "/usr/bin:/bin"
    shell = subprocess.run(
        ["bash", "-euc", script],
        env={"PATH": path, "HOME": str(bed)},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert "\nhardware" in shown
    assert shown.count("  ok\n") == 6
    assert shell.returncode == 0, shell.stderr
    assert shell.stdout.splitlines() == [
        "ok",
        str(Path(sys.executable).parent / "remediator"),
        world.exporter_address(bed),
    ]


def test_faults_of_a_page_come_and_go(bed):
    """What a person injects is what the exporter shows, on that GPU alone; healing takes all of it back."""
    do(bed, "inject", NODE, "--xid", "79", "--gpu", "5")
    do(bed, "inject", NODE, "--field", "DCGM_FI_DEV_ROW_REMAP_PENDING", "--value", "1")
    faulty = [value(bed, "DCGM_FI_DEV_XID_ERRORS", gpu) for gpu in (4, 5)]
    pending = [value(bed, "DCGM_FI_DEV_ROW_REMAP_PENDING", gpu) for gpu in (0, 1)]
    do(bed, "heal", NODE)

    assert (faulty, pending) == (["0", "79"], ["1", "0"])
    assert value(bed, "DCGM_FI_DEV_XID_ERRORS", 5) == "0"
    assert value(bed, "DCGM_FI_DEV_ROW_REMAP_PENDING", 0) == "0"


def test_condition_is_healed_to_what_it_was(bed, cluster):
    """A condition that is bad when False must come back as True."""
    do(bed, "inject", NODE, "--condition", "KernelDeadlock=True")
    do(bed, "inject", NODE, "--condition", "AcceleratedHardwareReady=False")
    faulty = cluster.get(f"{NODES}/{NODE}")
    do(bed, "heal", NODE)
    healed = cluster.get(f"{NODES}/{NODE}")

    assert node_edits.status_of(faulty, "KernelDeadlock") == "True"
    assert node_edits.status_of(healed, "KernelDeadlock") == "False"
    assert node_edits.status_of(healed, "AcceleratedHardwareReady") == "True"


@pytest.mark.parametrize("node", [NODE, "system-01"])
def test_silent_node_is_unknown_until_it_is_back(bed, cluster, node):
    """Silence is played, not announced: the cluster finds out by itself; also without GPUs."""
    do(bed, "node", node, "--silent")
    wait_until(
        lambda: node_edits.status_of(cluster.get(f"{NODES}/{node}"), "Ready") == "Unknown",
        timeout_s=40,
        every_s=0.5,
        what=f"{node} to be Unknown",
    )
    do(bed, "node", node, "--back")

    assert node_edits.is_settled(cluster.get(f"{NODES}/{node}"))


def test_page_can_be_spoilt_and_mended(bed):
    """Every trouble that a scraper has to stand can be had from the command line."""
    good = page(bed)
    do(bed, "page", NODE, "html")
    spoilt = page(bed)
    do(bed, "page", NODE, "empty")
    empty = page(bed)
    do(bed, "page", NODE, "good")

    assert spoilt[0].lower().startswith("<!doctype")
    assert empty == []
    assert len(page(bed)) == len(good)


def test_every_word_for_a_page_and_for_a_repair_is_known_to_the_hardware(bed):
    """The command line and the process beside the control plane must not drift apart."""
    words = ("stale", "truncated", "malformed", "endless", "binary", "down", "restarted")
    for word in words:
        assert f"page {word}" in do(bed, "page", NODE, word)
    do(bed, "page", NODE, "slow", "--seconds", "0.1")
    do(bed, "repair", NODE, "--times", "2", "--late", "1", "--same-boot", "--still-broken", "--job", "hangs")
    do(bed, "repair", NODE, "--times", "0", "--returns", "not_ready")
    do(bed, "heal", NODE)

    assert value(bed, "DCGM_FI_DEV_XID_ERRORS", 5) == "0"


def test_pods_of_a_deleted_node_go_only_when_that_is_asked_for(bed, cluster):
    """Kubernetes clears them away much later; a machine that is lost takes them along at once."""
    pods = "/api/v1/namespaces/default/pods"
    for node, more in (("gpu-h-03", ()), ("gpu-h-04", ("--without-pods",))):
        spec = {"nodeName": node, "containers": [{"name": "main", "image": "example.com/x"}]}
        spec["tolerations"] = [{"operator": "Exists"}]
        metadata = {"name": f"on-{node}", "namespace": "default"}
        cluster.create(pods, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        do(bed, "node", node, "--delete")
        do(bed, "node", node, "--recreate", *more)

    assert cluster.find(f"{pods}/on-gpu-h-03") is not None
    assert cluster.find(f"{pods}/on-gpu-h-04") is None


def test_node_comes_anew_as_the_same_or_as_another_machine(bed, cluster):
    """Another uid both times; the machine's own number tells them apart."""

    def look() -> tuple[str, str]:
        node = cluster.get(f"{NODES}/gpu-h-06")
        return node["metadata"]["uid"], node["status"]["nodeInfo"]["systemUUID"]

    first = look()
    do(bed, "node", "gpu-h-06", "--recreate")
    same = look()
    do(bed, "node", "gpu-h-06", "--recreate", "--other-machine", "--without-pods")
    other = look()
    do(bed, "node", "gpu-h-06", "--delete")

    assert len({first[0], same[0], other[0]}) == 3
    assert first[1] == same[1] != other[1]
    assert cluster.find(f"{NODES}/gpu-h-06") is None
    do(bed, "heal", "gpu-h-06")
    assert look()[1] == other[1], "healed, the machine is there again"


def repaired(cluster: Api, name: str) -> str:
    """Send a Job such as a repair is; return how its pod ended."""
    if cluster.find("/api/v1/namespaces/remediator-repair") is None:
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "remediator-repair"}}
        cluster.create("/api/v1/namespaces", namespace)
    labels = {"remediator.dev/repair": name, "remediator.dev/node": NODE}
    pod = {
        "nodeName": NODE,
        "restartPolicy": "Never",
        "tolerations": [{"operator": "Exists"}],
        "containers": [{"name": "reboot", "image": "example.com/reboot"}],
    }
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": "remediator-repair"},
        "spec": {"backoffLimit": 0, "template": {"metadata": {"labels": labels}, "spec": pod}},
    }
    cluster.create("/apis/batch/v1/namespaces/remediator-repair/jobs", job)

    def ended() -> str:
        pods = cluster.list(
            "/api/v1/namespaces/remediator-repair/pods", label_selector=f"remediator.dev/repair={name}"
        )
        phases = {str(each["status"].get("phase")) for each in pods} & {"Succeeded", "Failed"}
        return next(iter(phases), "")

    return wait_until(ended, timeout_s=30, what=f"the end of {name}")


def test_repair_goes_as_planned(bed, cluster):
    """A Job that fails reboots nothing; healed, the machine boots anew."""

    def boot() -> str:
        return node_edits.boot_id_of(cluster.get(f"{NODES}/{NODE}"))

    before = boot()
    do(bed, "repair", NODE, "--job", "fails")
    failed, kept = repaired(cluster, "first"), boot()
    do(bed, "heal", NODE)
    healed = repaired(cluster, "second")
    wait_until(lambda: boot() != before, timeout_s=40, what="another boot")

    assert (failed, kept, healed) == ("Failed", before, "Succeeded")


def test_node_can_say_that_it_is_not_ready(bed, cluster):
    """A kubelet that lives and complains is not one that is silent."""
    do(bed, "node", "gpu-h-05", "--not-ready")
    said = node_edits.status_of(cluster.get(f"{NODES}/gpu-h-05"), "Ready")
    do(bed, "heal", "gpu-h-05")

    assert said == "False"
    assert node_edits.status_of(cluster.get(f"{NODES}/gpu-h-05"), "Ready") == "True"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("inject", "gpu-z-99", "--xid", "79"), "no exporter for node 'gpu-z-99'"),
        (("inject", NODE, "--xid", "79", "--gpu", "8"), "no GPU 8; it has 8, counted from 0"),
        (("inject", NODE, "--field", "DCGM_FI_NOTHING", "--value", "1"), "no field 'DCGM_FI_NOTHING'"),
        (("inject", NODE, "--field", "DCGM_FI_DEV_ROW_REMAP_PENDING"), "--field and --value go together"),
        (("inject", NODE, "--condition", "KernelDeadlock"), "write TYPE=True"),
        (("inject", NODE), "write one of --xid, --field and --condition"),
        (("heal", "gpu-z-99"), "no node 'gpu-z-99' in this fleet of 66"),
        (("node", NODE), "write one of --silent, --not-ready, --back, --delete and --recreate"),
        (("node", NODE, "--silent", "--other-machine"), "--other-machine goes with --recreate"),
        (("node", NODE, "--back", "--without-pods"), "--without-pods goes with --delete or --recreate"),
        (("page", "system-01", "html"), "no exporter for node 'system-01'"),
        (("page", NODE, "nonsense"), "is not one of 'stale', 'slow'"),
        (("repair", NODE, "--times", "9"), "is not in the range"),
        (("account",), "deploy/base"),
    ],
)
def test_wrong_words_are_refused_with_what_would_be_right(bed, words, said):
    """A fault that was not injected must not look like a controller that missed it."""
    done = command(*words, "--directory", str(bed))

    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_fleet_there_is_no_hardware(control_plane_binaries, tmp_path):
    """The bare control plane stays what it was; who asks for hardware is told."""
    directory = tmp_path / "bare"
    try:
        started = command("up", "--no-fleet", "--directory", str(directory))
        shown = command("status", "--directory", str(directory))
        with pytest.raises(PermanentError, match="no hardware runs in"):
            world.ask(directory, "heal_node", NODE)
        ended = command("down", "--directory", str(directory))
    finally:
        processes.reap(directory)

    assert started.returncode == 0, started.stderr
    assert shown.stdout.count("  ok\n") == 5
    assert "exporter" not in started.stdout
    assert (ended.returncode, ended.stdout) == (0, "stopped\n")


def test_launcher_killed_takes_the_hardware_along(control_plane_binaries, tmp_path):
    """Between its start and the command's end the guardian answers for it, as for the components."""
    directory = tmp_path / "crashed"
    script = f"""
import time
from pathlib import Path
from remediator.testbed import world
from remediator.testbed.binaries import Binaries
from remediator.testbed.launcher import ControlPlane
programs = Binaries(Path({str(control_plane_binaries.directory)!r}), {{}})
plane = ControlPlane(Path({str(directory)!r}), programs)
plane.start()
world.create(plane, workload=False, tell=lambda line: None)
print("started", flush=True)
time.sleep(600)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(processes.__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment
    ) as launcher:
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == b"started\n"
        address = world.base_url(directory)
        launcher.kill()
    wait_until(
        lambda: not processes.leftovers(directory),
        timeout_s=60,
        every_s=0.2,
        what="the end of all, hardware too",
    )

    assert address.startswith("http://127.0.0.1:")


def test_failed_creation_leaves_nothing(control_plane_binaries, tmp_path):
    """Half a world is none: what was started goes when the rest cannot be made."""
    plane = ControlPlane(tmp_path / "half", control_plane_binaries, Options())

    with pytest.raises(PermanentError, match="no room"), plane.kept():
        raise PermanentError("no room")

    assert processes.leftovers(plane.directory) == ()
    assert lifecycle.status(plane.directory).components == ()
