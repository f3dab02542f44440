"""What the exit codes mean, and the one exception that carries such a code out of a command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from remediator.errors import RemediatorError

OK: Final = 0
RUNTIME_ERROR: Final = 1
WRONG_USAGE: Final = 2
CHANGES_PLANNED: Final = 10
BLOCKED: Final = 11
CHECK_FAILED: Final = 13
PLAN_STALE: Final = 14
UNREACHABLE: Final = 20
TIMED_OUT: Final = 124
INTERRUPTED: Final = 130


class Stop(RemediatorError):
    """End the command with a message on stderr and this exit code."""

    def __init__(self, message: str, code: int = RUNTIME_ERROR) -> None:
        super().__init__(message)
        self.code = code


@contextmanager
def simulator_packages() -> Iterator[None]:
    """Import what needs the simulator in here: a controller that is deployed has none.

    Raises:
        Stop: its packages are not there.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in ("jsonpatch", "jsonschema_rs"):
            raise
        message = f"the simulator needs the package `{error.name}`: pip install 'remediator[sim]'"
        raise Stop(message) from error
