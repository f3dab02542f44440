"""The shipped manifests on a real API server, and hands to send requests under our ServiceAccount."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from remediator.adapters.kube import bodies
from remediator.adapters.kube.projection import node_decoder
from remediator.adapters.kube.records import KubeRecords
from remediator.adapters.kube.writer import KubeWriter
from remediator.model.action import Attribution, PatchNode
from remediator.model.views import NodeView
from remediator.ports import Written
from remediator.testbed.api import Api, ApiError
from remediator.testbed.launcher import ControlPlane
from remediator.testbed.waiting import wait_until
from tests.contract.live import NODES, ROOT, WAIT_S, a_node, connected
from tests.deploy.manifests import DEPLOY
from tests.unit.core.builders import a_run

NAMESPACE: Final = "remediator"
POLICY: Final = f"{ROOT}/remediationpolicies/cluster"
TERM: Final = 5
KEYS: Final = ("example.com/pool", "example.com/spare", "nvidia.com/gpu", "team", "example.com/note")
# Listed by mistake: these stay out of reach all the same.
PROTECTED: Final = (
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "node.kubernetes.io/made-up",
    "node.kubernetes.io/out-of-service",
)
PROBE: Final = "guarded-probe"
NOT_READY: Final = "node.kubernetes.io/not-ready"
CORDONED: Final = "node.kubernetes.io/unschedulable"

_nodes = node_decoder(gpu_resource="nvidia.com/gpu")


@dataclass(frozen=True)
class Guarded:
    """``admin`` is the harness, ``account`` our ServiceAccount as shipped, ``person`` anybody else."""

    plane: ControlPlane
    admin: Api
    account: Api
    person: Api
    kubeconfig: Path

    def node(self, name: str, *, notes: Mapping[str, str] | None = None, **spec: object) -> str:
        """Make a Node anew, as it shall be, and return its name."""
        self.admin.remove(f"{NODES}/{name}")
        made = a_node(name, "guarded", **spec)
        made["metadata"]["annotations"] = dict(notes or {})
        made["metadata"]["labels"] |= {"example.com/pool": "train", "team": "train", "vendor.com/rack": "r1"}
        self.admin.create(NODES, made)
        self.settled(name)
        return name

    def settled(self, name: str) -> None:
        """Wait until the server's own controllers have said what they say about a new or cordoned node."""

        def quiet(found: dict[str, Any]) -> bool:
            keys = [each["key"] for each in found["spec"].get("taints", ())]
            return NOT_READY not in keys and (CORDONED in keys) == bool(found["spec"].get("unschedulable"))

        self.admin.wait_for(f"{NODES}/{name}", quiet, timeout_s=WAIT_S)

    def get(self, name: str) -> dict[str, Any]:
        return self.admin.get(f"{NODES}/{name}")

    def view(self, name: str) -> NodeView:
        """The node as the program sees it."""
        found = _nodes.listed(msgspec.Raw(msgspec.json.encode(self.get(name)))).view
        assert found is not None
        return found

    def set_term(self, term: int | None) -> None:
        """Put a term into the policy and wait until the server judges by it."""
        self.admin.merge_patch(POLICY, {"status": {"term": term}}, subresource="status")
        wait_until(lambda: self._judged_by(term), timeout_s=WAIT_S, what=f"term {term} to be in force")

    def _judged_by(self, term: int | None) -> bool:
        if term is None:
            return "has no term" in refusal(self.account, PROBE, {}, term=1)
        older = refusal(self.account, PROBE, {}, term=term - 1) if term > 1 else "is older than"
        return "is older than" in older and not refusal(self.account, PROBE, {}, term=term)

    @asynccontextmanager
    async def writer(self) -> AsyncIterator[KubeWriter]:
        async with connected(self.kubeconfig) as transport:
            yield KubeWriter(transport, may_write=lambda: None)

    @asynccontextmanager
    async def records(self) -> AsyncIterator[KubeRecords]:
        async with connected(self.kubeconfig) as transport:
            yield KubeRecords(transport, may_write=lambda: None, instance="contract")

    async def write(self, node: NodeView, patch: Mapping[str, object], term: int = TERM) -> Written:
        """Send a patch of core's through the program's own door, under its own account."""
        action = PatchNode(node.name, node.uid, node.resource_version, patch)
        async with self.writer() as writer:
            return await writer.apply(action, Attribution(term=term, run="r-1", step="s"))


def install(plane: ControlPlane, directory: Path) -> Guarded:
    """Apply everything that deploy/ ships, as an operator would, and wait until it is in force."""
    plane.kubectl("apply", "--server-side", "-f", str(DEPLOY / "crds"))
    plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
    overlay = str(DEPLOY / "overlays/repair-job")
    wait_until(
        lambda: plane.kubectl("apply", "-k", overlay, check=False).returncode == 0,
        timeout_s=30.0,
        every_s=0.5,
        what="the manifests to be accepted",
    )
    admin = plane.admin()
    admin.merge_patch(POLICY, {"spec": {"nodeKeys": [*KEYS, *PROTECTED]}})
    kubeconfig = admin.service_account_kubeconfig(NAMESPACE, "remediator", directory / "account.kubeconfig")
    person = admin.as_user("jo", ["system:masters"])
    guarded = Guarded(plane, admin, Api.from_kubeconfig(kubeconfig), person, kubeconfig)
    guarded.node(PROBE)
    guarded.set_term(TERM)
    # Each policy is watched by itself: one may be in force before the other.
    wait_until(lambda: _old_runs_are_refused(guarded), timeout_s=WAIT_S, what="old runs to be refused")
    return guarded


def _old_runs_are_refused(guarded: Guarded) -> bool:
    runs = f"{ROOT}/remediations"
    body = bodies.new_object(a_run("guarded-probe-1", term=1))
    try:
        guarded.account.create(runs, msgspec.json.decode(body))
    except ApiError as error:
        return "is older than" in str(error.body["message"])
    guarded.admin.remove(f"{runs}/guarded-probe-1")
    return False


def refusal(api: Api, node: str, body: Mapping[str, Any], *, term: int | None = TERM) -> str:
    """Patch a Node by hand; return why the server refuses it, or empty text when it was taken."""
    metadata = dict(body.get("metadata", {}))
    if term is not None:
        metadata["annotations"] = {**metadata.get("annotations", {}), "remediator.dev/term": str(term)}
    try:
        api.merge_patch(f"{NODES}/{node}", {**body, "metadata": metadata})
    except ApiError as error:
        if error.status != 403:
            raise
        return str(error.body["message"])
    return ""
