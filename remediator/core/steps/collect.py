"""Collect: copy what a repair would destroy into the record, bounded."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from remediator.core.run_view import RunView
from remediator.model.decision import Decision, Done, Look, Wait
from remediator.model.duration import seconds
from remediator.model.instant import read_instant
from remediator.model.playbook import CollectStep
from remediator.model.remediation import StepStatus

EVIDENCE_MAX: Final = 16_000
EVENTS_WITHIN: Final = timedelta(minutes=1)


def decide_collect(view: RunView, step: CollectStep, status: StepStatus) -> Decision:
    """Events of the node, its conditions and the page's telling lines, at most 16 KB of text.

    Of Events those from ``eventsWindow`` before this step on, and those without a time. If none can be
    read within a minute they are left out, and the evidence says so: a broken record must not keep a
    faulty node in its pool.
    """
    started = read_instant(status.started_at) or view.now
    if view.events is None and view.now < started + EVENTS_WITHIN:
        return Wait(after_s=0.0, reason="reading the node's Events", look=Look.EVENTS)
    window = timedelta(seconds=seconds(step.events_window))
    return Done(reason="evidence copied", evidence=_evidence(view, since=started - window))


def _evidence(view: RunView, *, since: datetime) -> str:
    lines = ["# conditions"]
    if view.node is not None:
        lines += [
            f"{each.type}={each.status} {each.reason}: {each.message}"[:256] for each in view.node.conditions
        ]
    lines.append("# exporter page")
    lines += list(view.reading.excerpt) if view.reading is not None else ["no page"]
    lines.append("# Events")
    if view.events is None:
        lines.append("could not be read")
    else:
        lines += [each.line for each in view.events if (each.at or since) >= since] or ["none"]
    text = "\n".join(lines)
    return text if len(text) <= EVIDENCE_MAX else text[: EVIDENCE_MAX - 16] + "\n# cut short"
