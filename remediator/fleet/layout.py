"""Layouts of fleets: which nodes there are, rack by rack. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from string import ascii_lowercase
from typing import Final
from uuid import UUID, uuid5

from remediator.errors import PermanentError
from remediator.fleet.machines import address_for, machine_for
from remediator.fleet.node_objects import NodeSpec

TRAIN: Final = "train"
INFER: Final = "infer"
BUFFER: Final = "buffer"
ZONES: Final = ("zone-1", "zone-2")
RACKS_MAX: Final = 26 * 27

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
