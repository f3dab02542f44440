"""The doctor on a real control plane: a healthy installation, one with ten things wrong, and who may ask.

The installation is broken with kubectl, as people do it, and mended afterwards.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from remediator.app.manifests import deploy_directory
from remediator.model.instant import write_instant
from remediator.testbed.stage import (
    NODES,
    Stage,
)
from tests.e2e.access import as_user

pytestmark = pytest.mark.timeout(240)

FAILED = 13
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
CORDONED = ("gpu-a-01", "gpu-b-01", "gpu-c-01", "gpu-d-01")
AUTOSCALER: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "cluster-autoscaler", "namespace": "default"},
    "spec": {
        "replicas": 0,
        "selector": {"matchLabels": {"app": "ca"}},
        "template": {
            "metadata": {"labels": {"app": "ca"}},
            "spec": {"containers": [{"name": "ca", "image": "registry.example/cluster-autoscaler:v1.36"}]},
        },
    },
}


def ask(stage: Stage, *, as_: Path | None = None, code: int = 0) -> list[dict[str, str]]:
    """What the doctor finds, by a process of its own."""
    done = stage.cli("doctor", "-o", "json", kubeconfig=as_)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    found: list[dict[str, str]] = json.loads(done.stdout)
    return found


def having(found: list[dict[str, str]], check: str, level: str) -> str:
    """What a check says at one level; empty where it says nothing there."""
    return "\n".join(each["says"] for each in found if (each["check"], each["level"]) == (check, level))


@pytest.fixture
def broken(shared_stage: Stage) -> Iterator[Stage]:
    """Ten things wrong at once; none of them moves the controller to act."""
    api, kubectl = shared_stage.api, shared_stage.cluster.kubectl
    shared_stage.stop_controller()
    kubectl("delete", "validatingadmissionpolicybinding", "remediator-fencing")
    kubectl("patch", "validatingadmissionpolicybinding", "remediator-own-keys", "--type=merge",
            "-p", '{"spec": {"validationActions": ["Audit"]}}')  # fmt: skip
    crd = f"{CRDS}/remediations.remediator.dev"
    lacking = api.get(crd)
    status = lacking["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    del status["properties"]["repairBootId"]
    api.replace(crd, lacking)
    kubectl("delete", "clusterrolebinding", "remediator-enforce")
    for node in CORDONED:
        api.merge_patch(f"{NODES}/{node}", {"spec": {"unschedulable": True}})
    fast = write_instant(datetime.now(UTC) + timedelta(hours=1))
    api.create(LEASES, {"metadata": {"name": "far-ahead"}, "spec": {"renewTime": fast}})
    api.create("/apis/apps/v1/namespaces/default/deployments", AUTOSCALER)
    yield shared_stage
    for path in ("crds", "base/fencing.yaml", "base/own-keys.yaml", "overlays/enforce/rbac.yaml"):
        kubectl("apply", "-f", str(deploy_directory() / path))
    for node in CORDONED:
        api.merge_patch(f"{NODES}/{node}", {"spec": {"unschedulable": None}})
    api.delete(f"{LEASES}/far-ahead")
    api.delete("/apis/apps/v1/namespaces/default/deployments/cluster-autoscaler")
    shared_stage.start_controller()


def test_healthy_installation_has_no_failure(shared_stage: Stage) -> None:
    """Whoever sees a failure here must be able to believe it."""
    found = ask(shared_stage)

    assert not [each for each in found if each["level"] in ("failure", "unknown")], found
    checks = {each["check"] for each in found if each["level"] == "ok"}
    assert checks >= {
        "server", "kinds", "policy", "leader", "fencing", "rights", "signals", "fields", "clocks", "budget",
        "rivals",
    }  # fmt: skip
    assert "64 pages with a GPU, of 64 nodes" in having(found, "signals", "ok")
    assert "rights of Enforce" in having(found, "rights", "ok")


def test_everything_that_is_wrong_is_named(broken: Stage) -> None:
    """One run tells all of it: nobody mends one thing, asks again, and finds the next."""
    found = ask(broken, code=FAILED)

    assert "it lacks .status.repairBootId," in having(found, "kinds", "failure")
    assert "remediator-fencing judges nothing" in having(found, "fencing", "failure")
    assert "remediator-own-keys only does Audit" in having(found, "fencing", "failure")
    assert "patch nodes core; create pods/eviction core" in having(found, "rights", "failure")
    assert "4 nodes of train do not serve" in having(found, "budget", "failure")
    assert "nobody leads" in having(found, "leader", "failure")
    ahead = re.search(r"far-ahead \+(\d+) s", having(found, "clocks", "warning"))
    # The Lease says an hour from the test's own now; the API server stamps the write later, to the second.
    assert ahead
    assert 3600 - 120 <= int(ahead[1]) <= 3600 + 2
    assert "default/cluster-autoscaler does not know remediator.dev/quarantine" in having(
        found, "autoscaler", "warning"
    )
    levels = [each["level"] for each in found]
    order = ["failure", "warning", "unknown", "note", "ok"]
    assert levels == sorted(levels, key=order.index)


def test_shipped_role_sees_everything(shared_stage: Stage, tmp_path: Path) -> None:
    """The role that the doctor itself recommends must be enough for all it looks at."""
    dora = as_user(shared_stage, "dora", tmp_path / "kubeconfig", role="remediator-doctor")
    found = ask(shared_stage, as_=dora)

    assert not [each for each in found if each["level"] in ("failure", "unknown")], found


def test_who_may_not_look_is_told_what_to_bind(shared_stage: Stage, tmp_path: Path) -> None:
    """A thing that was not looked at is neither good nor bad."""
    olga = as_user(shared_stage, "olga", tmp_path / "kubeconfig", role="remediator-operator")
    found = ask(shared_stage, as_=olga)

    hidden = {each["check"]: each for each in found if each["level"] == "unknown"}
    assert set(hidden) >= {"kinds", "fencing", "rights", "clocks", "daemonsets", "rivals"}
    assert all("remediator-doctor" in each["fix"] for each in hidden.values()), hidden
    assert "list daemonsets" in hidden["daemonsets"]["says"]
