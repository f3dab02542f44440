"""Install, upgrade and remove, on a real API server: what pods come of it, where they land, and what is left.

Control planes of their own: the tests remove the custom resources, which others share.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from remediator.fleet.layout import (
    build_fleet,
)
from remediator.fleet.node_objects import Object
from remediator.testbed.api import Api
from remediator.testbed.binaries import Binaries
from remediator.testbed.fleet import (
    apply_fleet,
)
from remediator.testbed.launcher import ControlPlane
from remediator.testbed.waiting import wait_until
from tests.deploy.manifests import DEPLOY, ROOT, Json, build, one, parse

pytestmark = [pytest.mark.real_server, pytest.mark.timeout(240)]

DOCUMENT = ROOT / "docs/install.md"
PREVIOUS = ROOT / "tests/deploy/previous/repair-job.yaml"
OPERATOR = ROOT / "tests/deploy/operator_kinds.yaml"
COMMANDS_S_MAX = 120
PODS = "/api/v1/namespaces/remediator/pods"
DEPLOYMENT = "/apis/apps/v1/namespaces/remediator/deployments/remediator"
POLICY = "/apis/remediator.dev/v1alpha1/remediationpolicies/cluster"
QUOTA = "/api/v1/namespaces/remediator/resourcequotas/critical-pods"


@pytest.fixture
def plane(
    control_plane_binaries: Binaries, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ControlPlane]:
    with ControlPlane(tmp_path_factory.mktemp("install"), control_plane_binaries) as started:
        yield started


@pytest.fixture
def api(plane: ControlPlane) -> Iterator[Api]:
    client = plane.admin()
    yield client
    client.close()


def install_kinds(plane: ControlPlane) -> None:
    plane.kubectl("apply", "--server-side", "-f", str(DEPLOY / "crds"))
    plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", "-f", str(DEPLOY / "crds"))


def small_fleet(api: Api) -> set[str]:
    """Eight GPU nodes, one of them of no pool and without a taint, and two others; the names of those two."""
    specs = build_fleet(1, 8, infer=1, buffer=1, system=2)
    apply_fleet(api, specs)
    gpu = [each.name for each in specs if each.gpus]
    api.merge_patch(f"/api/v1/nodes/{gpu[0]}", {"spec": {"taints": None}})
    return {each.name for each in specs if not each.gpus}


def running(api: Api) -> list[Object]:
    return [each for each in api.list(PODS) if each["status"].get("phase") == "Running"]


def await_two(api: Api, template: str = "") -> list[Object]:
    """Wait for two running pods, of another ReplicaSet than ``template`` if that is given."""

    def look() -> bool:
        found = [each for each in api.list(PODS) if not each["metadata"].get("deletionTimestamp")]
        hashes = {each["metadata"]["labels"]["pod-template-hash"] for each in found}
        return len(found) == len(running(api)) == 2 and len(hashes) == 1 and template not in hashes

    wait_until(
        look,
        timeout_s=60,
        what="two running replicas",
        detail=lambda: json.dumps([each["status"] for each in api.list(PODS)], indent=1)[-3_000:],
    )
    return running(api)


def nodes_of(pods: list[Object]) -> set[str]:
    return {each["spec"]["nodeName"] for each in pods}


def test_two_replicas_run_apart_and_off_the_pools(plane: ControlPlane, api: Api):
    """Admitted under restricted, counted by the quota, placed by the real scheduler: not only written so."""
    others = small_fleet(api)
    install_kinds(plane)

    applied = plane.kubectl("apply", "-k", str(DEPLOY / "base"))
    pods = await_two(api)

    assert "Warning" not in applied.stderr
    assert nodes_of(pods) == others
    assert {each["spec"]["priority"] for each in pods} == {2_000_000_000}
    assert api.get(QUOTA)["status"]["used"] == {"pods": "2"}
    assert {each["effect"] for pod in pods for each in pod["spec"]["tolerations"]} == {"NoExecute"}


def test_no_replica_runs_on_a_quarantined_node(plane: ControlPlane, api: Api):
    """Even the one node that is left must not be ours once we took it away: waiting is safer."""
    first, second = sorted(small_fleet(api))
    taint = {"key": "remediator.dev/quarantine", "value": "x", "effect": "NoSchedule"}
    api.merge_patch(f"/api/v1/nodes/{first}", {"spec": {"taints": [taint]}})
    install_kinds(plane)

    plane.kubectl("apply", "-k", str(DEPLOY / "base"))
    wait_until(lambda: len(refused(api)) == 1, timeout_s=60, what="the second replica to be unschedulable")

    assert nodes_of(running(api)) == {second}


def refused(api: Api) -> list[Object]:
    return [
        each
        for each in api.list(PODS)
        if any(found.get("reason") == "Unschedulable" for found in each["status"].get("conditions", ()))
    ]


def test_upgrade_from_the_previous_manifests(plane: ControlPlane, api: Api, control_plane_binaries: Binaries):
    """Applied over an older installation it is the same as a new one, and what people set stays."""
    small_fleet(api)
    install_kinds(plane)
    plane.kubectl("apply", "-f", str(PREVIOUS))
    before = await_two(api)[0]["metadata"]["labels"]["pod-template-hash"]
    api.merge_patch(POLICY, {"spec": {"pause": {"by": "alice", "reason": "upgrade"}}})
    overlay = build(control_plane_binaries, "overlays/repair-job")

    install_kinds(plane)
    plane.kubectl("apply", "-k", str(DEPLOY / "overlays/repair-job"))
    await_two(api, before)

    assert api.get(POLICY)["spec"]["pause"]["by"] == "alice"
    wanted = one(parse(overlay), "Deployment", "remediator")["spec"]["template"]["spec"]
    live = api.get(DEPLOYMENT)["spec"]["template"]["spec"]
    assert {key: live[key] for key in wanted if key != "containers"} == {
        key: value for key, value in wanted.items() if key != "containers"
    }
    # Nothing of the older installation is left that the newer one does not know, and would not remove.
    assert keys(PREVIOUS.read_text("utf-8")) <= keys(overlay)
    assert plane.kubectl("diff", "-k", str(DEPLOY / "overlays/repair-job"), check=False).stdout == (""), (
        "applying once is not enough"
    )


def keys(text: str) -> set[tuple[str, str, str]]:
    return {_key(each) for each in parse(text)}


def _key(each: Json) -> tuple[str, str, str]:
    meta = each["metadata"]
    return each["kind"], meta.get("namespace", ""), meta["name"]


def test_every_command_of_the_document_works(
    plane: ControlPlane, tmp_path: Path, control_plane_binaries: Binaries
):
    """On a fresh server, in the order of the page, from nothing to removed without a trace."""
    plane.kubectl("apply", "-f", str(OPERATOR))
    plane.kubectl("create", "namespace", "monitoring")
    before = everything(plane)
    for block in shell_blocks(DOCUMENT.read_text("utf-8")):
        done = subprocess.run(
            ["bash", "-eu", "-c", block],
            cwd=ROOT,
            env={
                "PATH": f"{control_plane_binaries.path('kubectl').parent}:{os.environ['PATH']}",
                "KUBECONFIG": str(plane.kubeconfig),
                "HOME": str(tmp_path),
            },
            capture_output=True,
            text=True,
            timeout=COMMANDS_S_MAX,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
        assert "Warning" not in done.stderr, f"{block}\n{done.stderr}"

    left = {each for each in everything(plane) - before if not each.startswith("events")}

    assert left == set()


def everything(plane: ControlPlane) -> set[str]:
    """Every object of every kind that the server lists, as KIND NAMESPACE/NAME."""
    kinds = plane.kubectl("api-resources", "--verbs=list", "-o", "name").stdout.split()
    template = '{range .items[*]}{.metadata.namespace}/{.metadata.name}{"\\n"}{end}'
    return {
        f"{kind} {name}"
        for kind in kinds
        for name in plane.kubectl("get", kind, "-A", "-o", f"jsonpath={template}").stdout.split()
    }


def shell_blocks(text: str) -> list[str]:
    found = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(found) >= 10
    return found
