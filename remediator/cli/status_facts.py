"""Picks out of one view of the fleet what a person on call has to know. Pure; it prints nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

from msgspec import UNSET, Struct, UnsetType

from remediator.app.leadership import Leadership
from remediator.cli.pool_facts import MODES, PoolRow, in_order, pool_needs, pool_row
from remediator.core.account import Account, run_state
from remediator.core.custody import orphans
from remediator.core.fleet import open_books
from remediator.core.joins.gate import is_gated
from remediator.core.joins.validity import faults_of_joins
from remediator.core.people import paused, read_hold
from remediator.core.request import FleetView
from remediator.model.duration import spoken
from remediator.model.instant import read_instant
from remediator.model.keys import ANNOTATION_HOLD
from remediator.model.ledger import ManagedNode
from remediator.model.meta import Pause
from remediator.model.playbook import Playbook
from remediator.model.remediation import Remediation, RunState
from remediator.model.signal import Fault
from remediator.model.views import NodeView
from remediator.model.words import how_many

ORPHANS_MAX: Final = 20
REQUEST_NEWS: Final = timedelta(minutes=10)
DAY: Final = timedelta(hours=24)


class Given(Struct, frozen=True, kw_only=True):
    """What was read: the view, and what it does not hold."""

    view: FleetView
    faults: tuple[Fault, ...]
    ended: Mapping[str, Remediation]
    playbooks: Mapping[str, Playbook]
    ledgers: Mapping[str, ManagedNode]
    node_of: Callable[[str], str]  # machine -> its node's name, or empty
    machine_of: Callable[[NodeView], str]
    leadership: Leadership


class RunRow(Struct, frozen=True):
    name: str
    node: str
    fault: str
    step: str
    since: str
    waits_for: str
    until: str


class Facts(Struct, frozen=True, kw_only=True):
    """What the screen shows; (subject, text) where a person has to do something."""

    needs: tuple[tuple[str, str], ...]
    pools: tuple[PoolRow, ...]
    known_out: tuple[str, ...]
    runs: tuple[RunRow, ...]
    signals: tuple[str, ...]
    safety: tuple[str, ...]
    day: str


def gather(given: Given) -> Facts:
    """Everything, sorted."""
    account = open_books(given.view, given.faults).account
    return Facts(
        needs=tuple(_needs(given, account)),
        pools=tuple(pool_row(given.view, account, pool) for pool in in_order(given.view.pools)),
        known_out=tuple(_known_out(given)),
        runs=tuple(run_row(given.view.runs[name], given.view.now) for name in sorted(given.view.runs)),
        signals=tuple(_signals(given)),
        safety=tuple(_safety(given, account)),
        day=_day(given),
    )


def run_row(run: Remediation, now: datetime) -> RunRow:
    """Where one open run stands."""
    status = run.status
    if status is UNSET:
        return RunRow(run.metadata.name, run.spec.node.name, fault_of(run), "granted", "", "", "")
    current = next((step for step in status.steps if step.state == "Intent"), None)
    total = len(run.spec.plan)
    step = f"{current.id} {len(status.steps)}/{total}" if current is not None and total else "-"
    if run_state(run) in (RunState.HELD, RunState.BLOCKED):
        step += f" {run_state(run).value}"
    since = read_instant(current.started_at) if current is not None else None
    waits = status.waits_for or status.message
    if run_state(run) is RunState.HELD:
        waits = f"a person: {status.message}"
    return RunRow(
        run.metadata.name,
        run.spec.node.name,
        fault_of(run),
        step,
        spoken((now - since).total_seconds()) if since is not None else "",
        waits,
        clock_time(status.until, now),
    )


def fault_of(run: Remediation) -> str:
    """``gpu.bus, xid 79``."""
    codes = sorted({each.code for each in run.spec.evidence if each.code})
    return run.spec.fault_class + (f", xid {', '.join(map(str, codes))}" if codes else "")


def clock_time(text: str, now: datetime) -> str:
    """``03:56`` today, with the date on any other day; empty for no time."""
    at = read_instant(text)
    if at is None:
        return ""
    return f"{at:%H:%M}" if at.date() == now.date() else f"{at:%m-%d %H:%M}"


def _needs(given: Given, account: Account) -> Iterable[tuple[str, str]]:
    view = given.view
    if not view.policy_exists:
        yield "policy", "no RemediationPolicy/cluster: every playbook is in Audit (deploy/base/policy.yaml)"
    if given.leadership.vacant(view.now):
        yield "leader", f"nobody leads, so nothing happens: {_why_no_leader(given.leadership, view.now)}"
    for _, run in sorted(view.runs.items()):
        state, row = run_state(run), run_row(run, view.now)
        if state in (RunState.HELD, RunState.BLOCKED) and run.status is not UNSET:
            until = f"; until {row.until}" if row.until else ""
            yield row.node, f"{row.step} for {row.since}: {run.status.message}{until}"
    for breaker in account.breakers:
        since = read_instant(breaker.since) or view.now
        held = f"{breaker.state} for {spoken((view.now - since).total_seconds())}"
        count = f"{how_many(breaker.count, 'fault')} now, opens above {breaker.limit}"
        yield f"breaker {breaker.scope}", f"{held}: {count}; no new harm, healing goes on"
    yield from _waiting(given)
    for pool in in_order(view.pools):
        yield from pool_needs(view, account, pool)
    for orphan in islice(orphans(view, given.machine_of), ORPHANS_MAX):
        yield orphan.subject, f"{orphan.text}; if that lasts over a minute: remediator cleanup"
    for name in sorted(view.conflicted):
        yield name, "another live Node carries this machine's identity; both are left alone"


def _waiting(given: Given) -> Iterable[tuple[str, str]]:
    """Requests that wait for long, and machines that wait for people."""
    view = given.view
    for machine, ledger in sorted(view.ledgers.items()):
        name = given.node_of(machine) or ledger.node or machine
        request = ledger.request
        since = read_instant(request.since) if request is not UNSET else None
        if request is not UNSET and since is not None and view.now - since > REQUEST_NEWS:
            waited = spoken((view.now - since).total_seconds())
            said = f"waits {waited} at {request.blocked_by}: {request.numbers}"
            yield name, f"{request.fault_class} {said}"
        if ledger.out is not UNSET:
            at = read_instant(ledger.out.since) or view.now
            for_ = spoken((view.now - at).total_seconds())
            yield name, f"out for {for_} after {ledger.out.run}: {ledger.out.reason}; people have to look"


def _known_out(given: Given) -> Iterable[str]:
    counted: Counter[tuple[str, str]] = Counter()
    for ledger in given.ledgers.values():
        adopt = ledger.spec.adopt
        until = read_instant(adopt.until) if adopt is not UNSET else None
        if adopt is not UNSET and until is not None and until > given.view.now:
            counted[adopt.by, f"{until:%Y-%m-%d}"] += 1
    for (by, until_text), count in sorted(counted.items()):
        machines = how_many(count, "machine")
        yield f"{machines}, adopted by {by or 'somebody'} until {until_text}, outside all limits"


def _why_no_leader(leadership: Leadership, now: datetime) -> str:
    if leadership.problem:
        return leadership.problem
    if not leadership.holder:
        return "the Lease has no holder"
    ago = spoken(leadership.age_s(now))
    return f"{leadership.holder} renewed the Lease {ago} ago, and it holds {leadership.lease_s} s"


def _signals(given: Given) -> Iterable[str]:
    view = given.view
    if not given.leadership.known:
        yield f"leader: {given.leadership.problem}"
    ready = [node.condition("Ready") for node in view.nodes.values()]
    heard = sum(each is not None and each.status in ("True", "False") for each in ready)
    yield f"conditions: {heard} of {len(view.nodes)} kubelets heard"
    if view.policy.exporter is UNSET:
        yield "exporter: policy.spec.exporter is not set; playbooks that need its pages can't act"
    else:
        yield "exporter: pages are read by the leader only (remediator why NODE tries to read one)"
    counted = Counter(fault.fault_class for fault in given.faults)
    faults = ", ".join(f"{count} {name}" for name, count in sorted(counted.items()))
    yield f"confirmed now: {faults or 'none'}"


def _safety(given: Given, account: Account) -> Iterable[str]:
    view = given.view
    opened = ", ".join(f"{each.scope} {each.state}" for each in account.breakers)
    marks = len(view.status.recent_faults)
    yield f"breakers: {opened or 'closed'}; {how_many(marks, 'fault')} in {view.policy.breaker.within}"
    yield f"paused: {', '.join(_pauses(given)) or 'nothing'}"
    holds = sorted(_holds(view))
    ends = f", the first ends {holds[0]}" if holds and holds[0] != "never" else ""
    yield f"holds: {len(holds)}{ends}; grants: {len(account.grants)} of {view.policy.max_concurrent}"
    counted = Counter(each.spec.mode for each in given.playbooks.values())
    modes = ", ".join(f"{counted[mode]} {mode}" for mode in reversed(MODES) if counted[mode])
    ceiling = view.policy.max_mode if view.policy_exists else "Audit"
    yield f"playbooks: {modes or 'none'}; policy ceiling {ceiling}"
    yield from _joins(view, ceiling)


def _joins(view: FleetView, ceiling: str) -> Iterable[str]:
    """Whether new nodes are let in, and how many wait; nothing where nobody has asked for it."""
    joins, books = view.policy.joins, view.status.joins
    if joins is UNSET:
        return
    gate = books.gate if books is not UNSET else joins.gate
    waiting = sum(is_gated(node, gate) for node in view.nodes.values())
    faults = "; ".join(faults_of_joins(joins, view.pools))
    mode = min(joins.mode, ceiling, key=MODES.index)
    yield f"joins: {faults or mode}; {how_many(waiting, 'node')} at the gate (remediator joins)"


def _pauses(given: Given) -> Iterable[str]:
    view = given.view
    sources: list[tuple[Pause | UnsetType, str]] = [(view.policy.pause, "policy")]
    sources += [(pool.spec.pause, f"pool {name}") for name, pool in sorted(view.pools.items())]
    sources += [(each.spec.pause, f"playbook {name}") for name, each in sorted(given.playbooks.items())]
    for pause, what in sources:
        said = paused(pause, what, view.now)
        if said is not None:
            yield said


def _holds(view: FleetView) -> Iterable[str]:
    for node in view.nodes.values():
        text = node.annotations.get(ANNOTATION_HOLD, "")
        hold = read_hold(text) if text else None
        if hold is not None and (hold.until is None or hold.until > view.now):
            yield f"{hold.until:%Y-%m-%d %H:%M}" if hold.until is not None else "never"


def _day(given: Given) -> str:
    since = given.view.now - DAY
    runs = (*given.view.runs.values(), *given.ended.values())
    recent = [run for run in runs if (read_instant(run.metadata.creation_timestamp) or since) > since]
    counted = Counter(run_state(run).value if run.metadata.name in given.ended else "open" for run in recent)
    return ", ".join(f"{count} {state}" for state, count in sorted(counted.items())) or "no run"
