"""Reads the last-XID gauge as edges: what is new, what was known, what stood there when we came. Pure.

The gauge holds the last code, keeps it after the repair, hides a repeat, and falls to 0 when the
exporter restarts. So only a change to a code counts, bound to the GPU's UUID and the node's boot;
a code that was dealt with is latched until the next boot; and 0 never heals anything.

Source: NVIDIA/dcgm-exporter issues 190, 237 and 500; NVIDIA/DCGM issues 227, 235 and 277.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from remediator.model.instant import write_instant
from remediator.model.ledger import LATCHES_MAX, Latch
from remediator.model.signal import PageReading, XidEdge

GPUS_MAX: Final = 128  # remembered per node; a page that names new GPUs for ever must not fill the memory

LatchKey = tuple[str, int, str]


class GpuMemory(Struct, frozen=True):
    """What the pages of one node said since its boot. Empty: not seen by this process yet.

    ``last`` is the last code by GPU UUID: 0 none, None no sample so far. Pages fetched before
    ``since`` (monotonic seconds) belong to an earlier boot. ``pending`` are latches that the
    ledger does not show yet.
    """

    node_uid: str = ""
    boot_id: str = ""
    since: float = float("-inf")
    last: Mapping[str, int | None] = {}
    pending: tuple[Latch, ...] = ()


class Watch(Struct, frozen=True):
    """What the edges of one node are read against.

    ``codes`` are those that some playbook selecting the node matches; ``baselined`` those among
    them whose first round of pages over the whole fleet has been latched. ``latches`` come from
    the ledger. ``monotonic`` is the process' own clock, ``now`` aware UTC.
    """

    node_uid: str
    boot_id: str
    codes: frozenset[int]
    baselined: frozenset[int]
    latches: tuple[Latch, ...]
    now: datetime
    monotonic: float


class EdgesSeen(Struct, frozen=True):
    """``latches_to_add`` are repeated until the ledger shows them. ``missing`` GPUs, sorted, were
    on the page since the boot and are not on this one: a GPU that is gone is not a healthy one.
    """

    memory: GpuMemory
    edges: tuple[XidEdge, ...] = ()
    latches_to_add: tuple[Latch, ...] = ()
    missing: tuple[str, ...] = ()


def edges(previous: GpuMemory, reading: PageReading | None, watch: Watch) -> EdgesSeen:
    """Compare one page with what was known. The same page twice gives nothing new.

    Args:
        previous: the memory that the last call returned, or an empty one.
        reading: the latest fresh page; None when there is none, which changes nothing.
        watch: node, boot, codes and latches.

    Returns:
        Edges by GPU UUID: one for each change to a watched code that no latch knows. Each comes with
        its ``Fault`` latch. A code found at first sight is an edge of unknown age where the code
        was baselined before (it happened while nobody looked), else a ``Baseline`` latch.
    """
    memory = _bound(previous, watch)
    known = live_latches(watch.latches + memory.pending, watch.boot_id)
    if reading is None or not watch.boot_id or reading.at_monotonic < memory.since:
        return _seen(memory, watch)
    last = dict(memory.last)
    found: list[XidEdge] = []
    added: list[Latch] = []
    for gpu in reading.gpus:
        first_sight = gpu.uuid not in last
        before = last.get(gpu.uuid)
        if gpu.xid is None:  # no sample: what we knew stands
            last.setdefault(gpu.uuid, None)
            continue
        last[gpu.uuid] = gpu.xid
        if gpu.xid not in watch.codes or (gpu.uuid, gpu.xid, watch.boot_id) in known:
            continue
        # Unchanged and not latched: it stood there before any playbook asked for this code.
        new = gpu.xid != before and (not first_sight or gpu.xid in watch.baselined)
        added.append(_latch(gpu.uuid, gpu.xid, "Fault" if new else "Baseline", watch))
        if new:
            found.append(XidEdge(gpu=gpu.uuid, code=gpu.xid, at=watch.now, age_known=not first_sight))
    missing = tuple(sorted(last.keys() - {gpu.uuid for gpu in reading.gpus}))
    for uuid in missing[: max(0, len(last) - GPUS_MAX)]:
        del last[uuid]
    if last != memory.last or added:
        memory = replace(memory, last=last, pending=memory.pending + tuple(added))
    return _seen(memory, watch, tuple(found), missing)


def live_latches(latches: Iterable[Latch], boot_id: str) -> Mapping[LatchKey, Latch]:
    """The latches of this boot by (GPU, code, boot); of two with one key the first stands."""
    live: dict[LatchKey, Latch] = {}
    for latch in latches:
        if latch.boot_id == boot_id:
            live.setdefault(_key(latch), latch)
    return live


def merge_latches(old: Iterable[Latch], new: Iterable[Latch], boot_id: str) -> tuple[Latch, ...]:
    """What the ledger should hold: this boot's latches, the old ones first to stand.

    At most ``LATCHES_MAX``, faults before baselines, and then the oldest: what is left out may be
    seen as new after a restart, so a handled fault must not be.
    """
    live = sorted(
        live_latches((*old, *new), boot_id).values(),
        key=lambda latch: (latch.state != "Fault", latch.at, latch.gpu, latch.code),
    )
    return tuple(live[:LATCHES_MAX])


def _bound(previous: GpuMemory, watch: Watch) -> GpuMemory:
    """The memory of this Node and boot; another one starts empty."""
    if (previous.node_uid, previous.boot_id) == (watch.node_uid, watch.boot_id):
        return previous
    # IMPORTANT: a page that was fetched before we saw the new boot shows the old boot's codes;
    # read against the new boot's empty latches it would be a fault on a machine just repaired.
    since = watch.monotonic if previous.node_uid else float("-inf")
    return GpuMemory(node_uid=watch.node_uid, boot_id=watch.boot_id, since=since)


def _seen(
    memory: GpuMemory, watch: Watch, found: tuple[XidEdge, ...] = (), missing: tuple[str, ...] = ()
) -> EdgesSeen:
    stored = live_latches(watch.latches, watch.boot_id)
    pending = tuple(latch for latch in memory.pending if _key(latch) not in stored)
    if pending != memory.pending:
        memory = replace(memory, pending=pending)
    return EdgesSeen(memory=memory, edges=found, latches_to_add=pending, missing=missing)


def _latch(gpu: str, code: int, state: Literal["Baseline", "Fault"], watch: Watch) -> Latch:
    return Latch(
        gpu=gpu,
        code=code,
        boot_id=watch.boot_id,
        node_uid=watch.node_uid,
        state=state,
        at=write_instant(watch.now),
    )


def _key(latch: Latch) -> LatchKey:
    return (latch.gpu, latch.code, latch.boot_id)
