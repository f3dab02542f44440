"""Breakers: too many faults of one kind at once are one cause, not many broken machines. Pure.

They count confirmed faults, acted on or not, in the fleet, per class, and per class and common cause: a
rack, a driver version, whatever value of a label the faulty nodes share. Open means no new harm; healing
goes on. A breaker half-opens by itself after a quiet time, lets one trial run through, and then closes.
The state is in the policy's status, so that a restart forgets nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime, timedelta

from msgspec import UNSET
from msgspec.structs import replace

from remediator.model.duration import seconds
from remediator.model.instant import read_instant, write_instant
from remediator.model.policy import (
    BREAKERS_MAX,
    CAUSES_MAX,
    GRANTS_MAX,
    BreakerSpec,
    BreakerState,
    FaultMark,
)
from remediator.model.pool import ResourcePool

FLEET = "fleet"
_CAUSE = "cause/"


def class_scope(fault_class: str) -> str:
    return f"class/{fault_class}"


def cause_keys(spec: BreakerSpec, pools: Iterable[ResourcePool]) -> tuple[str, ...]:
    """The labels whose value may be a common cause: those of the policy, topology and driver of all pools."""
    keys = set(spec.causes)
    for pool in pools:
        keys |= {level.key for level in pool.spec.topology}
        if pool.spec.hardware_class is not UNSET and pool.spec.hardware_class.driver:
            keys.add(pool.spec.hardware_class.driver)
    return tuple(sorted(keys)[:CAUSES_MAX])


def causes_of(labels: Mapping[str, str], keys: Iterable[str]) -> tuple[str, ...]:
    """``LABEL=VALUE`` for each of these labels that a node carries."""
    return tuple(f"{key}={labels[key]}" for key in keys if labels.get(key))


def scopes_of(fault_class: str, causes: Iterable[str]) -> frozenset[str]:
    """The scopes that a fault counts in, and that stop what would be done about it."""
    return frozenset((FLEET, class_scope(fault_class), *(f"{_CAUSE}{fault_class}/{each}" for each in causes)))


def record(
    marks: Iterable[FaultMark], fresh: Iterable[FaultMark], spec: BreakerSpec, now: datetime
) -> tuple[FaultMark, ...]:
    """The faults inside the window, one per machine and class, oldest first, at most 256.

    A fault that is still there is not counted twice: the caller passes each fault once, when it
    is confirmed.
    """
    horizon = now - timedelta(seconds=seconds(spec.within))
    kept: dict[tuple[str, str], FaultMark] = {}
    for mark in (*marks, *fresh):
        at = read_instant(mark.at)
        if at is not None and at >= horizon:
            kept[(mark.machine, mark.fault_class)] = mark
    ordered = sorted(kept.values(), key=lambda mark: (mark.at, mark.machine, mark.fault_class))
    return tuple(ordered[-GRANTS_MAX:])


def opens_above(spec: BreakerSpec, nodes: int) -> int:
    """The count that is still tolerated among ``nodes`` nodes.

    At most 255: the window remembers 256 faults, and a limit above what it can count would never
    be passed.
    """
    return min(max(spec.count, nodes * spec.percent // 100), GRANTS_MAX - 1)


def advance(
    states: Iterable[BreakerState],
    marks: tuple[FaultMark, ...],
    fresh: tuple[FaultMark, ...],
    *,
    spec: BreakerSpec,
    nodes: int,
    carrying: Callable[[str], int],
    open_runs: frozenset[str],
    now: datetime,
) -> tuple[BreakerState, ...]:
    """Every breaker that is not closed after this pass, at most ``BREAKERS_MAX``, sorted by scope.

    More than that are no separate causes any more: the fleet's own breaker opens in their place.

    Args:
        states: what was stored.
        marks: all faults inside the window, the fresh ones included.
        fresh: faults confirmed in this pass.
        nodes: how many nodes are managed in all.
        carrying: how many of them carry a LABEL=VALUE; asked only where it matters.
        open_runs: names of runs that are not ended; a trial that left it is over.
    """
    stored = {state.scope: state for state in states}
    counted, new = _by_scope(marks), _by_scope(fresh)
    found = []
    least = opens_above(spec, 0)  # no limit is below this
    for scope in sorted({FLEET, *stored, *counted}):
        state, here = stored.get(scope), counted.get(scope, [])
        if state is None and len(here) <= least:
            continue
        cause = _cause(scope)
        found.append(
            _advance_one(
                scope,
                state,
                here,
                new.get(scope, []),
                spec=spec,
                limit=opens_above(spec, carrying(cause) if cause else nodes),
                open_runs=open_runs,
                now=now,
            )
        )
    return _bounded([state for state in found if state is not None], now)


def _by_scope(marks: Iterable[FaultMark]) -> Mapping[str, list[FaultMark]]:
    found: dict[str, list[FaultMark]] = {}
    for mark in marks:
        for scope in scopes_of(mark.fault_class, mark.causes):
            found.setdefault(scope, []).append(mark)
    return found


def _cause(scope: str) -> str:
    """The LABEL=VALUE of a common cause's scope; empty for any other."""
    return scope.split("/", 2)[2] if scope.startswith(_CAUSE) else ""


def _bounded(states: list[BreakerState], now: datetime) -> tuple[BreakerState, ...]:
    if len(states) <= BREAKERS_MAX:
        return tuple(states)
    rest = [state for state in states if state.scope != FLEET]
    open_fleet = BreakerState(
        scope=FLEET,
        state="Open",
        since=next((state.since for state in states if state.scope == FLEET), write_instant(now)),
        last_fault_at=max(state.last_fault_at for state in states),
        count=len(rest),
        limit=BREAKERS_MAX,
    )
    return (*rest[-(BREAKERS_MAX - 1) :], open_fleet)


def _advance_one(
    scope: str,
    state: BreakerState | None,
    marks: Collection[FaultMark],
    fresh: Collection[FaultMark],
    *,
    spec: BreakerSpec,
    limit: int,
    open_runs: frozenset[str],
    now: datetime,
) -> BreakerState | None:
    count = len({mark.machine for mark in marks})
    # A storm above 256 faults brings forgotten ones back as fresh: the last one never moves backwards.
    last = max((mark.at for mark in fresh), default="")
    last = max(last, state.last_fault_at if state else "")
    if state is None:
        if count <= limit:
            return None
        return BreakerState(
            scope=scope,
            state="Open",
            since=write_instant(now),
            last_fault_at=last or write_instant(now),
            count=count,
            limit=limit,
        )
    if fresh and (state.state == "HalfOpen" or count > limit):
        since = state.since if state.state == "Open" else write_instant(now)
        return BreakerState(
            scope=scope, state="Open", since=since, last_fault_at=last, count=count, limit=limit
        )
    return _relax(state, spec, open_runs, count, limit, now)


def _relax(
    state: BreakerState, spec: BreakerSpec, open_runs: frozenset[str], count: int, limit: int, now: datetime
) -> BreakerState | None:
    quiet = timedelta(seconds=seconds(spec.quiet))
    if state.state == "Open":
        last = read_instant(state.last_fault_at) or read_instant(state.since) or now
        if now - last < quiet:
            return replace(state, count=count, limit=limit)
        return BreakerState(
            scope=state.scope,
            state="HalfOpen",
            since=write_instant(now),
            last_fault_at=state.last_fault_at,
            count=count,
            limit=limit,
        )
    trial_over = bool(state.trial) and state.trial not in open_runs
    quiet_again = now - (read_instant(state.since) or now) >= quiet and not state.trial
    return None if trial_over or quiet_again else replace(state, count=count, limit=limit)


def stops(states: Iterable[BreakerState], scopes: Collection[str]) -> BreakerState | None:
    """The breaker that forbids new harm in these ``scopes_of`` now, or None.

    A half-open breaker stops as long as its one trial is under way.
    """
    for state in states:
        if state.scope in scopes and (state.state == "Open" or state.trial):
            return state
    return None


def with_trial(states: Iterable[BreakerState], scopes: Collection[str], run: str) -> tuple[BreakerState, ...]:
    """The breakers after ``run`` was granted: every half-open one of its ``scopes_of`` has its trial."""
    return tuple(
        replace(state, trial=run) if state.state == "HalfOpen" and state.scope in scopes else state
        for state in states
    )


def without_trials(states: Iterable[BreakerState], runs: Collection[str]) -> tuple[BreakerState, ...]:
    """The breakers without the trials of these runs, which never came to be: nothing has been tried."""
    return tuple(replace(state, trial="") if state.trial in runs else state for state in states)
