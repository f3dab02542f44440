"""What a measurement leaves behind: one JSON file per figure, complete enough to be judged later."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from bench.machine import Machine
from bench.percentiles import Summary, summarize

Unit = Literal["ms", "1/s", "MB", "writes", "us", "histories"]
Condition = str | int | float | bool
DECIMALS = 4


class Series(Struct, frozen=True, kw_only=True):
    """One measured quantity. ``samples`` are all of them, in the order they were taken."""

    name: str
    unit: Unit
    summary: Summary
    samples: tuple[float, ...]


class Check(Struct, frozen=True, kw_only=True):
    """A value beside its target. ``sense`` says on which side of ``limit`` is good."""

    name: str
    value: float
    sense: Literal["<=", ">="]
    limit: float
    met: bool


class Count(Struct, frozen=True, kw_only=True):
    """One counted thing, such as writes of one verb on one resource."""

    name: str
    value: float


class Finding(Struct, frozen=True, kw_only=True):
    """What a figure's own code returns; ``Result`` adds where and when."""

    series: tuple[Series, ...] = ()
    checks: tuple[Check, ...] = ()
    counts: tuple[Count, ...] = ()
    conditions: dict[str, Condition] = {}
    notes: tuple[str, ...] = ()


class Result(Struct, frozen=True, kw_only=True):
    """One run of one figure."""

    figure: str
    title: str
    measured_at: str
    took_s: float
    seed: int
    command: str
    commit: str
    changed_files: int  # in the work tree, against the commit
    machine: Machine
    versions: dict[str, str]
    finding: Finding


def a_series(name: str, unit: Unit, samples: Iterable[float]) -> Series:
    """Summarize samples under a name.

    Raises:
        ValueError: there are none.
    """
    kept = tuple(round(each, DECIMALS) for each in samples)
    summary = summarize(kept)
    return Series(
        name=name,
        unit=unit,
        summary=msgspec.structs.replace(summary, mean=round(summary.mean, DECIMALS)),
        samples=kept,
    )


def at_most(name: str, value: float, limit: float) -> Check:
    return Check(name=name, value=round(value, DECIMALS), sense="<=", limit=limit, met=value <= limit)


def at_least(name: str, value: float, limit: float) -> Check:
    return Check(name=name, value=round(value, DECIMALS), sense=">=", limit=limit, met=value >= limit)


def save(result: Result, directory: Path) -> Path:
    """Write ``FIGURE.json`` and return its path; an older one of the same figure is replaced."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{result.figure}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    return path


def load(directory: Path) -> list[Result]:
    """Read every result in a folder, by figure name."""
    return [msgspec.json.decode(path.read_bytes(), type=Result) for path in sorted(directory.glob("*.json"))]
