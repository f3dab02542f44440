"""What may become of one write: the words in which a test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from remediator.model.action import Attribution, RecordAction, SetCondition, WorldAction
from remediator.ports import Outcome, Refusal


class Crash(BaseException):
    """The process that sent this is gone. No ``except Exception`` may hold it up."""


@dataclass(frozen=True)
class Refused:
    refusal: Refusal
    retry_after_s: float | None = None


@dataclass(frozen=True)
class Lost:
    """No answer arrives. ``committed``: the server had stored the write all the same."""

    committed: bool


@dataclass(frozen=True)
class Fails:
    error: Exception


@dataclass(frozen=True)
class Held:
    """The request arrives, and is answered when the test says so."""

    until: asyncio.Event


@dataclass(frozen=True)
class Late:
    """The write is stored and shown at once; its answer arrives when the test says so."""

    until: asyncio.Event


@dataclass(frozen=True)
class First:
    """Somebody else does this right before the write arrives."""

    do: Callable[[], object]


Fate = Refused | Lost | Fails | Held | Late | First


@dataclass
class Sent:
    """One write as it arrived, and what came of it."""

    action: WorldAction | SetCondition | RecordAction
    by: Attribution
    outcome: Outcome | None = None

    @property
    def kind(self) -> str:
        return type(self.action).__name__
