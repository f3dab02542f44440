"""Reads a dcgm-exporter page into a ``PageReading``: the wanted families only, folded by GPU.

A byte scanner and not the usual parser, which takes seventy times as long, renames counters and
gives up the whole page at one bad value. A line that makes no sense is skipped and counted. It
says what stands on the page and judges nothing: NaN and DCGM's blanks are missing, never zero.

Pages are split into lines instead of searched once per family: that costs the same for any number
of families, and a line can be out of its group.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Final

from remediator.core.dcgm import ALWAYS_READ, OLD_NAMES, TELLING, XID, old_name
from remediator.errors import PageError
from remediator.model.signal import GpuReading, PageReading

LINES_MAX: Final = 20_000  # 16 GPUs with seven instances each and 100 families make 11,200
LINE_BYTES_MAX: Final = 4_096
GPUS_MAX: Final = 256
UUID_MAX: Final = 64
EXCERPT_LINES_MAX: Final = 16
EXCERPT_CHARS_MAX: Final = 256
XID_MAX: Final = 999

_BLANK: Final = float(0x7FFF_FFFF_FFFF_FFF0)  # what DCGM prints for "no data" in a 64-bit field
_SMALL: Final = {f" {value}".encode(): float(value) for value in range(256)}  # most values are one of these
_PAIRS_MAX: Final = 8_192
_PROBE_LINES: Final = 32

_UUID_LABELS: Final = (b"UUID", b"uuid", b"gpu_uuid")
_HOST_LABELS: Final = (b"Hostname", b"hostname")
_DRIVER_LABELS: Final = (b"DCGM_FI_DRIVER_VERSION", b"DCGM_FI_SYSTEM_DRIVER_VERSION")

_LABEL: Final = (
    rb'[ \t]*+([a-zA-Z_][a-zA-Z0-9_]*+)[ \t]*+=[ \t]*+"([^"\\]*+(?:\\.[^"\\]*+)*+)"[ \t]*+(?:,[ \t]*+|\Z)'
)
_labels_in = re.compile(_LABEL).findall
_well_formed = re.compile(rb"(?:" + _LABEL + rb")*+").fullmatch
# The order in which the exporter writes them; the tail has to be well formed all the same.
_usual = re.compile(rb'gpu="([^"\\]*+)",UUID="([^"\\]++)",(?:' + _LABEL + rb")*+").fullmatch
_sample = re.compile(rb"[a-zA-Z_:][a-zA-Z0-9_:]*+(?:\{.*\})?[ \t]*+(\S++)(?:[ \t]++\S++)?[ \t\r]*+").fullmatch
_escape = re.compile(rb"\\(.)")


class _Gpu:
    """What was read of one GPU so far: by field the highest and the lowest value."""

    __slots__ = ("index", "ranges", "uuid")

    def __init__(self, uuid: str, index: str) -> None:
        self.uuid = uuid
        self.index = index
        self.ranges: dict[str, tuple[float, float]] = {}

    def widen(self, field: str, value: float) -> None:
        high, low = self.ranges[field]
        self.ranges[field] = (max(high, value), min(low, value))


class _Page:
    """One page while it is read. ``blocks`` knows each label block that was taken apart once."""

    __slots__ = ("bad", "blocks", "driver", "gpus", "host", "telling", "telling_xid")

    def __init__(self) -> None:
        self.bad = 0
        self.host = ""
        self.driver = ""
        self.gpus: dict[str, _Gpu] = {}
        self.blocks: dict[bytes, _Gpu | None] = {}
        self.telling_xid: list[bytes] = []
        self.telling: list[bytes] = []

    def take(self, field: str, line: bytes, start: int) -> None:
        """Read one line of a wanted family; its labels begin at ``start``."""
        # The last brace ends the labels: neither a value nor a timestamp can hold one.
        end = line.rfind(b"}")
        if end < start or len(line) > LINE_BYTES_MAX:
            self.bad += 1
            return
        block = line[start:end]
        try:
            gpu = self.blocks[block]
        except KeyError:
            gpu = self.blocks[block] = self._gpu_of(block)
        tail = line[end + 1 :]
        value = _SMALL.get(tail)
        if value is None:
            value = _number(tail)
        if gpu is None or value is None or (field == XID and not _is_code(value)):
            self.bad += 1
        elif _is_data(value):
            if field in gpu.ranges:
                gpu.widen(field, value)
            else:
                gpu.ranges[field] = (value, value)
            if value > 0 and field in TELLING:
                kept = self.telling_xid if field == XID else self.telling
                if len(kept) < EXCERPT_LINES_MAX:
                    kept.append(line)

    def _gpu_of(self, block: bytes) -> _Gpu | None:
        """The GPU that the labels name. It counts as seen even where its value can't be read."""
        # Host and driver are the same on every line, so only the first block is read for them.
        usual = _usual(block) if self.gpus else None
        if usual is not None:
            index, uuid = _text(usual[1]), _text(usual[2])
        else:
            if _well_formed(block) is None:
                return None
            labels = dict(_labels_in(block))
            index, uuid = _first(labels, (b"gpu",)), _first(labels, _UUID_LABELS)
            self.host = self.host or _first(labels, _HOST_LABELS)
            self.driver = self.driver or _first(labels, _DRIVER_LABELS)
        if not 0 < len(uuid) <= UUID_MAX:
            return None
        return self.gpus.setdefault(uuid, _Gpu(uuid, index))


class Scanner:
    """Reads pages. ``fields`` are read besides those of ``ALWAYS_READ``; old and new names both work.

    It keeps nothing between pages but a bounded table of shared (field, value) pairs, so that ten
    thousand readings of healthy GPUs do not hold a million equal tuples.
    """

    def __init__(self, fields: Iterable[str] = ()) -> None:
        wanted = {*ALWAYS_READ, *map(old_name, fields)}
        names = {name: name for name in wanted} | {
            new: old for new, old in OLD_NAMES.items() if old in wanted
        }
        self._families = {f"{name}{{".encode(): field for name, field in names.items()}
        # Most lines are of other families; their first bytes alone tell that.
        self._probe_bytes = min(map(len, self._families))
        self._probes = frozenset(begin[: self._probe_bytes] for begin in self._families)
        self._order = sorted(wanted - {XID})
        self._pairs: dict[tuple[str, float], tuple[str, float]] = {}

    def scan(self, body: bytes, *, node: str, at: datetime, at_monotonic: float) -> PageReading:
        """Read one page.

        Args:
            body: the page as it arrived. What follows the last newline is dropped: it may have
                lost its last digits.
            node: name of the Node that the page was fetched for.
            at: when the fetch ended, aware UTC.
            at_monotonic: the same, seconds on the process' own clock.

        Returns:
            The reading. A page of another exporter has no GPUs; that is unknown, not healthy.

        Raises:
            PageError: the body is no metrics page, or larger than any page of one node.
        """
        lines = body.split(b"\n", LINES_MAX)
        if len(lines) > LINES_MAX:
            raise PageError("TooLarge", f"{node}: page of more than {LINES_MAX} lines")
        _refuse_other(body, lines, node)
        page = _Page()
        page.bad += bool(lines.pop().strip())
        wanted, size, probes = self._families.get, self._probe_bytes, self._probes
        for line in [line for line in lines if line[:size] in probes]:
            start = line.find(b"{") + 1
            field = wanted(line[:start])
            if field is not None:
                page.take(field, line, start)
        if len(page.gpus) > GPUS_MAX:
            said = f"page names {len(page.gpus)} GPUs, at most {GPUS_MAX} are read"
            raise PageError("TooLarge", f"{node}: {said}")
        return PageReading(
            node=node,
            at=at,
            at_monotonic=at_monotonic,
            gpus=tuple(self._reading(page.gpus[uuid]) for uuid in sorted(page.gpus)),
            driver=page.driver,
            host=page.host,
            lines=len(lines),
            bad_lines=page.bad,
            excerpt=tuple(map(_excerpt, (page.telling_xid + page.telling)[:EXCERPT_LINES_MAX])),
        )

    def _reading(self, gpu: _Gpu) -> GpuReading:
        ranges = gpu.ranges
        xid = ranges.get(XID)
        values: list[tuple[str, float]] = []
        for field in self._order:
            if field in ranges:
                high, low = ranges[field]
                values.append(self._pair(field, high))
                if low != high:
                    values.append(self._pair(field, low))
        return GpuReading(
            uuid=gpu.uuid, index=gpu.index, xid=None if xid is None else int(xid[0]), values=tuple(values)
        )

    def _pair(self, field: str, value: float) -> tuple[str, float]:
        pair = (field, value)
        known = self._pairs.get(pair)
        if known is not None:
            return known
        if len(self._pairs) < _PAIRS_MAX:
            self._pairs[pair] = pair
        return pair


def _refuse_other(body: bytes, lines: list[bytes], node: str) -> None:
    """Say what the body is, where it is not a metrics page."""
    begin = body.lstrip()[:16]
    if not begin:
        raise PageError("NotMetrics", f"{node}: not a metrics page: empty")
    if b"\0" in body[:1024] or begin[0] >= 0x7F or begin[0] < 0x20:
        raise PageError("NotMetrics", f"{node}: not a metrics page: binary, starts with {begin[:4].hex(' ')}")
    if not begin.startswith(b"#"):
        probes = [line for line in lines[:_PROBE_LINES] if line.strip()]
        if not any(line.startswith(b"#") or _is_sample(line) for line in probes):
            text = begin.split(b"\n")[0].split(b">")[0].decode("ascii", "replace").lower()
            raise PageError("NotMetrics", f"{node}: not a metrics page: starts with {text!r}")


def _is_sample(line: bytes) -> bool:
    found = _sample(line[:LINE_BYTES_MAX])
    return found is not None and _number(found[1]) is not None


def _number(text: bytes) -> float | None:
    """Value of a sample, with or without a timestamp after it; None where it is not a number."""
    try:
        value = float(text)
    except ValueError:
        parts = text.split()
        if len(parts) != 2:
            return None
        try:
            float(parts[1])
            value = float(parts[0])
        except ValueError:
            return None
    # Python reads 1_000 as a number, the text format does not.
    return None if b"_" in text else value


def _is_code(value: float) -> bool:
    return (value.is_integer() and 0 <= value <= XID_MAX) or not _is_data(value)


def _is_data(value: float) -> bool:
    return -_BLANK < value < _BLANK  # false for NaN too


def _first(labels: dict[bytes, bytes], names: tuple[bytes, ...]) -> str:
    return next((_text(labels[name]) for name in names if name in labels), "")


def _text(value: bytes) -> str:
    if b"\\" in value:
        value = _escape.sub(lambda found: b"\n" if found[1] == b"n" else found[1], value)
    return value.decode("utf-8", "replace")


def _excerpt(line: bytes) -> str:
    """The line, shortened in its middle: name and GPU stand at its start, the value at its end."""
    text = line.decode("utf-8", "replace").rstrip("\r")
    if len(text) <= EXCERPT_CHARS_MAX:
        return text
    end = text[text.rfind("}") :][:40]
    return f"{text[: EXCERPT_CHARS_MAX - len(end) - 1]}…{end}"
