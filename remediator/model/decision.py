"""What a step, a gate or a pass can answer. Values only."""

from __future__ import annotations

import enum
from datetime import datetime

from msgspec import Struct

from remediator.model.action import WorldAction
from remediator.model.remediation import RunState


class Look(enum.Enum):
    """What has to be read afresh before the next decision."""

    NOTHING = "nothing"
    PODS = "pods"  # one consistent LIST of the node's pods
    EVENTS = "events"  # the Events that regard the node
    JOB = "job"  # the repair Job by name


class Act(Struct, frozen=True):
    """Do these, in order, then look again."""

    actions: tuple[WorldAction, ...]
    reason: str


class Wait(Struct, frozen=True):
    """Nothing to do yet. ``blocked`` is the reason code of a wait that a person may want to end.

    ``quiet`` True or False: all signals are good, or not, as of now; the record keeps since when.
    ``idle``: the step has not begun, so its time must not run out meanwhile. ``condition``: type of
    a condition of its own that the record shows while the wait lasts.
    ``reason`` must not change from one look to the next, or the record would be written each time.
    """

    after_s: float
    reason: str
    look: Look = Look.NOTHING
    until: datetime | None = None
    blocked: str = ""
    quiet: bool | None = None
    idle: bool = False
    condition: str = ""


class Done(Struct, frozen=True):
    """The step's end is seen in the cluster. ``note`` goes into the record."""

    reason: str
    note: str = ""
    skipped: bool = False
    evidence: str = ""


class GiveUp(Struct, frozen=True):
    """The step can't reach its end. ``state`` says how the run goes on or ends."""

    state: RunState
    reason: str  # CamelCase, for the condition
    message: str


Decision = Act | Wait | Done | GiveUp


class GateVerdict(Struct, frozen=True, gc=False):
    """One gate's answer. ``stop`` is the reason code when it stops the request, else empty."""

    gate: str
    stop: str
    numbers: str

    @property
    def ok(self) -> bool:
        return not self.stop


class Veto(Struct, frozen=True, gc=False):
    """A person's No in mid-run, and how we know of it."""

    reason: str  # CamelCase
    message: str
    by: str = ""
