"""Plays a history and tells of it on one page."""

from __future__ import annotations

import msgspec

from remediator.adapters.audit import AuditRecord
from remediator.chaos.candidates import candidate
from remediator.chaos.history import Outcome, play
from remediator.chaos.page import page
from remediator.chaos.schedule import Schedule
from remediator.chaos.timeline import Timeline


def report_on(schedule: Schedule, *, again: str) -> tuple[Outcome, str]:
    """What came of it, and the page. The whole log is kept meanwhile: some megabytes.

    Raises:
        InputError: the schedule names a bug that is not there.
    """
    timeline = Timeline(candidate(schedule.controller, schedule.bugs, raised=schedule.raised).profile)
    decoder = msgspec.json.Decoder(AuditRecord)
    lines: list[bytes] = []

    def listen(line: bytes) -> None:
        lines.append(line)
        timeline.see(decoder.decode(line))

    outcome = play(schedule, listen=listen)
    return outcome, page(outcome, timeline, lines, again)
