"""Reads times and lengths from the command line, and reckons with them. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Final

import click

from remediator.model.duration import seconds
from remediator.model.instant import read_instant

FAR: Final = timedelta(days=366)


def read_length(text: str) -> timedelta:
    """``4h``.

    Raises:
        ValueError: no duration, none at all, or more than a year.
    """
    length = timedelta(seconds=seconds(text))
    if not timedelta() < length <= FAR:
        raise ValueError(f"{text} is not between 1s and 366d")
    return length


def read_end(text: str) -> datetime | timedelta:
    """A date (to its end, UTC), a time with its zone, or a length.

    Raises:
        ValueError: none of these.
    """
    if (found := _date(text) or _instant(text)) is not None:
        return found
    if not text[-1:].isalpha():
        raise ValueError(f"{text!r} is no end; write 2026-12-01, 2026-12-01T18:00:00Z or 7d")
    return read_length(text)


def after(now: datetime, length: timedelta) -> datetime:
    """That long from now on, without a fraction: the API server's times have none."""
    return (now + length).replace(microsecond=0)


def until(now: datetime, end: datetime | timedelta) -> datetime:
    """When that is.

    Raises:
        click.BadParameter: in the past, or more than a year away.
    """
    if isinstance(end, timedelta):
        return after(now, end)
    if not now < end <= now + FAR:
        said = f"{end:%Y-%m-%d %H:%M} UTC is not within the next 366 days; it is {now:%Y-%m-%d %H:%M} UTC now"
        raise click.BadParameter(said, param_hint="'--until'")
    return end


def _date(text: str) -> datetime | None:
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError:
        return None
    return datetime.combine(day + timedelta(days=1), time(), UTC)


def _instant(text: str) -> datetime | None:
    try:
        return read_instant(text)
    except ValueError:
        return None
