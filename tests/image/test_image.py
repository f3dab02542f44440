"""The built image, started as the Deployment starts it, against a real API server: `make image-test`.

No part of `make test`: it needs podman, a built image and root. Without any of them it fails.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.container import Container, inspect_image, podman
from remediator.testbed.binaries import Binaries
from remediator.testbed.stage import Stage
from remediator.testbed.waiting import wait_until
from tests.deploy.manifests import load_all, one

pytestmark = [pytest.mark.real_server, pytest.mark.timeout(300)]

IMAGE = os.environ.get("IMAGE", "localhost/remediator:dev")
SIZE_MB_MAX = 350
LEASE = "/apis/coordination.k8s.io/v1/namespaces/remediator/leases/remediator"


@pytest.fixture(scope="module")
def stage(control_plane_binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("image") / "stage", control_plane_binaries) as found:
        yield found


@pytest.fixture
def container(stage: Stage, tmp_path: Path) -> Iterator[Container]:
    made = Container(
        IMAGE,
        name=f"remediator-{uuid.uuid5(uuid.NAMESPACE_URL, str(tmp_path)).hex[:8]}",
        api=stage.api,
        directory=tmp_path / "credentials",
        port=stage.cluster.reserve_port(),
    )
    with made:
        yield made


def await_leader(container: Container) -> None:
    wait_until(container.leads, timeout_s=60, what="the container to lead", detail=container.logs)


def test_image_leads_as_the_deployments_pod(stage: Stage, container: Container):
    """The whole chain: entry point, libraries, in-cluster credentials, rights, probes, and a clean end."""
    await_leader(container)

    assert container.answers("/healthz")
    wait_until(lambda: container.answers("/readyz"), timeout_s=30, what="readiness", detail=container.logs)
    holder = stage.api.get(LEASE)["spec"]["holderIdentity"]
    container.stop()
    assert holder
    assert container.exit_code == 0, container.logs()
    assert not stage.api.get(LEASE)["spec"].get("holderIdentity"), "the Lease is given back on SIGTERM"


def test_container_has_no_power_over_its_host(container: Container):
    """As the kernel counts it: no root, no capability, no way to more, and nothing to write to."""
    await_leader(container)
    proc = Path(f"/proc/{container.pid}")
    status = dict(
        line.split(":\t", 1) for line in (proc / "status").read_text().splitlines() if ":\t" in line
    )
    root = next(
        line.split() for line in (proc / "mountinfo").read_text().splitlines() if line.split()[4] == "/"
    )

    assert (set(status["Uid"].split()), set(status["Gid"].split())) == ({"65532"}, {"65532"})
    assert {int(status[each], 16) for each in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {0}
    assert status["NoNewPrivs"] == "1"
    assert "ro" in root[5].split(",")


def test_image_says_what_it_is_and_matches_the_deployment():
    """A scanner and a person read the labels; runAsNonRoot can only check a numeric user."""
    found = inspect_image(IMAGE)
    config = found["Config"]
    spec = one(load_all("base"), "Deployment", "remediator")["spec"]["template"]["spec"]
    asked = spec["securityContext"]

    assert config["User"] == f"{asked['runAsUser']}:{asked['runAsGroup']}"
    assert config["Entrypoint"] == ["remediator"]
    assert config["Cmd"] == spec["containers"][0]["args"]
    for name in ("title", "description", "licenses", "version", "revision"):
        assert config["Labels"][f"org.opencontainers.image.{name}"], name
    assert found["Size"] / 1e6 <= SIZE_MB_MAX


@pytest.mark.parametrize(
    ("what", "find"),
    [
        ("compilers", "-name gcc* -o -name cc -o -name ld -o -name make -o -name go"),
        ("package managers", "-name apt* -o -name dpkg -o -name pip* -o -name uv"),
        ("caches", "-path /var/cache/* -type f -o -path /var/lib/apt/* -type f -o -path /root/.cache/*"),
        ("set-user-id programs", "-type f -perm /6000"),
    ],
)
def test_image_holds_nothing_that_builds_or_fetches(what: str, find: str):
    """Whoever breaks in finds no tools, and a scanner has less to complain about."""
    # Set-user-id programs count anywhere, the others where they could be run or kept.
    places = (
        "/" if "perm" in find or "path" in find else "/usr/bin /usr/sbin /usr/local/bin /opt/remediator/bin"
    )
    script = f"set -f; find {places} -xdev \\( {find} \\) 2>/dev/null || true"

    found = podman(
        *("run", "--rm", "--pull", "never", "--network", "none", "--ulimit", "nofile=1024:1024"),
        *("--ulimit", "nproc=1024:1024", "--user", "0", "--entrypoint", "/bin/sh", IMAGE, "-c", script),
    )

    assert found.split() == [], what


def test_repair_job_finds_its_tools_in_the_image():
    """The reboot's PodTemplate runs in this same image and needs a shell and nsenter."""
    found = podman(
        *("run", "--rm", "--pull", "never", "--network", "none", "--ulimit", "nofile=1024:1024"),
        *("--ulimit", "nproc=1024:1024", "--entrypoint", "/bin/sh", IMAGE, "-euc", "nsenter --version"),
    )

    assert "util-linux" in found
