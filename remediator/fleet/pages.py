"""The text of one exporter page: frozen state in, text out. Pure; no sockets, no clock.

A page has 52 families of eight lines (about 142 KB). Label order and number format are those of
dcgm-exporter: integers as they are, floats with six decimals, no timestamps. A state changes only
by making a new one, so a cached text can never be wrong for the state it was rendered from.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final
from zlib import crc32

from remediator.fleet.dcgm_fields import (
    DRIVER_LABEL,
    DRIVER_LABEL_NEW,
    ENERGY,
    FIELDS,
    XID,
    XID_TEXTS,
    Field,
    Reset,
)
from remediator.fleet.machines import DRIVER_VERSION, GPU_MODEL, Machine

# What some troubles answer with instead.
HTML_BODY: Final = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>Sign in</body></html>\n"
BINARY_BODY: Final = bytes(range(256)) * 64
WATTS: Final = 600  # by which the energy counter of a busy GPU grows: mJ = W x s x 1000


@dataclass(frozen=True, slots=True)
class PodLabels:
    """The pod that holds a GPU while the page is collected."""

    pod: str
    namespace: str = "ml-pretraining"
    container: str = "pytorch-ddp"


@dataclass(frozen=True, slots=True)
class GpuState:
    """One GPU. ``values`` overrides the healthy values, by the old field name; text is printed as it is.

    ``instances`` are MIG instances as (profile, id): every family then has one line per instance.
    """

    index: int
    uuid: str
    pci_bus_id: str
    values: Mapping[str, float | str]
    xid: int = 0
    lost: bool = False
    pod: PodLabels | None = None
    instances: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class PageState:
    """Everything that one exporter shows. ``gpus`` are in index order."""

    node: str
    host: str  # content of the host label; the pod's name where nobody set NODE_NAME
    gpus: tuple[GpuState, ...]
    driver: str = DRIVER_VERSION
    model: str = GPU_MODEL
    new_names: bool = False
    hidden: frozenset[str] = frozenset()  # fields that the site's counters file leaves out
    counters_reset: bool = False  # the exporter's own counters start at zero after a restart

    def with_gpu(self, index: int, **changes: object) -> PageState:
        """Return a copy in which GPU ``index`` has ``changes``."""
        gpus = tuple(
            replace(gpu, **changes) if gpu.index == index else gpu  # type: ignore[arg-type]
            for gpu in self.gpus
        )
        return replace(self, gpus=gpus)


class Trouble(enum.Enum):
    """How an exporter answers instead of with its page."""

    NONE = "none"
    TRUNCATED = "truncated"  # half the promised body, then the connection ends
    MALFORMED = "malformed"  # bad lines between good ones
    HTML = "html"  # somebody's login page, status 200
    BINARY = "binary"
    ENDLESS = "endless"  # a body that goes on until the reader gives up
    EMPTY = "empty"  # status 200, no bytes
    DOWN = "down"  # nobody listens


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server sends for one scrape, after waiting ``slow_s`` seconds."""

    trouble: Trouble
    slow_s: float
    body: bytes


@dataclass(frozen=True, slots=True)
class Rendered:
    """A page but for the one family that moves by itself, the energy counter."""

    before: bytes
    after: bytes
    moving: tuple[tuple[str, int], ...]  # (line without its value, value at uptime 0)

    def text(self, uptime_s: float) -> bytes:
        """The whole page, ``uptime_s`` seconds after the machine booted."""
        grown = int(uptime_s * WATTS * 1000)
        lines = "".join([f"{start}{value + grown}\n" for start, value in self.moving])
        return b"".join((self.before, lines.encode(), self.after))


def a_training_pod(node: str) -> PodLabels:
    """The pod that holds the GPUs of ``node`` unless a test says otherwise."""
    return PodLabels(pod=f"llm-pretrain-70b-h100-worker-{node}-0")


def page_for(machine: Machine, *, pod: PodLabels | None = None) -> PageState:
    """The page of a healthy machine, all of whose GPUs are held by ``pod`` (None: idle)."""
    gpus = tuple(
        GpuState(index=index, uuid=uuid, pci_bus_id=bus, values={}, pod=pod)
        for index, (uuid, bus) in enumerate(zip(machine.gpu_uuids, machine.pci_bus_ids, strict=True))
    )
    return PageState(node=machine.node, host=machine.node, gpus=gpus)


def render(state: PageState) -> Rendered:
    """Print the page of ``state``."""
    shown = [gpu for gpu in state.gpus if not gpu.lost]
    # One block per line of a family: the labels up to the attributes, and the GPU they belong to.
    rows = [(block, gpu) for gpu in shown for block in _blocks(state, gpu)]
    before: list[str] = []
    after: list[str] = []
    moving: list[tuple[str, int]] = []
    target = before
    for field in FIELDS:
        if field.name in state.hidden:
            continue
        name = field.shown_as(new_names=state.new_names)
        target.append(f"# HELP {name} {field.help}\n# TYPE {name} {field.type}\n")
        if field.name == ENERGY:
            target = after
            moving = [_moving(name, block, gpu) for block, gpu in rows if ENERGY not in gpu.values]
            rows_still = [(block, gpu) for block, gpu in rows if ENERGY in gpu.values]
        else:
            rows_still = rows
        target.extend(_line(state, field, name, block, gpu) for block, gpu in rows_still)
    return Rendered("".join(before).encode(), "".join(after).encode(), tuple(moving))


def escaped(text: str) -> str:
    """A label value as the exposition format wants it."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def malformed(text: bytes) -> bytes:
    """A page with every kind of bad line between good ones.

    The good lines stay good: a reader must skip and count the others, not give up. Two of the
    added lines only look bad (quotes and braces inside a label value are legal).
    """
    odd = (
        b'DCGM_FI_DEV_GPU_TEMP{gpu="0",UUID="GPU-odd"} ERROR - FAILED TO CONVERT TO STRING\n'
        b'DCGM_FI_DEV_XID_ERRORS{gpu="0",UUID="GPU-odd",err_msg="a \\"quoted\\" } brace, \\\\ slash"} 0\n'
        b'DCGM_FI_DEV_XID_ERRORS{gpu="0",UUID="GPU-odd-nan"} NaN\n'
        b'DCGM_FI_DEV_XID_ERRORS{gpu="0",UUID="GPU-odd-stamp"} 0 1767225600000\n'
        b'DCGM_FI_DEV_XID_ERRORS{gpu="0",UUID="GPU-no-end} 79\n'
        b'DCGM_FI_DEV_XID_ERRORS{gpu="0",UUID="GPU-no-value"}\n'
        b"DCGM_FI_DEV_XID_ERRORS{gpu=0,UUID=GPU-no-quotes} 79\n"
        b"DCGM_FI_DEV_XID_ERRORS\n"
        b"}{ 79\n"
        b"\n"
        b"# a comment\n"
    )
    cut = text.find(b"\n", len(text) // 2) + 1
    return b"".join((odd, text[:cut], odd, b'DCGM_FI_DEV_XID_ERRORS{gpu="\xff\xfe"} 1\n', text[cut:], odd))


def _blocks(state: PageState, gpu: GpuState) -> list[str]:
    host_label = "hostname" if state.new_names else "Hostname"
    driver_label = DRIVER_LABEL_NEW if state.new_names else DRIVER_LABEL
    head = (
        f'{{gpu="{gpu.index}",UUID="{gpu.uuid}",pci_bus_id="{gpu.pci_bus_id}",'
        f'device="nvidia{gpu.index}",modelName="{escaped(state.model)}"'
    )
    tail = f',{host_label}="{escaped(state.host)}",{driver_label}="{state.driver}"'
    if not gpu.instances:
        return [head + tail]
    return [
        f'{head},GPU_I_PROFILE="{escaped(profile)}",GPU_I_ID="{instance}"{tail}'
        for profile, instance in gpu.instances
    ]


def _attributes(field: Field, gpu: GpuState) -> str:
    # Sorted by name, as the exporter does: container, err_code, err_msg, namespace, pod.
    error = ""
    if field.name == XID:
        text = escaped(XID_TEXTS.get(gpu.xid, "Unknown Error"))
        error = f',err_code="{gpu.xid}",err_msg="{text}"'
    if gpu.pod is None:
        return f"{error}}} "
    pod = gpu.pod
    container = f',container="{escaped(pod.container)}"'
    return f'{container}{error},namespace="{escaped(pod.namespace)}",pod="{escaped(pod.pod)}"}} '


def _line(state: PageState, field: Field, name: str, block: str, gpu: GpuState) -> str:
    return f"{name}{block}{_attributes(field, gpu)}{_value(state, field, gpu)}\n"


def _moving(name: str, block: str, gpu: GpuState) -> tuple[str, int]:
    seed = crc32(gpu.uuid.encode())
    return f"{name}{block}{_attributes(FIELDS[0], gpu)}", seed


def _value(state: PageState, field: Field, gpu: GpuState) -> str:
    if field.name == XID:
        return str(gpu.xid)
    value = gpu.values.get(field.name)
    if value is None:
        began_again = state.counters_reset and field.type == "counter" and field.reset is Reset.RESTART
        value = 0 if began_again else _healthy(field, gpu)
    if isinstance(value, str):
        return value
    if field.decimals:
        return f"{value:.{field.decimals}f}"
    return str(int(value)) if float(value).is_integer() else f"{value:.6f}"


def _healthy(field: Field, gpu: GpuState) -> float:
    if field.low == field.high:
        return field.low
    # A hash, not dice: the same GPU shows the same value in every process, and it costs nothing.
    share = crc32(f"{gpu.uuid}/{field.name}".encode()) / 2**32
    value = field.low + (field.high - field.low) * share
    return value if field.decimals else round(value)
