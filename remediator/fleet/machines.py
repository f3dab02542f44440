"""The hardware behind a fake node: identities that node objects and exporter pages share.

Pure and deterministic: the same name and chassis number give the same machine in every process,
so a page served by one process fits a Node created by another. Knows nothing of either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID, uuid5

GPU_MODEL: Final = "NVIDIA H100 80GB HBM3"
DRIVER_VERSION: Final = "570.172.08"
GPUS_PER_MACHINE: Final = 8
ADDRESSES_MAX: Final = 250 * 250

# The order in which an eight-GPU baseboard of this generation shows up on the PCI bus.
_BUSES: Final = ("1B", "43", "52", "61", "9D", "C3", "D1", "DF")
_NAMESPACE: Final = UUID("5b1f2b0e-6f5c-4d0a-9a54-3a4b7c2f1e88")


@dataclass(frozen=True, slots=True)
class Machine:
    """One chassis. ``gpu_uuids`` and ``pci_bus_ids`` are in index order, one entry per GPU."""

    node: str
    chassis: int
    system_uuid: str
    machine_id: str
    boot_id: str
    asset_tag: str
    gpu_uuids: tuple[str, ...]
    pci_bus_ids: tuple[str, ...]


def machine_for(node: str, *, chassis: int = 0, gpus: int = GPUS_PER_MACHINE) -> Machine:
    """Return the machine number ``chassis`` that bears the name ``node``.

    Args:
        node: name of the Node.
        chassis: 0 for the first machine of that name, 1 for the one that replaced it, and so on.
        gpus: how many GPUs it has, 0 to 8.
    """
    if not 0 <= gpus <= GPUS_PER_MACHINE:
        raise ValueError(f"{node}: {gpus} GPUs; a machine has 0 to {GPUS_PER_MACHINE}")
    seed = f"{node}/{chassis}"
    system = uuid5(_NAMESPACE, seed)
    return Machine(
        node=node,
        chassis=chassis,
        system_uuid=str(system),
        machine_id=uuid5(system, "machine-id").hex,
        boot_id=str(uuid5(system, "boot/0")),
        asset_tag=f"SN{uuid5(system, 'asset').int % 10**8:08d}",
        gpu_uuids=gpu_uuids(str(system), gpus=gpus),
        pci_bus_ids=tuple(f"00000000:{bus}:00.0" for bus in _BUSES[:gpus]),
    )


def gpu_uuids(system_uuid: str, *, gpus: int, boards: int = 0) -> tuple[str, ...]:
    """UUIDs of the GPUs in a machine, in index order; ``boards`` counts how often they were swapped."""
    system = UUID(system_uuid)
    return tuple(f"GPU-{uuid5(system, f'gpu/{index}/{boards}')}" for index in range(gpus))


def next_boot_id(boot_id: str) -> str:
    """The boot ID after one more reboot. Derived from the last one, so that nobody has to count."""
    return str(uuid5(_NAMESPACE, boot_id))


def address_for(index: int) -> str:
    """Loopback address of node number ``index`` of a fleet (the pods' own range is another one)."""
    if not 0 <= index < ADDRESSES_MAX:
        raise ValueError(f"node number {index}: loopback addresses for 0 to {ADDRESSES_MAX - 1} only")
    return f"127.9.{index // 250}.{index % 250 + 1}"
