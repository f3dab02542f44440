"""Changes of one Node as its kubelet, its detectors or its provider would make them.

Status is written by PUT with the version that was read, so that nothing which another writer put
there gets lost; a conflict is read and tried again, a bounded number of times.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from remediator.errors import TransientError
from remediator.fleet.node_objects import (
    KUBELET_ALIVE,
    KUBELET_LABEL,
    Object,
    condition,
)
from remediator.model.keys import TAINT_UNSCHEDULABLE
from remediator.testbed.api import Api, ApiError
from remediator.testbed.waiting import now

NODES: Final = "/api/v1/nodes"
GPU_RESOURCE: Final = "nvidia.com/gpu"
# While a node has it, its kubelet lives and reports Ready=False with this text (data/stages.yaml).
ANNOTATION_NOT_READY: Final = "testbed/not-ready"
CONFLICTS_MAX: Final = 20


def timestamp() -> str:
    """Now, as Kubernetes writes it."""
    return now().strftime("%Y-%m-%dT%H:%M:%SZ")


def edit_status(api: Api, name: str, change: Callable[[Object], None]) -> Object:
    """Let ``change`` work on the Node's status until the server takes the result.

    Raises:
        TransientError: somebody else was faster ``CONFLICTS_MAX`` times in a row.
        ApiError: any other refusal; 404 where there is no such node.
    """
    return _edit(api, name, lambda node: change(node["status"]), subresource="status")


def edit_taints(api: Api, name: str, change: Callable[[list[Object]], list[Object]]) -> Object:
    """Let ``change`` make the Node's taints out of those that it has; as ``edit_status``."""

    def edit(node: Object) -> None:
        node["spec"]["taints"] = change(node["spec"].get("taints") or [])

    return _edit(api, name, edit, subresource="")


def _edit(api: Api, name: str, change: Callable[[Object], None], *, subresource: str) -> Object:
    for _ in range(CONFLICTS_MAX):
        node = api.get(f"{NODES}/{name}")
        change(node)
        try:
            return api.replace(f"{NODES}/{name}", node, subresource=subresource)
        except ApiError as error:
            if error.status != HTTPStatus.CONFLICT:
                raise
    raise TransientError(f"node {name}: it changed under us {CONFLICTS_MAX} times in a row")


def set_condition(api: Api, name: str, type_: str, status: str, reason: str, message: str) -> None:
    """Set one condition; the transition time moves only if the status changes."""

    def change(body: Object) -> None:
        fresh = condition(type_, status, reason, message, timestamp())
        rows = body.setdefault("conditions", [])
        for index, row in enumerate(rows):
            if row["type"] == type_:
                if row["status"] == status:
                    fresh["lastTransitionTime"] = row.get("lastTransitionTime", fresh["lastTransitionTime"])
                rows[index] = fresh
                return
        rows.append(fresh)

    edit_status(api, name, change)


def set_boot_id(api: Api, name: str, boot_id: str) -> None:
    """Report another boot."""

    def change(body: Object) -> None:
        body["nodeInfo"]["bootID"] = boot_id

    edit_status(api, name, change)


def set_allocatable_gpus(api: Api, name: str, count: int | None) -> None:
    """Report ``count`` allocatable GPUs, as the device plugin does; None for as many as there are."""

    def change(body: Object) -> None:
        capacity = body["capacity"].get(GPU_RESOURCE)
        if capacity is not None:
            body["allocatable"][GPU_RESOURCE] = capacity if count is None else str(count)

    edit_status(api, name, change)


def set_kubelet(api: Api, name: str, *, alive: bool) -> None:
    """Let the fake kubelet look after the node, or fall silent: no lease, no status, no pod ends."""
    api.merge_patch(
        f"{NODES}/{name}", {"metadata": {"labels": {KUBELET_LABEL: KUBELET_ALIVE if alive else None}}}
    )


def set_not_ready(api: Api, name: str, text: str | None) -> None:
    """Let the living kubelet report Ready=False with ``text``; None ends that."""
    api.merge_patch(f"{NODES}/{name}", {"metadata": {"annotations": {ANNOTATION_NOT_READY: text}}})


def boot_id_of(node: Object) -> str:
    """The boot that the node reports, or empty text."""
    return str(node.get("status", {}).get("nodeInfo", {}).get("bootID", ""))


def status_of(node: Object, type_: str) -> str:
    """Status of one condition, or empty text where the node has none."""
    rows = node.get("status", {}).get("conditions", [])
    return next((str(row["status"]) for row in rows if row["type"] == type_), "")


def lifecycle_taints(node: Object) -> list[str]:
    """Keys of the taints that Kubernetes' node lifecycle sets for a sick node; a cordon's is none of them."""
    taints = node.get("spec", {}).get("taints") or []
    keys = [str(taint["key"]) for taint in taints]
    return [key for key in keys if key.startswith("node.kubernetes.io/") and key != TAINT_UNSCHEDULABLE]


def is_settled(node: Object) -> bool:
    """Whether the node is Ready and bears no taint of Kubernetes' own node lifecycle."""
    return status_of(node, "Ready") == "True" and not lifecycle_taints(node)
