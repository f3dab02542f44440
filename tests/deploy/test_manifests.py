"""The manifests as they stand: the controller's pod, the namespaces, the policy, the pools, the reboot."""

import subprocess
from pathlib import Path

import msgspec
import pytest

from remediator.adapters.files.loader import load_objects
from remediator.core.actions import ACTIONS
from remediator.core.steps.repair import job_name
from remediator.model.keys import POLICY_NAME
from remediator.model.playbook import Playbook
from remediator.model.policy import PolicySpec, RemediationPolicy
from remediator.model.pool import ResourcePool
from tests.deploy.manifests import DEPLOY, ROOT, Json, load, load_all, one, pod_specs

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
SECURITY = "pod-security.kubernetes.io"


@pytest.fixture(scope="module")
def base() -> list[Json]:
    return load_all("base")


@pytest.fixture(scope="module")
def pod(base: list[Json]) -> Json:
    spec: Json = one(base, "Deployment", "remediator")["spec"]["template"]["spec"]
    return spec


def test_the_controllers_pod_is_locked_down(pod: Json):
    """The restricted profile, and beyond it: a numeric user and nothing that it could write to."""
    (container,) = pod["containers"]

    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "fsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC", "volumes"} & set(pod)
    assert set(container["resources"]) == {"requests", "limits"}


def test_the_controllers_pod_can_be_found_and_asked(base: list[Json], pod: Json):
    """The program looks for its own pods by this label, and its probes answer on this port."""
    (container,) = pod["containers"]
    deployment = one(base, "Deployment", "remediator")["spec"]
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    probes = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("liveness", "readiness")}

    assert deployment["template"]["metadata"]["labels"]["app.kubernetes.io/name"] == "remediator"
    assert deployment["selector"]["matchLabels"] == deployment["template"]["metadata"]["labels"]
    assert deployment["replicas"] in (1, 2)
    assert container["args"] == ["run"]
    assert ports == {"http": 8080}
    assert {kind: probe["path"] for kind, probe in probes.items()} == {
        "liveness": "/healthz",
        "readiness": "/readyz",
    }
    assert {probe["port"] for probe in probes.values()} == {"http"}


def test_only_the_pod_that_asks_gets_the_token(base: list[Json], pod: Json):
    """Any other pod of the namespace, by mistake under this account, would have its rights."""
    assert one(base, "ServiceAccount", "remediator")["automountServiceAccountToken"] is False
    assert pod["automountServiceAccountToken"] is True
    assert pod["serviceAccountName"] == "remediator"


@pytest.mark.parametrize(
    ("folder", "name", "level"),
    [("base", "remediator", "restricted"), ("overlays/repair-job", "remediator-repair", "privileged")],
)
def test_each_namespace_says_what_its_pods_may(folder: str, name: str, level: str):
    """Without a label the cluster's default decides, which is often: anything."""
    assert one(load_all(folder), "Namespace", name)["metadata"]["labels"][f"{SECURITY}/enforce"] == level


def test_policy_of_the_base_is_the_default():
    """Spelled out for people; if a default moves, this page has to move with it."""
    (loaded,) = load_objects([DEPLOY / "base/policy.yaml"])
    policy = loaded.value

    assert isinstance(policy, RemediationPolicy)
    assert policy.metadata.name == POLICY_NAME
    assert policy.spec == PolicySpec()
    assert policy.spec.max_mode == "Audit"


def test_policy_of_the_base_spells_out_every_limit():
    """A limit that is not there looks like no limit."""
    spec = load(DEPLOY / "base/policy.yaml")[0]["spec"]
    optional = {
        "pause",
        "exporter",
        "repair",
        "joins",
        "identity",
        "conditions",
        "protectedPriorityClasses",
        "gangLabels",
        "nodeKeys",
        "rewriters",
    }

    assert set(spec) == set(PolicySpec.__struct_encode_fields__) - optional


def test_example_pools_load_and_begin_in_audit():
    """People copy this file as it is."""
    pools = [each.value for each in load_objects([DEPLOY / "examples/pools.yaml"])]

    assert [pool.metadata.name for pool in pools] == ["train", "infer", "buffer"]
    for pool in pools:
        assert isinstance(pool, ResourcePool)
        assert pool.spec.max_mode == "Audit"


def test_only_the_reboot_is_privileged():
    """One privileged pod, in one namespace; a second one must be a decision."""
    folders = ("base", "overlays/enforce", "overlays/repair-job", "overlays/testbed")
    specs = [each for folder in folders for each in pod_specs(load_all(folder))]
    privileged = [
        where
        for where, spec in specs
        if spec.get("hostPID")
        or any(each.get("securityContext", {}).get("privileged") for each in spec["containers"])
    ]

    assert privileged == ["PodTemplate/reboot"]


def test_shipped_playbooks_name_the_template_that_is_shipped():
    """A playbook that names another one is blocked in its repair step."""
    wanted = {
        step.repair.job.template
        for loaded in load_objects([ROOT / "playbooks"])
        if isinstance(loaded.value, Playbook)
        for step in loaded.value.spec.steps
        if not isinstance(step.repair, msgspec.UnsetType)
        and not isinstance(step.repair.job, msgspec.UnsetType)
    }

    assert wanted == {"reboot"}
    assert "repair" in ACTIONS
    assert job_name("gpu-a-01-1", "reboot", 1) == "gpu-a-01-1-reboot-1"


@pytest.fixture
def reboot(tmp_path: Path):
    """Run the reboot's own script where nothing but a recorder named nsenter can be found."""
    template = one(load_all("overlays/repair-job"), "PodTemplate", "reboot")["template"]["spec"]
    (container,) = template["containers"]
    shell, options, script = container["command"]
    asked = tmp_path / "asked"
    recorder = tmp_path / "nsenter"
    recorder.write_text(f'#!/bin/sh\necho "$@" >> {asked}\n')
    recorder.chmod(0o755)

    def run(**environment: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [shell, options, script],
            env={"PATH": str(tmp_path), **environment},
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr, asked.read_text() if asked.exists() else ""

    return run


@pytest.mark.skipif(not BOOT_ID.exists(), reason="no Linux kernel")
def test_reboot_asks_the_host_when_the_boot_is_the_expected_one(reboot):
    """The one harmful line; it has to reach the host's systemd and not the container's."""
    running = BOOT_ID.read_text().strip()

    code, said, asked = reboot(EXPECTED_BOOT_ID=running, REMEDIATION="gpu-a-01-1")

    assert code == 0, said
    assert asked.split(" -- ")[0] == "--target 1 --mount --uts --ipc --net --pid"
    assert asked.split(" -- ")[1].endswith("systemctl reboot\n")
    assert f"reboot of boot id {running} requested for gpu-a-01-1" in said


@pytest.mark.skipif(not BOOT_ID.exists(), reason="no Linux kernel")
def test_reboot_leaves_a_machine_alone_that_has_booted_since(reboot):
    """A Job that starts late would otherwise reboot a machine that has work again."""
    code, said, asked = reboot(EXPECTED_BOOT_ID="00000000-0000-0000-0000-000000000000")

    assert (code, asked) == (0, "")
    assert "nothing to do" in said


@pytest.mark.parametrize("environment", [{}, {"EXPECTED_BOOT_ID": ""}], ids=["unset", "empty"])
def test_reboot_refuses_without_an_expected_boot(reboot, environment):
    """A pod made from the template by hand names no machine."""
    code, said, asked = reboot(**environment)

    assert code != 0
    assert asked == ""
    assert "EXPECTED_BOOT_ID" in said
