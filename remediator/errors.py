"""The program's own exceptions: what a caller may do about each kind of failure.

A *refusal* (409, 429, no budget, no spare) is never an exception: it is a value. See
docs/architecture.md, "Failing".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FetchTroubleKind = Literal["Unreachable", "TimedOut", "HttpStatus", "NotMetrics", "TooLarge"]
PageTroubleKind = FetchTroubleKind | Literal["NotFetched", "OtherNode", "NoGpus", "BadLines"]


class RemediatorError(Exception):
    """Base of every error that this program raises on purpose."""


class TransientError(RemediatorError):
    """A read failed and may work later: a 5xx, a reset, a time-out, a 429.

    Args:
        message: names the thing and the value.
        retry_after_s: what the server asked for, seconds, or None.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class PageError(TransientError):
    """An exporter page that could not be had, or is none.

    Args:
        kind: which trouble; ``core.pages`` has the fix of each.
        message: names the page and what is wrong with it.
    """

    def __init__(self, kind: FetchTroubleKind, message: str) -> None:
        super().__init__(message)
        self.kind: FetchTroubleKind = kind


class PermanentError(RemediatorError):
    """It will not work until a person changes something: a 403, a missing kind, a 422.

    Args:
        message: names the thing, the value and the fix.
        status: HTTP status of the reply, or None where no server was asked.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ContractError(RemediatorError):
    """We broke a rule of our own. Never caught: the process ends, the cluster holds the state."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a file that a person wrote.

    ``path`` is the file, ``line`` and ``column`` count from 1 (0: the whole file), ``field`` is
    the dotted path (``spec.steps[2].drain.deadline``), ``fix`` says what to write instead.
    """

    path: str
    line: int
    column: int
    field: str
    message: str
    fix: str = ""

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}:{self.column}" if self.line else self.path
        field = f" {self.field}:" if self.field else ""
        fix = f" ({self.fix})" if self.fix else ""
        return f"{where}:{field} {self.message}{fix}"


class InputError(RemediatorError):
    """Bad input from a person. Carries every problem found, in file order."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems
