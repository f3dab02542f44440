"""Puts a fleet of fake GPU nodes on a control plane, and takes it off again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from typing import Final

from remediator.fleet.node_objects import NodeSpec, node_object
from remediator.testbed.api import Api, ApiError
from remediator.testbed.node_edits import NODES, is_settled, timestamp
from remediator.testbed.waiting import wait_until

THREADS: Final = 8
PER_NODE_S: Final = 0.2
PODS: Final = "/api/v1/pods"


def apply_fleet(api: Api, specs: Sequence[NodeSpec], *, eks: bool = False) -> None:
    """Create all nodes and wait until each is Ready and free of lifecycle taints.

    Raises:
        ApiError: a node exists already, or the server refuses one.
        WaitExpiredError: some node was not ready in time; names the first ones.
    """
    at = timestamp()
    _in_parallel(
        # A kubelet registers itself with its full status; the server keeps that of a new Node.
        [partial(api.create, NODES, node_object(spec, at=at, eks=eks)) for spec in specs]
    )
    wait_settled(api, [spec.name for spec in specs])


def wait_settled(api: Api, names: Sequence[str]) -> None:
    """Wait until all named nodes are Ready and free of lifecycle taints, a minute and a while for each."""
    waiting = set(names)

    def look() -> bool:
        try:
            nodes = api.list(NODES)
        except ApiError as error:
            # The next page of a list, whose version the busy watch cache has not reached yet.
            if error.status == HTTPStatus.GATEWAY_TIMEOUT:
                return False
            raise
        waiting.difference_update(node["metadata"]["name"] for node in nodes if is_settled(node))
        return not waiting

    wait_until(
        look,
        timeout_s=60.0 + PER_NODE_S * len(names),
        every_s=0.1 if len(names) <= 100 else 2.0,  # a list of 1,000 such nodes is 25 MB
        what=f"readiness of {len(names)} nodes",
        detail=lambda: f"{len(waiting)} are not, such as {', '.join(sorted(waiting)[:5])}",
    )


def remove_fleet(api: Api, names: Iterable[str], *, timeout_s: float = 60.0) -> None:
    """Delete nodes and every pod bound to them, and wait until all are gone.

    Pods go by force: nobody is left to end them. Pods of a DaemonSet or a Deployment that lives on
    come back only on nodes that remain.
    """
    gone = sorted(set(names))
    _in_parallel([partial(api.remove, f"{NODES}/{name}") for name in gone])
    chosen = set(gone)

    def look() -> bool:
        bound = [pod for pod in api.list(PODS) if pod["spec"].get("nodeName") in chosen]
        _in_parallel([partial(api.remove, _pod_path(pod["metadata"]), grace_s=0) for pod in bound])
        left = [node for node in api.list(NODES) if node["metadata"]["name"] in chosen]
        return not bound and not left

    wait_until(look, timeout_s=timeout_s, every_s=0.1, what=f"the end of {len(gone)} nodes and their pods")


def _pod_path(metadata: dict[str, str]) -> str:
    return f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"


def _in_parallel(calls: Sequence[Callable[[], object]]) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(call) for call in calls]:
            done.result()
