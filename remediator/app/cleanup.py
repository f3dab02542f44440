"""Finds and takes away everything of ours that is outside of our own objects: the way out.

Nothing is forced: a controller that still leads is reported, and nothing is taken from under it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec
from msgspec import UNSET, Struct

from remediator.adapters.kube.errors import classify_write
from remediator.adapters.kube.records import POLICIES
from remediator.adapters.kube.writer import MERGE_PATCH, WRITE_TIMEOUT_S
from remediator.app.leadership import Leadership, lease_path
from remediator.app.settings import Settings
from remediator.app.snapshot import Snapshot
from remediator.core import patches
from remediator.core.custody import run_named_by
from remediator.core.joins.gate import is_gate
from remediator.core.own_keys import keys_of
from remediator.core.prior import Prior, parse_prior, read_prior
from remediator.model.keys import GROUP, POLICY_NAME, TAINT_QUARANTINE
from remediator.model.pool import PoolSpec, ResourcePool
from remediator.model.remediation import Remediation
from remediator.model.views import NodeView, TaintView
from remediator.ports import Lane, Outcome, Transport

PREFIX = f"{GROUP}/"


class NodeLeftover(Struct, frozen=True, kw_only=True):
    """What one Node carries of ours, and the patch that takes it away.

    ``prior_known`` False: our quarantine stands, but nothing says what was there before; then the
    cordon stays as it is, for people to judge.
    """

    node: str
    resource_version: str
    taints: tuple[str, ...]
    labels: tuple[str, ...]
    annotations: tuple[str, ...]
    uncordons: bool
    prior_known: bool
    patch: Mapping[str, object]

    @property
    def text(self) -> str:
        """One line for people."""
        parts = [f"taint {key}" for key in self.taints]
        parts += ["our cordon"] if self.uncordons else []
        parts += [f"label {key}" for key in self.labels]
        parts += [f"annotation {key}" for key in self.annotations]
        note = "" if self.prior_known else " (no prior state is known: a cordon stays)"
        return f"{', '.join(parts)}{note}"


def leftovers(
    nodes: Iterable[NodeView],
    pools: Mapping[str, ResourcePool],
    runs: Mapping[str, Remediation],
    gate: str = "",
) -> tuple[NodeLeftover, ...]:
    """Every Node that carries something of ours, by name. Labels that a pool names stay: they are people's.

    Args:
        runs: all there are, open and ended, by name; their copy of the prior state stands in for one
            that is gone from the Node.
        gate: key of the join gate in force: nobody else would ever open it.
    """
    kept = frozenset[str]().union(*(keys_of(pool.spec) for pool in pools.values()))
    repair = tuple(pool.spec for pool in pools.values() if pool.spec.role == "Repair")
    found = (_of_node(node, kept, repair, runs, gate) for node in sorted(nodes, key=lambda each: each.name))
    return tuple(each for each in found if each is not None)


def _of_node(
    node: NodeView,
    kept: frozenset[str],
    repair: tuple[PoolSpec, ...],
    runs: Mapping[str, Remediation],
    gate: str,
) -> NodeLeftover | None:
    def ours(taint: TaintView) -> bool:
        return _our_taint(taint, kept) or is_gate(taint, gate)

    taints = tuple(each.key for each in node.taints if ours(each))
    labels = tuple(sorted(key for key in node.labels if _ours(key, kept)))
    annotations = tuple(sorted(key for key in node.annotations if _ours(key, kept)))
    if not (taints or labels or annotations):
        return None
    prior = read_prior(node) or _recorded(node, runs)
    quarantined = TAINT_QUARANTINE in taints
    before = prior or Prior(unschedulable=node.unschedulable)
    # A spare carries our mark, but nothing was taken from it: there is nothing to restore.
    restored = patches.restore(node, before, repair) if quarantined or prior else {}
    return NodeLeftover(
        node=node.name,
        resource_version=node.resource_version,
        taints=taints,
        labels=labels,
        annotations=annotations,
        uncordons="unschedulable" in _part(restored, "spec"),
        prior_known=prior is not None or not quarantined,
        patch=_whole(node, restored, labels, annotations, ours),
    )


def _ours(key: str, kept: frozenset[str]) -> bool:
    return key.startswith(PREFIX) and key not in kept


def _our_taint(taint: TaintView, kept: frozenset[str]) -> bool:
    return _ours(taint.key, kept) or patches.is_ours(taint)


def _recorded(node: NodeView, runs: Mapping[str, Remediation]) -> Prior | None:
    run = runs.get(run_named_by(node))
    return parse_prior(run.status.prior) if run is not None and run.status is not UNSET else None


def _whole(
    node: NodeView,
    restored: Mapping[str, object],
    labels: tuple[str, ...],
    annotations: tuple[str, ...],
    ours: Callable[[TaintView], bool],
) -> Mapping[str, object]:
    """What ``restore`` gives back, and everything else of ours away."""
    metadata, spec = _part(restored, "metadata"), _part(restored, "spec")
    raw = spec.get("taints", msgspec.Raw(node.taints_raw))
    assert isinstance(raw, msgspec.Raw)
    return {
        "metadata": {
            "labels": {**_part(metadata, "labels"), **dict.fromkeys(labels)},
            "annotations": {**_part(metadata, "annotations"), **dict.fromkeys(annotations)},
        },
        "spec": {**spec, "taints": patches.without_taints(bytes(raw), ours)},
    }


def _part(patch: Mapping[str, object], key: str) -> dict[str, object]:
    part = patch.get(key, {})
    assert isinstance(part, Mapping)
    return dict(part)


async def clean_node(transport: Transport, leftover: NodeLeftover) -> str:
    """Take everything of ours from one Node. Returns why not, or empty text.

    Raises:
        PermanentError: the server refuses, for good.
        TransientError: no reply; whether it was done is not known.
    """
    metadata = {**_part(leftover.patch, "metadata"), "resourceVersion": leftover.resource_version}
    return await _patch(transport, f"/api/v1/nodes/{leftover.node}", {**leftover.patch, "metadata": metadata})


async def clean_grants(snapshot: Snapshot) -> str:
    """Take all grants from the policy's status. Returns why not, or empty text; raises as above."""
    policy = snapshot.world.policy
    assert policy is not None
    version = policy.policy.metadata.resource_version
    body = {"metadata": {"resourceVersion": version}, "status": {"grants": None}}
    return await _patch(snapshot.transport, f"{POLICIES}/{POLICY_NAME}/status", body)


async def clean_lease(transport: Transport, settings: Settings, lease: Leadership) -> str:
    """Delete the Lease that was read. Returns why not, or empty text; raises as above."""
    path = lease_path(settings.namespace, settings.lease)
    preconditions = {"uid": lease.uid, "resourceVersion": lease.resource_version}
    body = msgspec.json.encode({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": preconditions})
    response = await transport.request("DELETE", path, body=body, timeout_s=WRITE_TIMEOUT_S, lane=Lane.NORMAL)
    written = classify_write(response, f"DELETE {path}")
    return "" if written.outcome is Outcome.APPLIED else written.message


async def _patch(transport: Transport, path: str, body: Mapping[str, object]) -> str:
    response = await transport.request(
        "PATCH",
        path,
        headers={"Content-Type": MERGE_PATCH},
        body=msgspec.json.encode(body),
        timeout_s=WRITE_TIMEOUT_S,
        lane=Lane.NORMAL,
    )
    written = classify_write(response, f"PATCH {path}")
    return "" if written.outcome is Outcome.APPLIED else written.message
