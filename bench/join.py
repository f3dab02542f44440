"""Finds in the audit log what came of each trial. Pure: records in, times out.

A trial begins when the server has committed the condition, and ends when it has committed the
taint; both times are the server's own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec
from msgspec import Struct

from remediator.adapters.audit import AuditRecord

LATE_S: Final = 5.0


class Trial(Struct, frozen=True):
    """One condition that the harness set: by whom it is to be answered, where, and its Audit-ID."""

    user: str
    node: str
    audit_id: str


class Timed(Struct, frozen=True, kw_only=True):
    """One trial's times in ms. ``total`` is None where no taint came in time; then so is the rest.

    ``total`` = ``notice`` (until the first write of the intent was received) + ``intent`` (until
    the last one was committed) + ``turn`` (until the node's patch was received) + ``patch``.
    """

    trial: Trial
    total: float | None = None
    notice: float = 0.0
    intent: float = 0.0
    turn: float = 0.0
    patch: float = 0.0


class _Taint(Struct, frozen=True):
    key: str = ""


class _Spec(Struct, frozen=True):
    taints: tuple[_Taint, ...] | None = None


class _Patch(Struct, frozen=True):
    spec: _Spec = _Spec()


_patches: Final = msgspec.json.Decoder(_Patch)


def join(records: Iterable[AuditRecord], trials: Sequence[Trial], *, taint: str) -> list[Timed]:
    """Time every trial, in their order.

    Args:
        records: of the API server, in any order.
        trials: one condition each.
        taint: suffix of the taint's key, such as ``/quarantine``.
    """
    began = {trial.audit_id: trial for trial in trials}
    starts: dict[str, datetime] = {}
    taints: dict[tuple[str, str], list[AuditRecord]] = defaultdict(list)
    intents: dict[str, list[AuditRecord]] = defaultdict(list)
    for record in records:
        if not record.committed:
            continue
        if record.audit_id in began:
            starts[record.audit_id] = record.staged_at
        elif adds_taint(record, taint):
            taints[record.username, record.object_ref.name].append(record)
        elif _is_intent(record):
            intents[record.username].append(record)
    return [_timed(trial, starts.get(trial.audit_id), taints, intents) for trial in trials]


def _timed(
    trial: Trial,
    start: datetime | None,
    taints: dict[tuple[str, str], list[AuditRecord]],
    intents: dict[str, list[AuditRecord]],
) -> Timed:
    if start is None:
        return Timed(trial=trial)
    end = start + timedelta(seconds=LATE_S)
    found = [each for each in taints[trial.user, trial.node] if start <= each.staged_at <= end]
    if not found:
        return Timed(trial=trial)
    patch = min(found, key=lambda each: each.staged_at)
    before = [
        each
        for each in intents[trial.user]
        if start <= each.staged_at and each.received_at <= patch.received_at
    ]
    first = min((each.received_at for each in before), default=patch.received_at)
    last = max((each.staged_at for each in before), default=patch.received_at)
    return Timed(
        trial=trial,
        total=_ms(start, patch.staged_at),
        notice=_ms(start, first),
        intent=_ms(first, last),
        turn=_ms(last, patch.received_at),
        patch=_ms(patch.received_at, patch.staged_at),
    )


def adds_taint(record: AuditRecord, taint: str) -> bool:
    about = record.object_ref
    if record.verb != "patch" or about.resource != "nodes" or about.subresource:
        return False
    body = bytes(record.request_object)
    if not body:
        return False
    return any(each.key.endswith(taint) for each in _patches.decode(body).spec.taints or ())


def _is_intent(record: AuditRecord) -> bool:
    about = record.object_ref
    created = record.verb == "create" and about.resource in ("remediations", "intents")
    granted = record.verb == "update" and about.resource == "remediationpolicies"
    return created or granted


def _ms(start: datetime, end: datetime) -> float:
    return (end - start) / timedelta(milliseconds=1)
