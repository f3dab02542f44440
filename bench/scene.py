"""A stage to measure on: a fleet of the wanted size, wide limits, a short playbook, and the bare baseline.

The controller on it is the shipped one, under its shipped account and rights.
"""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from ruamel.yaml import YAML

from bench import bare
from remediator.app.manifests import deploy_directory
from remediator.fleet.layout import build_fleet
from remediator.fleet.node_objects import LABEL_ASSET, NodeSpec, node_object
from remediator.testbed import fleet
from remediator.testbed.api import ApiError
from remediator.testbed.binaries import Binaries
from remediator.testbed.components import Options
from remediator.testbed.launcher import ControlPlane
from remediator.testbed.node_edits import timestamp
from remediator.testbed.stage import (
    GROUP,
    NODES,
    POLICY,
    RUNS,
    USER,
    Stage,
)
from remediator.testbed.waiting import wait_until

NodeSize = Literal["small", "full"]
Object = dict[str, Any]

CONDITION: Final = "BenchFault"
TAINT_SUFFIX: Final = "/quarantine"
BARE_NAMESPACE: Final = "bench"
BARE_ACCOUNT: Final = "bare"
BARE_USER: Final = f"system:serviceaccount:{BARE_NAMESPACE}:{BARE_ACCOUNT}"
GRANTS_MAX: Final = 50
SETTLE_S_MAX: Final = 60.0
PER_RACK: Final = 8
THREADS: Final = 8

# Limits that never stop a trial; that each is met one at a time is the harness's business.
WIDE: Final[Object] = {
    "maxUnavailable": {"percent": 100},
    "poolMaxUnavailable": {"percent": 100},
    "maxConcurrent": GRANTS_MAX,
    "poolMaxConcurrent": GRANTS_MAX,
    "maxRepairs": GRANTS_MAX,
    "rate": {"count": 10_000, "per": "1m", "burst": 10_000},
    "breaker": {"count": 10_000, "percent": 100, "within": "10s", "quiet": "10s"},
    "exporter": None,
}

# Quarantine is what is measured; verify and return take it back once the condition is gone, so that
# the product itself makes the node ready for its next trial.
PLAYBOOK: Final[Object] = {
    "apiVersion": "remediator.dev/v1alpha1",
    "kind": "Playbook",
    "metadata": {"name": "bench"},
    "spec": {
        "summary": "Quarantine at once, return when the condition is gone.",
        "mode": "Enforce",
        "faultClass": "node.bench",
        "severity": "Hard",
        "priority": 900,
        "nodes": {"matchAll": True},
        "match": {
            "anyOf": [
                {"id": "bench", "nodeCondition": {"type": CONDITION, "status": "True"}, "for": "0s"},
            ]
        },
        "noSpare": "WithoutSpare",
        "memory": "1s",
        "steps": [
            {"id": "fence", "quarantine": {"value": "bench"}},
            {"id": "verify", "verify": {"quietFor": "1s", "gpusEqualClass": False, "timeout": "10m"}},
            {"id": "return", "return": {"probation": "1s"}},
        ],
    },
}


class Scene(Stage):
    """A stage without exporters, whose nodes are all members of the pool ``train``.

    Args:
        directory: as of ``Stage``.
        binaries: as of ``Stage``.
        nodes: how many.
        size: ``full`` is 20 KB, as real GPU nodes are; ``small`` is what such a node needs at least.
    """

    def __init__(self, directory: Path, binaries: Binaries, *, nodes: int, size: NodeSize) -> None:
        super().__init__(directory, binaries)
        racks = math.ceil(nodes / PER_RACK)
        self.specs = build_fleet(racks, PER_RACK, infer=0, buffer=0, system=0)[:nodes]
        self.cluster = ControlPlane(directory / "cluster", binaries, Options(audited_users=(USER, BARE_USER)))
        self.size: NodeSize = size
        self._bare: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Control plane, kinds, rights and nodes; no controller yet."""
        self.cluster.start()
        self._api = self.cluster.admin()
        self._install()
        self.patch_policy(WIDE)
        self.api.create(f"{GROUP}/playbooks", PLAYBOOK)
        self.add_nodes(self.specs)

    def stop(self) -> None:
        self.stop_bare()
        super().stop()

    def add_nodes(self, specs: Sequence[NodeSpec]) -> None:
        """Register nodes and wait until all are Ready."""
        at = timestamp()
        objects = [node_object(spec, at=at) for spec in specs]
        if self.size == "small":
            objects = [shrunk(each) for each in objects]
        with ThreadPoolExecutor(THREADS) as pool:
            for done in [pool.submit(partial(self.api.create, NODES, each)) for each in objects]:
                done.result()
        fleet.wait_settled(self.api, [spec.name for spec in specs])

    @property
    def controller_pid(self) -> int:
        assert self._controller is not None, "no controller runs"
        return self._controller.pid

    def open_grants(self) -> int:
        return len(self.api.get(POLICY).get("status", {}).get("grants", []))

    def wait_idle(self) -> None:
        """Wait until no run is open, no grant is held and no node carries a taint of a trial."""

        def idle() -> bool:
            return not (self.open_grants() or self._open_runs() or self.tainted())

        wait_until(idle, timeout_s=SETTLE_S_MAX, every_s=0.5, what="the end of all runs")

    def _open_runs(self) -> list[str]:
        runs = self.api.list(RUNS)
        return [run["metadata"]["name"] for run in runs if "finishedAt" not in run.get("status", {})]

    def tainted(self) -> list[str]:
        """Names of nodes that carry a quarantine, ours or the bare one."""
        return [
            node["metadata"]["name"]
            for node in self.api.list(NODES)
            if any(each["key"].endswith(TAINT_SUFFIX) for each in node["spec"].get("taints") or [])
        ]

    # -- the bare baseline

    def start_bare(self, run: Object) -> None:
        """Start the baseline under an account of its own; its intents are as large as ``run``."""
        self._install_bare()
        kubeconfig = self.directory / "bare.kubeconfig"
        self.api.service_account_kubeconfig(BARE_NAMESPACE, BARE_ACCOUNT, kubeconfig)
        intent = self.directory / "intent.json"
        intent.write_bytes(
            msgspec.json.encode(
                {"apiVersion": "bench.example.com/v1alpha1", "kind": "Intent", "spec": run["spec"]}
            )
        )
        log = (self.directory / "bare.log").open("w")
        self._bare = subprocess.Popen(
            [sys.executable, "-m", "bench.bare", str(kubeconfig), str(intent)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
        log.close()
        assert self._bare.stdout is not None
        if self._bare.stdout.readline().strip() != bare.READY:
            raise RuntimeError(f"the baseline ended: {(self.directory / 'bare.log').read_text()[-2000:]}")

    def stop_bare(self) -> None:
        process, self._bare = self._bare, None
        if process is not None:
            process.terminate()
            process.wait(10)
            assert process.stdout is not None
            process.stdout.close()

    def check_bare(self) -> None:
        """Refuse to go on measuring a baseline that has died."""
        if self._bare is None or self._bare.poll() is not None:
            log = self.directory / "bare.log"
            raise RuntimeError(
                f"the baseline does not run: {log.read_text()[-2000:] if log.exists() else ''}"
            )

    def _install_bare(self) -> None:
        source = (deploy_directory() / "crds" / "remediator.dev_remediations.yaml").read_text()
        crd = intent_crd(YAML(typ="safe").load(source))
        self.api.apply(
            f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd['metadata']['name']}", crd
        )
        metadata = {"name": BARE_ACCOUNT, "namespace": BARE_NAMESPACE}
        rbac = "rbac.authorization.k8s.io"
        rules = [
            {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch", "patch"]},
            {"apiGroups": ["bench.example.com"], "resources": ["intents"], "verbs": ["create"]},
        ]
        role = {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "bare"},
            "rules": rules,
        }
        binding = {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "bare"},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "bare"},
            "subjects": [{"kind": "ServiceAccount", **metadata}],
        }
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": BARE_NAMESPACE}}
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}
        self.api.apply(f"/api/v1/namespaces/{BARE_NAMESPACE}", namespace)
        self.api.apply(f"/api/v1/namespaces/{BARE_NAMESPACE}/serviceaccounts/{BARE_ACCOUNT}", account)
        self.api.apply(f"/apis/{rbac}/v1/clusterroles/bare", role)
        self.api.apply(f"/apis/{rbac}/v1/clusterrolebindings/bare", binding)
        wait_until(self._intents_served, timeout_s=30.0, every_s=0.5, what="the kind Intent")

    def _intents_served(self) -> bool:
        # A kind that is new answers 404, then 429, for a moment.
        try:
            return self.api.find(bare.INTENTS) is not None
        except ApiError as error:
            if error.status != HTTPStatus.TOO_MANY_REQUESTS:
                raise
            return False


def intent_crd(crd: Object) -> Object:
    """The Remediation's own kind under another group: same schema, same cost, not ours to act on."""
    names = {"kind": "Intent", "listKind": "IntentList", "plural": "intents", "singular": "intent"}
    spec = {**crd["spec"], "group": "bench.example.com", "names": names}
    return {**crd, "metadata": {"name": "intents.bench.example.com"}, "spec": spec}


def shrunk(node: Object) -> Object:
    """Leave of a node what the product looks at, and what a small node has anyway."""
    metadata, status = node["metadata"], node["status"]
    kept = ("topology.", "example.com/", "testbed/", "kubernetes.io/", "nvidia.com/gpu.p")
    labels = {key: value for key, value in metadata["labels"].items() if key.startswith(kept)}
    conditions = [each for each in status["conditions"] if each["type"] in ("Ready", "MemoryPressure")]
    return {
        **node,
        "metadata": {
            "name": metadata["name"],
            "labels": labels,
            "annotations": {LABEL_ASSET: metadata["annotations"][LABEL_ASSET]},
        },
        "status": {**status, "images": [], "conditions": conditions},
    }
