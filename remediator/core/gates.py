"""Every gate between a request and its grant, in order, each with a reason code and its numbers.

A gate never changes anything. ``why`` shows all of them; the fleet pass stops at the first that
does not let the request through. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Final, Literal

from msgspec import UNSET, Struct

from remediator.core import breaker, budget
from remediator.core.account import Account, Out, handed_over, rate_limits, run_state
from remediator.core.again import RETURN_ROLES
from remediator.core.lifecycle import ended
from remediator.core.own_keys import not_ours
from remediator.core.owners import claimed_by_other
from remediator.core.people import held, paused
from remediator.core.request import FleetView, Request, uses_exporter
from remediator.core.silence import acts_on_silence, silent, zone_of
from remediator.core.spares import Candidate
from remediator.model.decision import GateVerdict
from remediator.model.duration import spoken
from remediator.model.instant import read_instant
from remediator.model.meta import Limit
from remediator.model.policy import GRANTS_MAX
from remediator.model.pool import ResourcePool

CONTROL_PLANE_LABELS: Final = (
    "node-role.kubernetes.io/control-plane",
    "node-role.kubernetes.io/master",
)
_MOVES: Final = frozenset(("swap", "detach", "return"))  # actions that write what pools project
_MODES: Final = ("Disabled", "Audit", "Enforce")


class Case(Struct, frozen=True):
    """One request in front of the gates. ``spare`` None: none was found, ``ranked`` says why."""

    request: Request
    pool: ResourcePool | None
    view: FleetView
    account: Account
    ranked: tuple[Candidate, ...]
    spare: Candidate | None


Answer = tuple[str, str]  # reason code to stop, or empty; and the numbers


def evaluate(case: Case) -> tuple[GateVerdict, ...]:
    """Ask every gate, in the order in which they stop a request."""
    return tuple(GateVerdict(name, *gate(case)) for name, gate in GATES)


def effective_mode(case: Case) -> tuple[Literal["Disabled", "Audit", "Enforce"], str]:
    """The least of playbook, pool and policy, and who sets it."""
    view, request = case.view, case.request
    ceilings = [
        ("policy", view.policy.max_mode if view.policy_exists else "Audit"),
        ("playbook", request.playbook.spec.mode),
    ]
    if case.pool is not None:
        ceilings.append((f"pool {case.pool.metadata.name}", case.pool.spec.max_mode))
    who, mode = min(ceilings, key=lambda pair: _MODES.index(pair[1]))
    said = ", ".join(f"{name} {value}" for name, value in ceilings)
    if not view.policy_exists:
        said += " (no RemediationPolicy/cluster: everything is Audit)"
    return mode, f"{who} says {mode}: {said}"


def _hold(case: Case) -> Answer:
    view, node = case.view, case.request.node
    held_by = held(node, view.now)
    if held_by is not None:
        return "HoldActive", held_by
    ledger = view.ledgers.get(case.request.machine)
    until = read_instant(ledger.veto_until) if ledger is not None else None
    passed = "none"
    if ledger is not None and until is not None and until > view.now:
        no = f"{ledger.veto_by or 'a person'} said no"
        if not case.request.by:
            return "VetoHold", f"{no}; not again for {spoken((until - view.now).total_seconds())}"
        passed = f"{no}; {case.request.by} asked for it since"  # decision 0023
    if node.name in view.adopted:
        return "KnownOut", "adopted as known out"
    if view.blind:
        return "Blind", view.blind
    return "", passed


def _pause(case: Case) -> Answer:
    view, playbook = case.view, case.request.playbook
    reason = paused(view.policy.pause, "policy", view.now)
    reason = reason or paused(playbook.spec.pause, f"playbook {playbook.name}", view.now)
    if reason is None and case.pool is not None:
        reason = paused(case.pool.spec.pause, f"pool {case.pool.metadata.name}", view.now)
    return ("Paused", reason) if reason else ("", "nothing paused")


def _mode(case: Case) -> Answer:
    mode, said = effective_mode(case)
    if mode == "Disabled":
        return "ModeDisabled", said
    if mode == "Audit" and not case.request.by:
        return "ModeAudit", said
    if mode == "Audit":
        return "", f"{said}; {case.request.by} asked for it"
    return "", said


def _owner(case: Case) -> Answer:
    node, view = case.request.node, case.view
    other = claimed_by_other(node)
    if other is not None:
        return "OwnedByOther", other
    if any(label in node.labels for label in CONTROL_PLANE_LABELS):
        return "ControlPlane", "a control-plane node is never touched"
    if node.name in view.conflicted:
        return "IdentityConflict", "two live Nodes carry this machine's identity"
    if node.name in view.census.several:
        pools = " and ".join(view.census.several[node.name])
        return "PoolOverlap", f"a member of the pools {pools}; their budgets can't be kept"
    if node.name in view.own_nodes:
        return "HostsUs", "a pod of ours runs here; it has to move first"
    busy = next(
        (name for name, run in sorted(view.runs.items()) if run.spec.machine == case.request.machine), None
    )
    if busy is not None:
        return "RunOpen", f"{busy} is under way on this machine"
    return _spoken_for(case) or ("", "no foreign mark")


def _spoken_for(case: Case) -> Answer | None:
    """A grant whose run is not seen yet names this node, as the leaver or as the spare."""
    node, shadows = case.request.node, {shadow.run for shadow in case.account.shadows}
    for grant in case.account.grants:
        if grant.run in shadows:
            continue
        if grant.uid == node.uid:
            return "RunOpen", f"{grant.run} was granted on this machine"
        if grant.spare == node.name:
            return "ReservedAsSpare", f"{grant.run} has claimed it"
    return None


def _playbook_limits(case: Case) -> Answer:
    playbook, view = case.request.playbook, case.view
    missing = _missing_setup(case)
    if missing is not None:
        return missing
    limits = playbook.spec.limits
    running = sum(
        run.spec.playbook.name == playbook.name and not ended(run_state(run)) for run in view.runs.values()
    ) + sum(shadow.playbook == playbook.name for shadow in case.account.shadows)
    running += case.account.begun.get(playbook.name, 0)
    if limits is UNSET or limits.max_concurrent is UNSET:
        return "", f"{running} running"
    numbers = f"{running} of {limits.max_concurrent} running"
    return ("PlaybookConcurrency" if running >= limits.max_concurrent else ""), numbers


def _missing_setup(case: Case) -> Answer | None:
    """A playbook that could not be carried to its end must not begin."""
    actions = case.request.playbook.actions
    jobs = any(
        step.repair is not UNSET and step.repair.job is not UNSET for step in case.request.playbook.spec.steps
    )
    if stop := _wrong_destination(case):
        return "NoSuchPool", stop
    # In Audit nothing will be sent, and the record of what would have been done is what people wait for.
    will_send = bool(case.request.by) or effective_mode(case)[0] == "Enforce"
    if jobs and case.view.policy.repair is UNSET and will_send:
        return "NoRepairNamespace", "the playbook repairs by Job, but policy.spec.repair is not set"
    if will_send and _MOVES & set(actions):
        for pool in _pools_on_the_way(case):
            if keys := not_ours(pool.spec, case.view.policy.node_keys):
                numbers = f"pool {pool.metadata.name} writes {', '.join(keys)}"
                return "KeyNotListed", f"{numbers}, but policy.spec.nodeKeys does not list it"
    if "swap" in actions and case.pool is None:
        return "NoPool", "the node is a member of no ResourcePool, but the playbook swaps"
    return None


def _wrong_destination(case: Case) -> str:
    name = case.request.return_to
    if not name:
        return ""
    pool = case.view.pools.get(name)
    if pool is None:
        return f"it is to go to pool {name}, which there is not"
    return "" if pool.spec.role in RETURN_ROLES else f"pool {name} is a {pool.spec.role} pool"


def _pools_on_the_way(case: Case) -> list[ResourcePool]:
    """The node's own pool, those its spare may come from, and those it may go to."""
    home = case.pool
    buffers = home.spec.buffers if home is not None else ()
    return [
        pool
        for name, pool in sorted(case.view.pools.items())
        if name == case.request.return_to
        or (home is not None and name == home.metadata.name)
        or pool.spec.role == "Repair"
        or (pool.spec.role == "Buffer" and (not buffers or name in buffers))
    ]


def _budget(case: Case) -> Answer:
    """Room for one more node out of service, in the pool and in the fleet."""
    if not case.request.harms:
        return "", "no harm, no budget"
    over = _concurrency(case)
    if over is not None:
        return over
    name = case.request.node.name
    if case.request.already_out:
        return "", "a machine that is out already"
    pools = [pool for pool in case.view.pools.values() if pool.spec.role == "Workload"]
    fleet_out, fleet_size = out_of(case.view, case.account, pools)
    # A node of no pool is nobody's member, but taking it away is harm to the fleet all the same.
    fleet_out = {**fleet_out, **dict.fromkeys(case.account.granted_nodes(""), "Granted")}
    parts, stop = [], ""
    if case.pool is not None and case.pool.spec.role == "Workload":
        own_out, own_size = out_of(case.view, case.account, [case.pool])
        if name in own_out and not _granted_only(case, name):
            return "", f"already not serving: {own_out[name]}"
        for limit in _pool_limits(case):
            parts.append(f"pool {len(own_out)} + 1 <= {budget.spell(limit, own_size)}")
            if len(own_out) + 1 > budget.resolve(limit, own_size):
                stop = stop or "MaxUnavailableReached"
    if case.pool is not None and case.pool.spec.role != "Workload":
        return "", "not in a workload pool"
    limit = case.view.policy.max_unavailable
    parts.append(f"fleet {len(fleet_out)} + 1 <= {budget.spell(limit, fleet_size)}")
    if len(fleet_out) + 1 > budget.resolve(limit, fleet_size):
        stop = stop or "FleetUnavailableReached"
    return stop, "; ".join(parts)


def _pool_limits(case: Case) -> list[Limit]:
    assert case.pool is not None
    limits = [budget.limit_of(case.pool.spec, case.view.policy)]
    playbook = case.request.playbook.spec.limits
    if playbook is not UNSET and playbook.max_unavailable is not UNSET:
        limits.append(playbook.max_unavailable)
    return limits


def _granted_only(case: Case, name: str) -> bool:
    return name in case.account.granted_nodes() and name not in _seen_out(
        case.view, [case.pool] if case.pool else []
    )


def _seen_out(view: FleetView, pools: Sequence[ResourcePool]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pool in pools:
        found.update(view.census.out(pool.metadata.name))
    return {name: reason for name, reason in found.items() if name not in view.adopted}


def out_of(view: FleetView, account: Account, pools: Sequence[ResourcePool]) -> Out:
    """Who of these pools does not serve, with the reason, and the pools' size.

    Counted: members seen out of service, members under a grant that is not seen yet, and machines
    of open runs that are no members any more and have no replacement. Adopted machines leave both
    numbers.
    """
    names = frozenset(pool.metadata.name for pool in pools)
    return account.out_once(names, lambda: _count_out(view, account, pools, names))


def _count_out(
    view: FleetView, account: Account, pools: Sequence[ResourcePool], names: frozenset[str]
) -> Out:
    out = _seen_out(view, pools)
    members = {name for pool in names for name in view.census.members(pool)} - view.adopted
    for name in account.granted_nodes() & members:
        out.setdefault(name, "Granted")
    gone, here = set(), members | view.adopted
    for name, run in view.runs.items():
        # IMPORTANT: whatever its record says. The node is seen outside of its pool before the end of the
        # step that took it out is written down; in between it would count nowhere, and another would go.
        if run.spec.pool in names and not handed_over(run) and run.spec.node.name not in here:
            out[run.spec.node.name] = f"detached by {name}"
            gone.add(run.spec.node.name)
    for machine, ledger in view.ledgers.items():
        if ledger.out is not UNSET and ledger.out.pool in names and ledger.node not in here:
            key = ledger.node or machine
            out[key] = f"out since {ledger.out.run}"
            gone.add(key)
    return MappingProxyType(out), len(members) + len(gone)


def _concurrency(case: Case) -> Answer | None:
    view, account = case.view, case.account
    if len(account.grants) >= GRANTS_MAX:
        return "GrantsFull", f"{len(account.grants)} of {GRANTS_MAX} grants"
    if len(account.grants) >= view.policy.max_concurrent:
        return (
            "ConcurrencyReached",
            f"fleet {len(account.grants)} of {view.policy.max_concurrent} open grants",
        )
    if case.pool is None:
        return None
    own = case.pool.spec.max_concurrent
    allowed = own if own is not UNSET else view.policy.pool_max_concurrent
    held_here = sum(grant.pool == case.pool.metadata.name for grant in account.grants)
    if held_here >= allowed:
        return "PoolConcurrencyReached", f"pool {held_here} of {allowed} open grants"
    return None


def _spare(case: Case) -> Answer:
    if "swap" not in case.request.playbook.actions:
        return "", "the playbook swaps nothing"
    if case.pool is not None and case.pool.spec.role != "Workload":
        return "", "not in a workload pool, nobody takes its place"
    if case.request.already_out:
        return "", "the place was filled, or is accounted for, already"
    if case.spare is not None:
        return "", f"{case.spare.node.name}: {case.spare.where}"
    seen = len(case.ranked)
    first = f", for example {case.ranked[0].node.name}: {case.ranked[0].refused}" if case.ranked else ""
    numbers = f"0 of {seen} buffer nodes fit{first}; noSpare: {case.request.playbook.spec.no_spare}"
    return ("" if case.request.playbook.spec.no_spare == "WithoutSpare" else "NoSpareReady"), numbers


def _rate(case: Case) -> Answer:
    if not case.request.harms or case.request.already_out:
        return "", "no harm, no rate"
    parts, stop = [], ""
    for scope, rate in rate_limits(case.request, case.view.policy):
        state = case.account.rates.get(scope)
        tokens = budget.level(rate, state, case.view.now)
        parts.append(f"{scope} {tokens:.2f} of {rate.burst} tokens, {rate.count} per {rate.per}")
        if tokens < 1.0:
            stop = "RateExceeded"
            parts.append(f"next in {spoken(budget.wait_s(rate, state, case.view.now))}")
    return stop, "; ".join(parts)


def _breaker(case: Case) -> Answer:
    if not case.request.harms or case.request.already_out:
        return "", "no harm, no breaker"
    tripped = breaker.stops(case.account.breakers, case.account.scopes(case.request))
    if tripped is None:
        return "", "closed"
    numbers = f"{tripped.scope} {tripped.state}: {tripped.count} faults, opens above {tripped.limit}"
    return "BreakerOpen", numbers + (f", trial {tripped.trial}" if tripped.trial else "")


def _coverage(case: Case) -> Answer:
    if case.request.by:
        return "", f"not needed: {case.request.by} asked for it"  # decision 0023
    answers = []
    if acts_on_silence(case.request.playbook.spec) and silent(case.request.node):
        answers.append(_silence(case))
    if uses_exporter(case.request.playbook.spec):
        answers.append(_pages(case))
    stopped = next((answer for answer in answers if answer[0]), None)
    return stopped or ("", "; ".join(numbers for _, numbers in answers) or "not needed")


def _silence(case: Case) -> Answer:
    """Is the kubelet's silence its own? A cut network looks like many dead machines."""
    view, node = case.view, case.request.node
    reason = view.silent_zones.get(zone_of(node))
    if reason is not None:
        return "ZoneSilent", reason
    against = view.witnesses.get(node.uid, "its Lease was not looked at yet")
    return ("LeaseFresh", against) if against else ("", "its Lease has run out as well")


def _pages(case: Case) -> Answer:
    pool = case.pool.metadata.name if case.pool is not None else ""
    reason = case.view.uncovered.get(pool)
    return (
        ("CoverageLow", reason)
        if reason
        else ("", f"enough fresh pages, needs {case.view.policy.coverage} %")
    )


def _term(case: Case) -> Answer:
    mine, stored = case.view.term, case.view.status.term
    if mine < stored:
        return "OldTerm", f"our term {mine}, the policy's {stored}"
    return "", str(mine)


GATES: Final[tuple[tuple[str, Callable[[Case], Answer]], ...]] = (
    ("hold", _hold),
    ("pause", _pause),
    ("mode", _mode),
    ("owner", _owner),
    ("playbook", _playbook_limits),
    ("budget", _budget),
    ("spare", _spare),
    ("rate", _rate),
    ("breaker", _breaker),
    ("coverage", _coverage),
    ("term", _term),
)
