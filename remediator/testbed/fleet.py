"""Fleets of fake GPU nodes: which nodes there are, and putting them on a control plane.

The layouts are pure; ``apply_fleet`` and ``remove_fleet`` talk to an API server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from string import ascii_lowercase
from typing import Final
from uuid import UUID, uuid5

from remediator.errors import PermanentError
from remediator.testbed.api import Api
from remediator.testbed.machines import address_for, machine_for
from remediator.testbed.node_edits import NODES, is_settled, timestamp
from remediator.testbed.node_objects import NodeSpec, node_object
from remediator.testbed.waiting import wait_until

TRAIN: Final = "train"
INFER: Final = "infer"
BUFFER: Final = "buffer"
ZONES: Final = ("zone-1", "zone-2")
RACKS_MAX: Final = 26 * 27
THREADS: Final = 8
PODS: Final = "/api/v1/pods"

_CLUSTER: Final = UUID("0d9ad9de-5a3c-4c4e-8f6b-94e0ff6f9c11")


def standard_fleet() -> tuple[NodeSpec, ...]:
    """The fleet of the demo and of most stories: 64 GPU nodes in 8 racks, and two system nodes.

    Each rack has six nodes for training, one for inference and one in the buffer.
    """
    return build_fleet()


def build_fleet(
    racks: int = 8, per_rack: int = 8, *, infer: int = 1, buffer: int = 1, system: int = 2
) -> tuple[NodeSpec, ...]:
    """Lay out a fleet: ``gpu-a-01`` and on, rack by rack, then ``system-01`` and on.

    Args:
        racks: each is one NVLink domain; the first half lies in one zone, the rest in the other.
        per_rack: nodes in a rack, 1 to 99: training first, then inference, the buffer last.
        infer: of them for inference.
        buffer: of them in the buffer.
        system: nodes without pool, taint and GPUs.
    """
    if not 0 <= racks <= RACKS_MAX or not 1 <= per_rack <= 99 or not 0 <= system <= 99:
        raise PermanentError(
            f"{racks} racks of {per_rack}, {system} system nodes; at most {RACKS_MAX}, 99, 99"
        )
    if infer < 0 or buffer < 0 or infer + buffer > per_rack:
        raise PermanentError(f"{infer} for inference and {buffer} spare do not fit into a rack of {per_rack}")
    pools = [TRAIN] * (per_rack - infer - buffer) + [INFER] * infer + [BUFFER] * buffer
    specs = [
        _gpu_node(rack, slot, pool, racks=racks, per_rack=per_rack)
        for rack in range(racks)
        for slot, pool in enumerate(pools)
    ]
    return (*specs, *(_system_node(number, first=len(specs)) for number in range(system)))


def rack_name(number: int) -> str:
    """Rack 0 is ``a``, 25 ``z``, 26 ``aa``, and so on as in a spreadsheet."""
    if number < 26:
        return ascii_lowercase[number]
    return ascii_lowercase[number // 26 - 1] + ascii_lowercase[number % 26]


def addresses_of(specs: Iterable[NodeSpec]) -> dict[str, str]:
    """Node name to loopback address, for an exporter server with one address per node."""
    return {spec.name: spec.address for spec in specs}


def apply_fleet(api: Api, specs: Sequence[NodeSpec], *, eks: bool = False, timeout_s: float = 60.0) -> None:
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
    wait_settled(api, [spec.name for spec in specs], timeout_s=timeout_s)


def wait_settled(api: Api, names: Sequence[str], *, timeout_s: float) -> None:
    """Wait until all named nodes are Ready and free of lifecycle taints."""
    waiting = set(names)

    def look() -> bool:
        waiting.difference_update(node["metadata"]["name"] for node in api.list(NODES) if is_settled(node))
        return not waiting

    wait_until(
        look,
        timeout_s=timeout_s,
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


def _gpu_node(rack: int, slot: int, pool: str, *, racks: int, per_rack: int) -> NodeSpec:
    letter = rack_name(rack)
    name = f"gpu-{letter}-{slot + 1:02d}"
    return NodeSpec(
        name=name,
        machine=machine_for(name),
        address=address_for(rack * per_rack + slot),
        zone=ZONES[0] if rack < (racks + 1) // 2 else ZONES[1],
        rack=letter,
        pool=pool,
        clique=f"{uuid5(_CLUSTER, letter)}.{rack + 1}",
    )


def _system_node(number: int, *, first: int) -> NodeSpec:
    name = f"system-{number + 1:02d}"
    zone = ZONES[number % len(ZONES)]
    return NodeSpec(name, machine_for(name, gpus=0), address_for(first + number), zone)


def _pod_path(metadata: dict[str, str]) -> str:
    return f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"


def _in_parallel(calls: Sequence[Callable[[], object]]) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(call) for call in calls]:
            done.result()
