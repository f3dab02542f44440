"""What people said about a node: hold, opt-out, pause. Pure readers of annotations and specs."""

from __future__ import annotations

from datetime import datetime

from msgspec import UNSET, Struct, UnsetType

from remediator.model.instant import read_instant
from remediator.model.keys import ANNOTATION_HOLD, LABEL_OPT_OUT
from remediator.model.meta import Pause
from remediator.model.views import NodeView


class Hold(Struct, frozen=True, gc=False):
    """A person's "do not touch". ``until`` None: it has no readable end and holds for ever."""

    until: datetime | None
    by: str
    reason: str


def read_hold(text: str) -> Hold:
    """Read ``until=RFC3339;by=WHO;reason=TEXT``; what can't be read still holds, without an end."""
    parts = dict(part.split("=", 1) for part in text.split(";") if "=" in part)
    try:
        until = read_instant(parts.get("until", ""))
    except ValueError:
        until = None
    return Hold(until=until, by=parts.get("by", ""), reason=parts.get("reason", ""))


def write_hold(until: str, by: str, reason: str) -> str:
    """The annotation's text; semicolons in free text become commas."""
    return f"until={until};by={by.replace(';', ',')};reason={reason.replace(';', ',')}"


def held(node: NodeView, now: datetime) -> str | None:
    """Why people want this node left alone, or None. An unknown opt-out value opts out."""
    opted = node.labels.get(LABEL_OPT_OUT, "false")
    if opted != "false":
        return f"label {LABEL_OPT_OUT}={opted}"
    text = node.annotations.get(ANNOTATION_HOLD, "")
    if not text:
        return None
    hold = read_hold(text)
    if hold.until is not None and hold.until <= now:
        return None
    until = hold.until.isoformat(timespec="seconds") if hold.until else "further notice"
    return f"hold by {hold.by or 'somebody'} until {until}: {hold.reason or 'no reason given'}"


def paused(pause: Pause | UnsetType, what: str, now: datetime) -> str | None:
    """Why ``what`` (policy, pool NAME, playbook NAME) stands still, or None."""
    if pause is UNSET or pause is None:
        return None
    try:
        until = read_instant(pause.until)
    except ValueError:
        until = None  # an end that nobody can read is no end
    if until is not None and until <= now:
        return None
    return f"{what} paused by {pause.by or 'somebody'}: {pause.reason or 'no reason given'}"
