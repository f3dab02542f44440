"""The books of one fleet pass: who is out, which grants stand, what was taken. Pure.

One account holds the real grants; a second one, opened on top of it, holds what Audit would have
granted, so that shadow grants limit each other and nothing real.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from msgspec import UNSET
from msgspec.structs import replace

from remediator.core import breaker, budget
from remediator.core.lifecycle import ended, natural
from remediator.core.request import FleetView, Request, Shadow
from remediator.model.instant import write_instant
from remediator.model.meta import Rate
from remediator.model.policy import RATES_MAX, BreakerState, Grant, PolicySpec, PolicyStatus, RateState
from remediator.model.remediation import Remediation, RunState

Out = tuple[Mapping[str, str], int]  # who does not serve, with the reason, and how many there are

_DETACHED_STATES = (RunState.DETACHED, RunState.REPAIRING, RunState.VERIFYING)


def run_state(run: Remediation) -> RunState:
    """Where the run stands; a run without status is Granted."""
    if run.status is UNSET or not run.status.state:
        return RunState.GRANTED
    return RunState(run.status.state)


def natural_state(run: Remediation) -> RunState:
    """Where the run's steps have brought it, whatever blocks or holds it now."""
    state = run_state(run)
    if ended(state) or run.status is UNSET:
        return state
    return natural(
        tuple((step.action, step.state == "Done") for step in run.status.steps if step.action != "undo")
    )


def is_hard(run: Remediation) -> bool:
    """Is there nothing to spare any more: a hard fault began this run, or has joined it?"""
    return run.spec.severity == "Hard" or (run.status is not UNSET and bool(run.status.raised_by))


def handed_over(run: Remediation) -> bool:
    """Has a spare taken this run's place in the pool?"""
    if run.status is UNSET:
        return False
    return any(step.action == "swap" and step.state == "Done" for step in run.status.steps)


def needs_grant(run: Remediation) -> bool:
    """A grant lives from the decision until the node is detached or the run ended."""
    state = natural_state(run)
    return not ended(state) and state not in _DETACHED_STATES


def rate_limits(request: Request, policy: PolicySpec) -> tuple[tuple[str, Rate], ...]:
    """The buckets that the request's grant takes a token of, by their scopes."""
    limits = [("fleet", policy.rate)]
    own = request.playbook.spec.limits
    if own is not UNSET and own.rate is not UNSET:
        limits.append((f"playbook/{request.playbook.name}", own.rate))
    return tuple(limits)


def take_back(
    status: PolicyStatus, unborn: Sequence[Request], policy: PolicySpec, now: datetime
) -> PolicyStatus:
    """The books without the grants of runs that never came to be, and with their tokens and trials again.

    Nothing was done for such a grant: a fault that has to wait for the next token would wait for nothing.
    """
    runs = frozenset(request.run for request in unborn)
    rates = {state.scope: state for state in status.rates}
    for request in filter(_takes_tokens, unborn):
        for scope, rate in rate_limits(request, policy):
            if scope in rates:
                rates[scope] = budget.give_back(scope, rate, rates[scope], now)
    grants = tuple(grant for grant in status.grants if grant.run not in runs)
    breakers = breaker.without_trials(status.breakers, runs)
    return replace(status, grants=grants, rates=tuple(rates.values()), breakers=breakers)


def _takes_tokens(request: Request) -> bool:
    return request.harms and not request.already_out


class Account:
    """Grants, rates and breakers as they change in the course of one pass."""

    def __init__(
        self, view: FleetView, grants: tuple[Grant, ...], breakers: tuple[BreakerState, ...]
    ) -> None:
        self._view = view
        self.grants = grants
        self.breakers = breakers
        self.rates: dict[str, RateState] = {state.scope: state for state in view.status.rates}
        self.begun: dict[str, int] = {}  # grants of this pass by playbook: their runs are not seen yet
        self.shadows: tuple[Shadow, ...] = ()
        self._outs: dict[frozenset[str], tuple[tuple[Grant, ...], Out]] = {}
        self._cause_keys = breaker.cause_keys(view.policy.breaker, view.pools.values())

    def shadowed(self) -> Account:
        """A second set of books: these ones plus the shadow grants that stand."""
        copy = Account(self._view, self.grants, self.breakers)
        copy.rates = dict(self.rates)
        for shadow in self._view.shadows:
            copy.add_shadow(shadow)
        return copy

    def add_shadow(self, shadow: Shadow) -> None:
        grant = Grant(run=shadow.run, uid=shadow.node_uid, pool=shadow.pool, spare=shadow.spare)
        self.shadows = (*self.shadows, shadow)
        self.grants = (*self.grants, grant)

    def grant(self, request: Request, pool: str, spare: str) -> Grant:
        """Enter one grant and take its tokens."""
        grant = Grant(
            run=request.run,
            uid=request.node.uid,
            pool=pool,
            spare=spare,
            at=write_instant(self._view.now),
        )
        self.grants = (*self.grants, grant)
        name = request.playbook.name
        self.begun[name] = self.begun.get(name, 0) + 1
        if _takes_tokens(request):
            for scope, rate in rate_limits(request, self._view.policy):
                self.rates[scope] = budget.take(scope, rate, self.rates.get(scope), self._view.now)
            self._forget_old_rates()
            self.breakers = breaker.with_trial(self.breakers, self.scopes(request), request.run)
        return grant

    def out_once(self, pools: frozenset[str], find: Callable[[], Out]) -> Out:
        """What ``find`` says of these pools, asked once for as long as the grants are the same.

        Hundreds of requests may wait for one pool, and its members are thousands.
        """
        grants, known = self._outs.get(pools, ((), None))
        if known is None or grants is not self.grants:
            known = find()
            self._outs[pools] = (self.grants, known)
        return known

    def _forget_old_rates(self) -> None:
        """Keep the fleet's bucket and the newest others: the list is bounded, and old buckets are full.

        One too many and the server would refuse the whole status, with every grant in it.
        """
        others = sorted(self.rates.keys() - {"fleet"}, key=lambda scope: self.rates[scope].at, reverse=True)
        for scope in others[RATES_MAX - 1 :]:
            del self.rates[scope]

    def scopes(self, request: Request) -> frozenset[str]:
        """Scopes of the breakers that may stop this request."""
        return breaker.scopes_of(
            request.fault_class, breaker.causes_of(request.node.labels, self._cause_keys)
        )

    def reserved(self) -> frozenset[str]:
        return frozenset(grant.spare for grant in self.grants if grant.spare)

    def granted_nodes(self, pool: str | None = None) -> frozenset[str]:
        """Names of live nodes under an open grant, in one pool or in all."""
        return frozenset(
            self._view.names[grant.uid]
            for grant in self.grants
            if (pool is None or grant.pool == pool) and grant.uid in self._view.names
        )
