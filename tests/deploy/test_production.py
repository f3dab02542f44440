"""What makes the Deployment fit for a production cluster: where it runs, and what may reach it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from bench.results import load
from remediator.app.settings import Settings
from remediator.model.keys import TAINT_QUARANTINE
from remediator.model.policy import ExporterSpec
from remediator.testbed.binaries import Binaries
from tests.deploy.manifests import DEPLOY, Json, build, load_all, one, parse

CLASS = "system-cluster-critical"


@pytest.fixture(scope="module")
def base() -> list[Json]:
    return load_all("base")


@pytest.fixture(scope="module")
def deployment(base: list[Json]) -> Json:
    spec: Json = one(base, "Deployment", "remediator")["spec"]
    return spec


@pytest.fixture(scope="module")
def pod(deployment: Json) -> Json:
    spec: Json = deployment["template"]["spec"]
    return spec


def test_quota_lets_the_priority_in(base: list[Json], deployment: Json, pod: Json):
    """Some clusters refuse a system priority without a quota for it: no pod at all, and no error in sight."""
    quota = one(base, "ResourceQuota", "critical-pods")
    (scope,) = quota["spec"]["scopeSelector"]["matchExpressions"]

    assert pod["priorityClassName"] == CLASS
    assert scope == {"scopeName": "PriorityClass", "operator": "In", "values": [CLASS]}
    assert quota["metadata"]["namespace"] == "remediator"
    # A pod that ends slowly counts until it is gone, and its successor is there already.
    assert int(quota["spec"]["hard"]["pods"]) > deployment["replicas"]


def test_pod_tolerates_no_taint(pod: Json):
    """A toleration of our own quarantine would put the leader on the machine that it takes away."""
    assert "tolerations" not in pod
    assert TAINT_QUARANTINE not in str(pod)


def test_update_never_needs_a_third_node(deployment: Json, pod: Json):
    """Two replicas that must not share a node, and a surge: on two nodes the update would hang for ever."""
    rules = pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]

    assert [each["topologyKey"] for each in rules] == ["kubernetes.io/hostname"]
    assert rules[0]["labelSelector"] == deployment["selector"]
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}


def test_budget_guards_these_pods(base: list[Json], deployment: Json):
    """A selector that matches nothing guards nothing, and says so nowhere."""
    budget = one(base, "PodDisruptionBudget", "remediator")["spec"]

    assert budget["selector"] == deployment["selector"]
    assert budget["maxUnavailable"] < deployment["replicas"]


def test_memory_limit_leaves_room_over_what_was_measured(pod: Json):
    """An out-of-memory kill in the middle of a storm is the worst moment; figures as published."""
    (memory,) = [each for each in load(DEPLOY.parent / "bench/published") if each.figure == "memory"]
    worst = {each.name: each.summary.max for each in memory.finding.series}
    (slope,) = [each.value for each in memory.finding.checks if each.name == "MB per 1,000 nodes"]
    at_10_000_mb = worst["resident, 1000 nodes"] + 9 * slope
    resources = pod["containers"][0]["resources"]
    asked_mb, limit_mb = (mebibytes(resources[each]["memory"]) for each in ("requests", "limits"))

    assert asked_mb >= at_10_000_mb
    assert limit_mb >= 2 * at_10_000_mb


@pytest.mark.real_server  # kubectl, not a server
def test_site_overlay_of_the_document_builds(control_plane_binaries: Binaries, tmp_path: Path):
    """Everybody begins by copying it, so each of its patches has to find what it changes."""
    text = (DEPLOY.parent / "docs/install.md").read_text("utf-8")
    (sample,) = re.findall(r"^```yaml\n# site/kustomization.yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    site = DEPLOY.parent / f"build/site-{tmp_path.name}"
    site.mkdir(parents=True)
    try:
        wanted = sample.replace("# components:", "components:").replace("../deploy", "../../deploy")
        (site / "kustomization.yaml").write_text(wanted)
        made = parse(build(control_plane_binaries, str(site)))
    finally:
        shutil.rmtree(site)

    spec = one(made, "Deployment", "remediator")["spec"]["template"]["spec"]
    (term,) = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
        "nodeSelectorTerms"
    ]
    assert spec["containers"][0]["image"].startswith("registry.example.com/remediator@sha256:")
    assert {"key": "example.com/pool", "operator": "DoesNotExist"} in term["matchExpressions"]
    assert 16443 in [
        each["port"] for each in one(made, "NetworkPolicy", "remediator")["spec"]["egress"][0]["ports"]
    ]
    assert one(made, "RemediationPolicy", "cluster")["spec"]["exporter"]["namespace"] == "gpu-operator"
    assert one(made, "PrometheusRule", "remediator")


def mebibytes(quantity: str) -> float:
    """A quantity in Mi, as MB."""
    assert quantity.endswith("Mi")
    return int(quantity.removesuffix("Mi")) * 1024 * 1024 / 1e6


def test_network_policy_holds_the_ports_that_are_used(base: list[Json], deployment: Json, pod: Json):
    """Without the API server's port the controller stops; without ingress it opens /statusz."""
    policy = one(base, "NetworkPolicy", "remediator")["spec"]
    (ingress,) = policy["ingress"]
    (egress,) = policy["egress"]
    (exporter_port,) = [ExporterSpec().port]

    assert policy["podSelector"] == deployment["selector"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert ingress["from"] == [{"namespaceSelector": {"matchLabels": {"remediator.dev/metrics": "true"}}}]
    assert ingress["ports"] == [{"port": pod["containers"][0]["ports"][0]["name"], "protocol": "TCP"}]
    assert {(each["port"], each["protocol"]) for each in egress["ports"]} == {
        (443, "TCP"),
        (6443, "TCP"),
        (53, "UDP"),
        (53, "TCP"),
        (exporter_port, "TCP"),
    }
    assert Settings().port == pod["containers"][0]["ports"][0]["containerPort"]
