"""The kinds of value that people write on the command line. A wrong one is told before any connection.

Pure: they ask no clock and no server. Click ends the command with 2 and names the option.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, TypeVar

import click

from remediator.cli.moments import read_end, read_length

T = TypeVar("T")

_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")  # RFC 1123, as every kind that we name
_HASH: Final = re.compile(r"[0-9a-f]{8}")  # core.plan's, which `--help` must not wait for


class Written(click.ParamType[T]):
    """A value that is read from a text.

    Args:
        name: what the help calls it.
        read: raises ValueError, which says what is wrong and what to write instead.
    """

    def __init__(self, name: str, read: Callable[[str], T]) -> None:
        self.name = name
        self._read = read

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> T:
        try:
            return self._read(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def read_name(text: str) -> str:
    """The name of an object. It becomes part of a path: ``gpu-a-03/status`` must never get through."""
    if _NAME.fullmatch(text):
        return text
    bare = text.rpartition("/")[2].lower()
    fix = f"write {bare}" if _NAME.fullmatch(bare) else "write lower case letters, digits, '-' and '.'"
    raise ValueError(f"{text!r} is no name of an object; {fix}")


def read_reason(text: str) -> str:
    """What people will see where it stops something, so it may not be empty."""
    if not text.strip():
        raise ValueError("it is empty; say why")
    return text


def read_hash(text: str) -> str:
    """The hash of a plan."""
    if not _HASH.fullmatch(text):
        raise ValueError(f"{text!r} is no hash of a plan; write the 8 digits that `remediator plan` shows")
    return text


NAME: Final[Written[str]] = Written("name", read_name)
REASON: Final[Written[str]] = Written("text", read_reason)
HASH: Final[Written[str]] = Written("hash", read_hash)
LENGTH: Final[Written[timedelta]] = Written("length", read_length)
END: Final[Written[datetime | timedelta]] = Written("end", read_end)
