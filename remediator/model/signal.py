"""Observations and what is made of them: signals, pages, faults. Values only.

A signal is three-valued. Unknown is neither a fault nor a cure.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated

from msgspec import Meta, Struct

from remediator.errors import PageTroubleKind


class Truth(enum.Enum):
    TRUE = "true"
    FALSE = "false"
    UNKNOWN = "unknown"


class GpuReading(Struct, frozen=True, gc=False):
    """What one page said of one GPU: the wanted metric values by their (old) DCGM field name.

    ``xid`` is the last code (0: none), None when the sample is missing. ``values`` stand by name; a
    field whose MIG instances differ stands twice, the highest value first.
    """

    uuid: str
    index: str
    xid: int | None
    values: tuple[tuple[str, float], ...] = ()

    def value(self, field: str) -> float | None:
        return next((value for name, value in self.values if name == field), None)


class PageReading(Struct, frozen=True, gc=False):
    """One parsed exporter page of one node.

    ``gpus`` by UUID, sorted. ``bad_lines`` counts lines that were skipped. ``at`` is when the
    fetch ended (UTC), ``at_monotonic`` the same on the process' own clock, seconds.
    """

    node: str
    at: datetime
    at_monotonic: float
    gpus: tuple[GpuReading, ...]
    driver: str = ""
    host: str = ""
    lines: int = 0
    bad_lines: int = 0
    excerpt: tuple[str, ...] = ()  # the lines that carried something non-zero, for the evidence


class PageTrouble(Struct, frozen=True, gc=False):
    """Why a node's page says nothing, or not all. ``text`` names the page and what is wrong with it."""

    kind: PageTroubleKind
    text: str


class XidEdge(Struct, frozen=True, gc=False):
    """A change of the last-XID gauge of one GPU to a code that is not 0.

    ``age_known`` is False where the code stood there at our first sight of the GPU.
    """

    gpu: str
    code: int
    at: datetime
    age_known: bool


class Severity(enum.Enum):
    HARD = "Hard"
    SOFT = "Soft"


class Evidence(Struct, frozen=True, gc=False, rename="camel"):
    """Why we believe in a fault. ``text`` is one line for people, at most 256 characters."""

    # Bounded, since the API server prices the immutability of a Remediation's spec by these.
    source: Annotated[str, Meta(max_length=16)]  # condition | exporter | node | person
    key: Annotated[str, Meta(max_length=316)]  # KernelDeadlock, xid, DCGM_FI_DEV_ROW_REMAP_PENDING, ...
    text: Annotated[str, Meta(max_length=256)]
    gpu: Annotated[str, Meta(max_length=64)] = ""
    code: int = 0


class Fault(Struct, frozen=True):
    """A confirmed, debounced finding on one machine, bound to one Node uid and boot.

    ``key`` is (machine, fault class). ``first_seen`` is our own clock's. ``clears`` tells whether
    the fault ends by itself when its signal turns false (a condition does, a handled XID not).
    ``known`` is False while the signal of a confirmed fault can't be seen: that is no cure, and no
    reason for new harm either.
    """

    machine: str
    node: str
    node_uid: str
    boot_id: str
    fault_class: str
    severity: Severity
    playbook: str
    matcher: str
    first_seen: datetime
    confirmed_at: datetime
    clears: bool
    evidence: tuple[Evidence, ...]
    known: bool = True

    @property
    def key(self) -> tuple[str, str]:
        return (self.machine, self.fault_class)


class Suspicion(Struct, frozen=True):
    """A signal that is true but not for long enough yet. ``due_at``: when it would be confirmed."""

    machine: str
    node: str
    playbook: str
    matcher: str
    fault_class: str
    first_seen: datetime
    due_at: datetime


class Coverage(Struct, frozen=True):
    """How many of a pool's nodes one source can see: fresh of expected, by pool name."""

    source: str
    fresh: Mapping[str, int]
    expected: Mapping[str, int]
