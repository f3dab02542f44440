"""The fleet pass: the single place where harm is permitted.

One sequential pure function takes all requests by order, asks every gate, assigns spares, and
answers with the grants and the policy status that records them. Without a grant a run does
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final, Literal

from msgspec import UNSET, Struct
from msgspec.structs import replace

from remediator.core import breaker
from remediator.core.account import Account, needs_grant, run_state
from remediator.core.assurance import assure
from remediator.core.gates import Case, evaluate
from remediator.core.lifecycle import ended
from remediator.core.plan import Plan, build_plan
from remediator.core.request import FleetView, Request, Shadow
from remediator.core.spare_search import SpareSearch
from remediator.core.spares import pick, unfit
from remediator.model.decision import GateVerdict
from remediator.model.duration import seconds
from remediator.model.instant import read_instant, write_instant
from remediator.model.keys import LABEL_NODE
from remediator.model.meta import ObjectMeta
from remediator.model.playbook import PlaybookSpec
from remediator.model.policy import FaultMark, Grant, PolicyStatus
from remediator.model.pool import ResourcePool
from remediator.model.remediation import NodeRef, PlaybookRef, Remediation, RemediationSpec
from remediator.model.signal import Fault
from remediator.model.views import NodeView

BIRTHS_PER_PASS_MAX: Final = 20
CLAIM_MAX: Final = timedelta(minutes=30)
GRANT_UNSEEN_MAX: Final = timedelta(seconds=60)


class Granted(Struct, frozen=True):
    """A request that may go ahead, and the record to create for it."""

    request: Request
    run: Remediation
    verdicts: tuple[GateVerdict, ...]


class Refused(Struct, frozen=True):
    """A request that waits. ``blocked_by`` is the first gate's reason code."""

    request: Request
    verdicts: tuple[GateVerdict, ...]

    @property
    def blocked_by(self) -> GateVerdict:
        return next(verdict for verdict in self.verdicts if not verdict.ok)


class FleetDecision(Struct, frozen=True):
    """What one fleet pass decided.

    ``status`` goes into RemediationPolicy/cluster in one compare-and-swap, together with the
    creation of the granted runs; ``changed`` is False where it equals what is stored.
    ``orphans`` are open runs whose grant never landed: nothing was done, they end as NotGranted.
    ``dropped`` are grants whose run is nowhere: it never came to be, or somebody deleted its record.
    """

    granted: tuple[Granted, ...]
    would_act: tuple[Granted, ...]
    refused: tuple[Refused, ...]
    status: PolicyStatus
    changed: bool
    orphans: tuple[str, ...]
    dropped: tuple[Grant, ...]
    shadows: tuple[Shadow, ...]


def decide_fleet(view: FleetView, requests: Sequence[Request], faults: Sequence[Fault]) -> FleetDecision:
    """Judge all requests, one after another, against the books of this instant.

    Args:
        view: the fleet at one instant.
        requests: in any order; at most one per machine is granted.
        faults: every confirmed fault there is, acted on or not; the breakers count these.

    Raises:
        ContractError: what was decided breaks one of our own rules; nothing of it may be recorded.
    """
    books = open_books(view, faults)
    account = books.account
    shadow = account.shadowed()
    judge = _Judge(view, account, shadow, tuple(sorted(requests, key=lambda request: request.order)))
    judge.run()

    status = replace(
        view.status,
        grants=account.grants,
        rates=tuple(account.rates[scope] for scope in sorted(account.rates)),
        breakers=account.breakers,
        recent_faults=books.marks,
    )
    decision = FleetDecision(
        granted=tuple(judge.granted),
        would_act=tuple(judge.would_act),
        refused=tuple(judge.refused),
        status=status,
        changed=status != view.status,
        orphans=books.standing.orphans,
        dropped=books.standing.dropped,
        shadows=shadow.shadows,
    )
    assure(view, [each.request for each in decision.granted if each.request.harms], status.grants)
    return decision


class Books(Struct, frozen=True):
    """The books as a pass opens them, before it judges any request.

    ``marks`` are all faults inside the breakers' window.
    """

    account: Account
    marks: tuple[FaultMark, ...]
    standing: Standing


class Standing(Struct, frozen=True):
    """Grants that still hold; ``orphans`` and ``dropped`` as of ``FleetDecision``."""

    grants: tuple[Grant, ...]
    orphans: tuple[str, ...] = ()
    dropped: tuple[Grant, ...] = ()


def open_books(view: FleetView, faults: Sequence[Fault]) -> Books:
    """Open the books of this instant: standing grants, counted faults, breakers, lost spares replaced."""
    standing = standing_grants(view)
    fresh = fresh_marks(view, faults)
    marks = breaker.record(view.status.recent_faults, fresh, view.policy.breaker, view.now)
    breakers = breaker.advance(
        breaker.without_trials(view.status.breakers, {grant.run for grant in standing.dropped}),
        marks,
        fresh,
        spec=view.policy.breaker,
        nodes=_managed(view),
        carrying=lambda cause: _carrying(view, cause),
        # A trial may not be seen yet.
        open_runs=frozenset(view.runs) | {grant.run for grant in standing.grants},
        now=view.now,
    )
    account = Account(view, standing.grants, breakers)
    _reclaim(view, account)
    return Books(account, marks, standing)


def _managed(view: FleetView) -> int:
    """How many nodes are in our care: what is in no pool must not make a storm of the pools look small."""
    return view.census.managed or len(view.nodes)


def _carrying(view: FleetView, cause: str) -> int:
    """How many managed nodes carry this LABEL=VALUE; walked, since it is asked in a storm only."""
    key, _, value = cause.partition("=")
    managed = (node for node in view.nodes.values() if view.census.home(node.name) is not None)
    return sum(node.labels.get(key) == value for node in managed)


def standing_grants(view: FleetView) -> Standing:
    """The grants that still hold, the runs that never got one, and the grants of no run.

    A run that began and lost its grant (somebody emptied the policy's status) gets it back:
    what is under way counts, whatever the books said.
    """
    kept, dropped = [], []
    for grant in view.status.grants:
        run = view.runs.get(grant.run)
        if run is not None and needs_grant(run):
            kept.append(_without_stale_claim(grant, run, view))
        elif run is None and grant.run not in view.ended_runs:
            at = read_instant(grant.at)
            if grant.run in view.in_flight or (at is not None and view.now - at < GRANT_UNSEEN_MAX):
                kept.append(grant)
            else:
                dropped.append(grant)
    names = {grant.run for grant in kept}
    orphans = []
    for name in sorted(view.runs):
        run = view.runs[name]
        if name in names or name in view.in_flight or not needs_grant(run):
            continue
        if run.status is UNSET or not run.status.steps:
            orphans.append(name)
        else:
            kept.append(_rebuilt(run, frozenset(grant.spare for grant in kept)))
    return Standing(tuple(kept), tuple(orphans), tuple(dropped))


def _rebuilt(run: Remediation, taken: frozenset[str]) -> Grant:
    spare = run.spec.spare.name if run.spec.spare is not UNSET and not _swap_over(run) else ""
    spare = "" if spare in taken else spare  # another run may have claimed it meanwhile
    return Grant(run=run.metadata.name, uid=run.spec.node.uid, pool=run.spec.pool, spare=spare)


def _without_stale_claim(grant: Grant, run: Remediation, view: FleetView) -> Grant:
    at = read_instant(grant.at)
    # A spare that is a member already was handed over, the record just does not say it yet: to drop
    # the claim now would let the run take a second one.
    joined = bool(grant.pool) and view.census.home(grant.spare) == grant.pool
    stale = at is not None and view.now - at > CLAIM_MAX and not joined
    return replace(grant, spare="") if grant.spare and (_swap_over(run) or stale) else grant


def _swap_over(run: Remediation) -> bool:
    """Is the swap step behind this run, with a spare or without one?"""
    if run.status is UNSET:
        return False
    return any(step.action == "swap" and step.state != "Intent" for step in run.status.steps)


def fresh_marks(view: FleetView, faults: Sequence[Fault]) -> tuple[FaultMark, ...]:
    """Faults that the breakers have not counted yet.

    A fault that a run, the ledger or Audit's record knows already is not fresh again after a
    restart, or ten old faults would look like one storm.
    """
    horizon = view.now - timedelta(seconds=seconds(view.policy.breaker.within))
    counted = {(mark.machine, mark.fault_class) for mark in view.status.recent_faults}
    known = {(run.spec.machine, run.spec.fault_class) for run in view.runs.values()} | view.audited
    for machine, ledger in view.ledgers.items():
        if ledger.out is not UNSET:
            known.add((machine, ledger.out.fault_class))
        since = read_instant(ledger.request.since) if ledger.request is not UNSET else None
        if ledger.request is not UNSET and since is not None and since < horizon:
            known.add((machine, ledger.request.fault_class))
    keys = breaker.cause_keys(view.policy.breaker, view.pools.values())
    return tuple(
        _mark(view, fault, keys)
        for fault in sorted(faults, key=lambda fault: (fault.confirmed_at, fault.key))
        if fault.confirmed_at >= horizon and fault.key not in counted and fault.key not in known
    )


def _mark(view: FleetView, fault: Fault, keys: tuple[str, ...]) -> FaultMark:
    node = view.nodes.get(fault.node)
    return FaultMark(
        machine=fault.machine,
        fault_class=fault.fault_class,
        at=write_instant(fault.confirmed_at),
        causes=breaker.causes_of(node.labels, keys) if node is not None else (),
    )


def _reclaim(view: FleetView, account: Account) -> None:
    """Give runs that wait in their swap step another spare where theirs was lost or turned sick."""
    search = SpareSearch(view)
    for index, grant in enumerate(account.grants):
        run = view.runs.get(grant.run)
        if run is None or not _wants_spare(run):
            continue
        pool = view.pools.get(grant.pool)
        leaver = view.nodes.get(run.spec.node.name)
        if pool is None or leaver is None or _claim_holds(view, pool, leaver, grant.spare):
            continue
        ranked = search.ranked(pool, leaver, _taken(account) - {grant.spare})
        chosen = pick(tuple(each for each in ranked if each.node.name != grant.spare), frozenset())
        renewed = replace(
            grant,
            spare=chosen.node.name if chosen else "",
            at=write_instant(view.now) if chosen else grant.at,
        )
        account.grants = (*account.grants[:index], renewed, *account.grants[index + 1 :])


def _taken(account: Account) -> frozenset[str]:
    """Nodes that are nobody's spare: claimed already, or about to leave themselves."""
    return account.reserved() | account.granted_nodes()


def _wants_spare(run: Remediation) -> bool:
    if run.status is UNSET:
        return False
    return any(step.action == "swap" and step.state == "Intent" for step in run.status.steps)


def _claim_holds(view: FleetView, pool: ResourcePool, leaver: NodeView, spare: str) -> bool:
    node = view.nodes.get(spare)
    if node is None:
        return False
    home = view.census.home(spare)
    if home == pool.metadata.name:
        return True  # handed over, the run has not recorded it yet
    buffer = view.pools.get(home or "")
    return buffer is not None and unfit(node, leaver, pool.spec, buffer, view.fleetwide) is None


class _Judge:
    """One walk over the requests. Lives for one pass."""

    def __init__(
        self, view: FleetView, account: Account, shadow: Account, requests: tuple[Request, ...]
    ) -> None:
        self._view = view
        self._account = account
        self._shadow = shadow
        self._requests = requests
        self._search = SpareSearch(view)
        self.granted: list[Granted] = []
        self.would_act: list[Granted] = []
        self.refused: list[Refused] = []

    def run(self) -> None:
        served: set[str] = set()
        for request in self._requests:
            if request.machine in served:
                continue
            if self._judge(request):
                served.add(request.machine)

    def _judge(self, request: Request) -> bool:
        """Judge one request. Return whether it was the machine's turn.

        What Audit's own books hold back takes no turn away from a playbook that may act.
        """
        case = self._case(request, self._account)
        verdicts = evaluate(case)
        stops = [verdict for verdict in verdicts if not verdict.ok]
        if self._births_full(request, stops):
            return True  # the next pass, in a second, records the next ones
        if not stops:
            self.refused = [each for each in self.refused if each.request.machine != request.machine]
            self._grant(case, verdicts)
        elif any(verdict.stop == "ModeAudit" for verdict in stops):
            return self._audit(request)
        else:
            self.refused.append(Refused(request, verdicts))
        return True

    def _births_full(self, request: Request, stops: list[GateVerdict]) -> bool:
        """Records that are complete at birth cost writes and no harm: a bounded number a pass."""
        recorded = not request.harms or any(verdict.stop == "ModeAudit" for verdict in stops)
        born = len(self.would_act) + sum(not each.request.harms for each in self.granted)
        return recorded and born >= BIRTHS_PER_PASS_MAX

    def _grant(self, case: Case, verdicts: tuple[GateVerdict, ...]) -> None:
        request = case.request
        plan = build_plan(request, case.pool, case.spare.node if case.spare else None)
        if request.plan_hash and request.plan_hash != plan.hash:
            stale = GateVerdict("plan", "PlanStale", f"asked for {request.plan_hash}, it is {plan.hash} now")
            self.refused.append(Refused(request, (*verdicts, stale)))
            return
        pool = case.pool.metadata.name if case.pool else ""
        if request.harms:
            self._account.grant(request, pool, case.spare.node.name if case.spare else "")
        self.granted.append(Granted(request, build_run(case, plan, "Enforce"), verdicts))

    def _audit(self, request: Request) -> bool:
        """Judge by the shadow books. Return whether it was recorded."""
        case = self._case(request, self._shadow)
        verdicts = evaluate(case)
        stops = [verdict for verdict in verdicts if not verdict.ok and verdict.stop != "ModeAudit"]
        if stops:
            self.refused.append(Refused(request, tuple(v for v in verdicts if v.stop != "ModeAudit")))
            return False
        plan = build_plan(request, case.pool, case.spare.node if case.spare else None)
        if request.harms:
            self._shadow.add_shadow(
                Shadow(
                    run=request.run,
                    machine=request.machine,
                    node_uid=request.node.uid,
                    fault_class=request.fault_class,
                    pool=case.pool.metadata.name if case.pool else "",
                    spare=case.spare.node.name if case.spare else "",
                    playbook=request.playbook.name,
                    until=self._view.now + grant_lasts(request.playbook.spec),
                )
            )
        self.would_act.append(Granted(request, build_run(case, plan, "Audit"), verdicts))
        return True

    def _case(self, request: Request, account: Account) -> Case:
        return open_case(self._view, account, request, self._requests, search=self._search)


def grant_lasts(spec: PlaybookSpec) -> timedelta:
    """How long a grant may be held: until Detached, by the time-outs of the steps before it."""
    lasts_s = 0
    for step in spec.steps:
        lasts_s += seconds(step.swap.timeout) if step.swap is not UNSET else 0
        lasts_s += seconds(step.drain.deadline) if step.drain is not UNSET else 0
    return timedelta(seconds=lasts_s)


def open_case(
    view: FleetView,
    account: Account,
    request: Request,
    others: Sequence[Request] = (),
    *,
    search: SpareSearch | None = None,
) -> Case:
    """Put one request in front of the gates, with the spare that it would get.

    ``search`` is one over this view, for a caller that asks often.
    """
    home = view.census.home(request.node.name)
    pool = view.pools.get(home) if home is not None else None
    swaps = pool is not None and pool.spec.role == "Workload" and "swap" in request.playbook.actions
    if pool is None or not swaps:
        return Case(request=request, pool=pool, view=view, account=account, ranked=(), spare=None)
    reserved = _taken(account)
    search = search or SpareSearch(view)
    ranked = search.ranked(pool, request.node, reserved)
    sole = search.sole_choices(request, others, reserved)
    return Case(
        request=request, pool=pool, view=view, account=account, ranked=ranked, spare=pick(ranked, sole)
    )


def build_run(case: Case, plan: Plan, mode: Literal["Audit", "Enforce"]) -> Remediation:
    """The record of one run, complete at birth."""
    request, view = case.request, case.view
    spare = case.spare.node if case.spare else None
    spec = RemediationSpec(
        machine=request.machine,
        node=NodeRef(name=request.node.name, uid=request.node.uid),
        boot_id=request.node.boot_id,
        pool=case.pool.metadata.name if case.pool else "",
        return_to=request.return_to,
        trigger=request.trigger,
        by=request.by,
        mode=mode,
        fault_class=request.fault_class,
        severity=request.playbook.spec.severity,
        first_seen=write_instant(request.since),
        evidence=request.evidence[:16],
        playbook=PlaybookRef(
            name=request.playbook.name, generation=request.playbook.generation, text=request.playbook.text
        ),
        plan=plan.lines,
        plan_hash=plan.hash,
        spare=NodeRef(name=spare.name, uid=spare.uid) if spare is not None else UNSET,
        term=view.term,
    )
    metadata = ObjectMeta(name=request.run, labels={LABEL_NODE: label_value(request.node.name)})
    return Remediation(metadata=metadata, spec=spec)


def label_value(text: str) -> str:
    """The text cut to a label value, which may not end in a dot or a dash."""
    return text[:63].rstrip("-._")


def is_open(run: Remediation) -> bool:
    return not ended(run_state(run))
