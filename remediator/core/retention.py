"""Which finished records may go: seven days, 20 a machine, 2,000 in all. Pure.

The record that keeps a machine out stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final

from msgspec import UNSET

from remediator.core.account import run_state
from remediator.core.ledger import number_of
from remediator.core.lifecycle import ended
from remediator.model.instant import read_instant
from remediator.model.ledger import ManagedNodeStatus
from remediator.model.remediation import Remediation

KEEP_FOR: Final = timedelta(days=7)
PER_MACHINE_MAX: Final = 20
IN_ALL_MAX: Final = 2_000


def expired(
    runs: Iterable[Remediation], ledgers: Mapping[str, ManagedNodeStatus], now: datetime
) -> tuple[Remediation, ...]:
    """Ended runs to delete, oldest first; only such as the ledger's history knows already."""
    newest_first = sorted((run for run in runs if ended(run_state(run))), key=_age, reverse=True)
    kept_in_all = 0
    kept: dict[str, int] = {}
    going: list[Remediation] = []
    for run in newest_first:
        machine = run.spec.machine
        old = (finished_at(run) or now) < now - KEEP_FOR
        full = kept.get(machine, 0) >= PER_MACHINE_MAX or kept_in_all >= IN_ALL_MAX
        if (old or full) and not _keeps(run, ledgers.get(machine)):
            going.append(run)
        else:
            kept[machine] = kept.get(machine, 0) + 1
            kept_in_all += 1
    return tuple(reversed(going))


def finished_at(run: Remediation) -> datetime | None:
    text = run.status.finished_at if run.status is not UNSET else ""
    return read_instant(text or run.metadata.creation_timestamp)


def _keeps(run: Remediation, ledger: ManagedNodeStatus | None) -> bool:
    return ledger is not None and ledger.out is not UNSET and ledger.out.run == run.metadata.name


def _age(run: Remediation) -> tuple[str, str, int]:
    at = finished_at(run)
    return (at.isoformat() if at is not None else "", run.spec.machine, number_of(run.metadata.name))
