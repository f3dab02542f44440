"""What must be true of every decision, looked at once more before it is recorded. Pure.

The gates decide one request after another, each in front of books that the last one changed. This
looks at the outcome as a whole, and it stays on in production: a fault in the gates then ends the
process, with the rule in its log, where it would have drained nodes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from remediator.core import budget
from remediator.core.account import Account
from remediator.core.gates import out_of
from remediator.core.people import paused
from remediator.core.request import FleetView, Request
from remediator.errors import ContractError
from remediator.model.policy import GRANTS_MAX, Grant


def assure(view: FleetView, granted: Sequence[Request], grants: tuple[Grant, ...]) -> None:
    """Look at the new grants of one pass.

    Args:
        view: what the pass saw.
        granted: requests that do harm and may go ahead.
        grants: all that stand after the pass.

    Raises:
        ContractError: a rule is broken; it names the rule and who breaks it.
    """
    broken = "; ".join(_broken(view, granted, grants)) if granted else ""
    if broken:
        raise ContractError(f"a grant breaks our own rules: {broken}")


def _broken(view: FleetView, granted: Sequence[Request], grants: tuple[Grant, ...]) -> Iterator[str]:
    if view.blind:
        yield f"granted while blind: {view.blind}"
    pause = paused(view.policy.pause, "policy", view.now)
    if pause is not None:
        yield f"granted while paused: {pause}"
    if view.term < view.status.term:
        yield f"granted in term {view.term}, while {view.status.term} is known"
    if len(grants) > GRANTS_MAX:
        yield f"{len(grants)} grants"
    yield from _two_runs(view, granted)
    yield from _each_once(view, granted, grants)
    yield from _over_budget(view, granted, grants)


def _two_runs(view: FleetView, granted: Sequence[Request]) -> Iterator[str]:
    machines = Counter(request.machine for request in granted)
    busy = machines + Counter(run.spec.machine for run in view.runs.values())
    for name in sorted(machines):
        if busy[name] > 1:
            yield f"machine {name} has two runs"


def _each_once(view: FleetView, granted: Sequence[Request], grants: tuple[Grant, ...]) -> Iterator[str]:
    """Every request has its grant; a spare is promised once, and is nobody who leaves."""
    uids = {grant.run: grant.uid for grant in grants}
    for request in granted:
        if uids.get(request.run) != request.node.uid:
            yield f"{request.run} goes ahead without a grant for node {request.node.name}"
    leavers = {view.names.get(grant.uid, "") for grant in grants}
    promised = [grant.spare for grant in grants if grant.spare]
    for spare in sorted(set(promised)):
        if promised.count(spare) > 1:
            yield f"spare {spare} is promised twice"
        if spare in leavers:
            yield f"spare {spare} leaves itself"


def _over_budget(view: FleetView, granted: Sequence[Request], grants: tuple[Grant, ...]) -> Iterator[str]:
    """No pool has more nodes out than its limit, if this pass takes one more of them out."""
    new = {request.run for request in granted}
    after = Account(view, grants, ())
    before = Account(view, tuple(grant for grant in grants if grant.run not in new), ())
    for name in sorted({view.census.home(request.node.name) or "" for request in granted}):
        pool = view.pools.get(name)
        if pool is None or pool.spec.role != "Workload":
            continue
        out, size = out_of(view, after, [pool])
        taken = out.keys() - out_of(view, before, [pool])[0].keys() - _returning(granted)
        limit = budget.resolve(budget.limit_of(pool.spec, view.policy), size)
        if taken and len(out) > limit:
            yield f"pool {name}: {len(out)} out of {limit} allowed, with {', '.join(sorted(taken))}"


def _returning(granted: Sequence[Request]) -> set[str]:
    """Machines that an ended run keeps out: to fence them once more is no new harm."""
    return {request.node.name for request in granted if request.already_out}
