"""Lays the doctor's findings out, the worst first. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import msgspec

from remediator.app.doctor.finding import Finding, Level
from remediator.cli.columns import labelled

WIDTH = 22


def render(findings: Iterable[Finding]) -> list[str]:
    """One line each, what to do below it, and the sum of it at the end."""
    every = list(findings)
    lines: list[str] = []
    for each in every:
        lines += labelled(f"{each.level.value.upper():9}{each.check}", _said(each), WIDTH)
    counted = Counter(each.level for each in every)
    words = [f"{counted[level]} {level.value}" for level in Level if counted[level]]
    return [*lines, "", ", ".join(words)]


def _said(finding: Finding) -> Iterator[str]:
    yield finding.says
    if finding.fix:
        yield f"-> {finding.fix}"


def as_json(findings: Iterable[Finding]) -> str:
    """An array of objects with check, level, says and fix."""
    return msgspec.json.format(msgspec.json.encode(list(findings)), indent=2).decode()
