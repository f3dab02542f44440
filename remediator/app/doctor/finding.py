"""What the doctor says about one thing, and how a thing that could not be looked at is told. Values only."""

from __future__ import annotations

import enum
from collections.abc import Awaitable
from typing import TypeVar

from msgspec import Struct

from remediator.errors import PermanentError, TransientError

T = TypeVar("T")


class Level(enum.Enum):
    """How bad it is. ``UNKNOWN``: it could not be looked at, which is neither good nor bad."""

    FAILURE = "failure"
    WARNING = "warning"
    UNKNOWN = "unknown"
    NOTE = "note"
    OK = "ok"


class Finding(Struct, frozen=True):
    """One answer of one check. ``fix`` is what a person can do about it, if anything."""

    check: str
    level: Level
    says: str
    fix: str = ""


class Unseen(Struct, frozen=True):
    """Why something could not be read, in the server's words."""

    why: str
    missing: bool = False  # the server says that there is no such thing


async def look(reading: Awaitable[T]) -> T | Unseen:
    """Wait for one reading; that it fails is a finding, and stops no other check."""
    try:
        return await reading
    except (PermanentError, TransientError) as error:
        return Unseen(str(error), missing=getattr(error, "status", None) == 404)


def unknown(check: str, unseen: Unseen, fix: str = "") -> Finding:
    """The finding for what could not be looked at."""
    return Finding(check, Level.UNKNOWN, f"could not look: {unseen.why}", fix)


def worst_first(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """By level, and in the order of the checks within one."""
    order = list(Level)
    return tuple(sorted(findings, key=lambda each: order.index(each.level)))
