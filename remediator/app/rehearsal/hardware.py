"""The machines behind the nodes: their GPUs, and the exporter page that tells of them. No objects.

An exporter that speaks is read all the time, so its page is as young as every look at it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from remediator.core.dcgm import old_name
from remediator.model.signal import GpuReading, PageReading
from remediator.model.views import NodeView
from remediator.ports import Clock

ALWAYS: Final = float("inf")  # when a page that is read all the time was read, on any clock


@dataclass(slots=True)
class Machine:
    """One machine. ``values`` by DCGM field and GPU index; an absent GPU of a field publishes 0."""

    name: str
    gpus: int
    silent: bool = False
    codes: dict[int, int] = field(default_factory=dict)
    values: dict[str, dict[int, float]] = field(default_factory=dict)


class Hardware:
    """All machines by node name, and what their exporters say."""

    def __init__(self, nodes: Iterable[NodeView], *, clock: Clock) -> None:
        self._clock = clock
        self._machines = {node.name: Machine(node.name, node.gpus) for node in nodes}
        self._changed: set[str] = set(self._machines)

    def take_changed(self) -> tuple[str, ...]:
        """Nodes whose page says something else than when this was asked last."""
        changed = tuple(sorted(self._changed))
        self._changed.clear()
        return changed

    def speaks(self, node: str) -> bool:
        return not self._machines[node].silent

    def set_silent(self, node: str, silent: bool) -> None:
        self._of(node).silent = silent

    def set_code(self, node: str, gpu: int, code: int) -> None:
        self._of(node).codes[gpu] = code

    def _of(self, node: str) -> Machine:
        self._changed.add(node)
        return self._machines[node]

    def page(self, node: str) -> PageReading:
        """The page as it stands; one that fell silent keeps the moment of its last word."""
        machine = self._machines[node]
        gpus = (
            GpuReading(
                uuid=f"GPU-{node}-{index}",
                index=str(index),
                xid=machine.codes.get(index, 0),
                values=tuple(sorted((name, by.get(index, 0.0)) for name, by in machine.values.items())),
            )
            for index in range(machine.gpus)
        )
        return PageReading(
            node=node,
            at=self._clock.now(),
            at_monotonic=self._clock.monotonic() if machine.silent else ALWAYS,
            gpus=tuple(gpus),
            host=node,
        )

    def publish(self, node: str, name: str) -> None:
        """From now on this field is on the node's page, 0 for every GPU that says nothing else."""
        self._of(node).values.setdefault(old_name(name), {})

    def set_metric(self, node: str, name: str, gpu: int, value: float) -> None:
        self._of(node).values.setdefault(old_name(name), {})[gpu] = value

    def boot(self, node: str, *, gpus: int | None, cured: bool) -> None:
        """What a boot does to GPUs: codes are gone, and bad values too where it cures."""
        machine = self._of(node)
        machine.codes.clear()
        machine.silent = False
        if cured:
            machine.values = {name: {} for name in machine.values}
        if gpus is not None:
            machine.gpus = gpus
