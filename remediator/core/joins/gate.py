"""The join gate of a node: shut, open, or none of our business. Pure.

The gate is a NoSchedule taint. It opens once in the life of a Node: the patch that removes it leaves a
mark with the Node's uid, so that neither a restart of ours nor one of the kubelet opens or shuts it again.
"""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Final

from msgspec import Struct

from remediator.core.people import held
from remediator.model.instant import read_instant, write_instant
from remediator.model.keys import ANNOTATION_JOINED
from remediator.model.views import NodeView, TaintView

EFFECT: Final = "NoSchedule"


class Gate(enum.Enum):
    """Where a node stands.

    ``ABSENT``: it should have the gate and lacks it. ``SHUT_AGAIN``: it was let in, and somebody has
    put the taint back since. ``LEFT_ALONE``: gated, and people want it left alone.
    """

    OPEN = "Open"
    ABSENT = "Absent"
    SHUT = "Shut"
    SHUT_AGAIN = "ShutAgain"
    LEFT_ALONE = "LeftAlone"


class Mark(Struct, frozen=True, gc=False):
    """That a Node was let in, and when."""

    uid: str
    at: datetime | None


def write_mark(uid: str, at: datetime) -> str:
    """The annotation's text."""
    return f"{uid} {write_instant(at.replace(microsecond=0))}"


def read_mark(node: NodeView) -> Mark | None:
    """The mark of this very Node; that of an earlier one of its name is none."""
    uid, _, at = node.annotations.get(ANNOTATION_JOINED, "").partition(" ")
    if uid != node.uid:
        return None
    try:
        return Mark(uid, read_instant(at))
    except ValueError:
        return Mark(uid, None)


def is_gate(taint: TaintView, key: str) -> bool:
    return taint.key == key and taint.effect == EFFECT


def is_gated(node: NodeView, key: str) -> bool:
    return any(is_gate(taint, key) for taint in node.taints)


def gate_of(node: NodeView, key: str, since: datetime, now: datetime) -> Gate:
    """Where the node stands.

    Args:
        key: of the gate's taint.
        since: when the gate came into force. A node that was created before, and has no gate, is in.
    """
    gated = is_gated(node, key)
    if read_mark(node) is not None:
        return Gate.SHUT_AGAIN if gated else Gate.OPEN
    if gated:
        return Gate.LEFT_ALONE if held(node, now) else Gate.SHUT
    created = _created(node)
    if created is None or created < since or held(node, now):
        return Gate.OPEN
    return Gate.ABSENT


def waits_s(node: NodeView, now: datetime) -> float:
    """Seconds since the node was created; zero where nobody knows."""
    created = _created(node)
    return max(0.0, (now - created).total_seconds()) if created is not None else 0.0


def _created(node: NodeView) -> datetime | None:
    try:
        return read_instant(node.created_at)
    except ValueError:
        return None
