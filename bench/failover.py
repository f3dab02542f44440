"""How long nobody leads: after a crash of the leader, and after its clean end.

From the moment at which the leader is killed, or asked to end, to the commit of its successor's first
write of its term. The harness and the API server share one machine and one clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Final

import msgspec

from bench.context import Context
from bench.results import Finding, a_series, at_most
from remediator.adapters.audit import AuditRecord, writes
from remediator.fleet.layout import (
    build_fleet,
)
from remediator.testbed.replica import Replica
from remediator.testbed.stage import USER, Stage
from remediator.testbed.waiting import now, wait_until

RUNS_MAX: Final = 50
TRIALS_PER_RUN: Final = 4
LEASE_S: Final = 15.0
RETRY_S: Final = 2.0
CLEAN_MS_MAX: Final = 2_000.0
SETTLE_S_MAX: Final = 90.0
SERVING: Final = "serving health and metrics"
_NAMES: Final = (("nobody leads after a crash", True), ("nobody leads after a clean end", False))


def measure(context: Context) -> Finding:
    """Take the leadership away again and again, by crash and by clean end in turns."""
    runs = max(1, min(RUNS_MAX, context.trials // TRIALS_PER_RUN))
    specs = build_fleet(2, 8, infer=1, buffer=1, system=2)
    gaps: dict[bool, list[float]] = {True: [], False: []}
    with Stage(context.directory / "stage", context.binaries, specs=specs) as stage:
        leader, standby = (stage.replica(name, lease_seconds=LEASE_S) for name in ("one", "two"))
        try:
            leader.start()
            wait_until(leader.leads_since, timeout_s=SETTLE_S_MAX, what="the first leader")
            _stand_by(standby)
            for number in range(runs):
                for crash in (True, False):
                    gaps[crash].append(_take_over(stage, leader, standby, crash=crash))
                    leader, standby = standby, leader
                    _stand_by(standby)
                context.tell(f"{number + 1} of {runs} crashes and clean ends")
        finally:
            leader.stop()
            standby.stop()
    crashes, ends = (a_series(name, "ms", gaps[crash]) for name, crash in _NAMES)
    return Finding(
        series=(crashes, ends),
        checks=(
            at_most("longest after a crash, ms", crashes.summary.max, (LEASE_S + RETRY_S) * 1_000.0),
            at_most("longest after a clean end, ms", ends.summary.max, CLEAN_MS_MAX),
        ),
        conditions={"nodes": len(specs), "lease": f"{LEASE_S:g} s", "retry": f"{RETRY_S:g} s", "runs": runs},
        notes=("From the signal to the commit of the successor's term, by the API server's audit log.",),
    )


def _stand_by(replica: Replica) -> None:
    """Start it, and wait until it knows the cluster."""
    served = len(replica.lines(SERVING))
    replica.start()
    wait_until(lambda: len(replica.lines(SERVING)) > served, timeout_s=SETTLE_S_MAX, what="its port")
    wait_until(lambda: replica.ask("/readyz")[0] == HTTPStatus.OK, timeout_s=SETTLE_S_MAX, what="the standby")


def _take_over(stage: Stage, leader: Replica, standby: Replica, *, crash: bool) -> float:
    """End the leader. Return the ms until the standby's term was committed."""
    mark = stage.audit.mark()
    said = standby.log.stat().st_size
    began = now()
    leader.stop(crash=crash)
    wait_until(
        lambda: standby.leads_since(said),
        timeout_s=SETTLE_S_MAX,
        what="the successor",
        detail=standby.log_tail,
    )
    return (first_term(list(writes(stage.audit.since(mark), users=[USER]))) - began).total_seconds() * 1_000.0


def first_term(records: Sequence[AuditRecord]) -> datetime:
    """When the successor's term was committed: the first write of the policy by whoever leads next.

    Raises:
        ValueError: nobody wrote a term.
    """
    terms = [
        (msgspec.json.decode(bytes(each.request_object))["status"].get("term", 0), each.staged_at)
        for each in records
        if each.committed and each.object_ref.resource == "remediationpolicies"
    ]
    if not terms:
        raise ValueError("no write of a term in the audit log")
    highest = max(term for term, _ in terms)
    return min(at for term, at in terms if term == highest)
