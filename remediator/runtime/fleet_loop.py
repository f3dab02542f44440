"""Runs the fleet pass: gathers requests, asks core, records the grants in one compare-and-swap.

At most one such write is in flight; requests that arrive meanwhile form the next batch. The
Remediation is created at the same time as its grant; the node patch follows both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final

import msgspec
import structlog
from msgspec import UNSET
from msgspec.structs import replace

from remediator.core.account import run_state, take_back
from remediator.core.fleet import FleetDecision, Granted, Refused, decide_fleet
from remediator.core.joins.decide import JoinsDecision
from remediator.core.lifecycle import ended
from remediator.core.pauses import doubled
from remediator.core.request import FleetView, Request
from remediator.core.summary import policy_conditions
from remediator.errors import PermanentError, TransientError
from remediator.model.action import Attribution, CreateRun, SavePolicy, SaveRun
from remediator.model.instant import write_instant
from remediator.model.meta import Condition
from remediator.model.policy import PolicyStatus, RemediationPolicy
from remediator.model.remediation import Remediation, RemediationStatus, RunState
from remediator.model.signal import Fault
from remediator.ports import Clock, Outcome, PolicyObject, Reader, Records, Refusal, Telemetry, Written
from remediator.runtime.diagnosis import Diagnoses
from remediator.runtime.report import Reporter
from remediator.runtime.scout import Scout
from remediator.runtime.together import news_or
from remediator.runtime.witness import Witnesses
from remediator.runtime.world import World

IDLE_S: Final = 10.0
WAITING_S: Final = 1.0
STANDING_S: Final = 5.0  # what waits for a clock and for nothing that wakes us is late by this at most
AFTER_ERROR_S: Final = 2.0
AFTER_ERRORS_MOST_S: Final = 8.0
CONFLICT_PAUSE_S: Final = 0.1
JOIN_PAUSE_S: Final = 0.25
# After a pass, so that news of many nodes make one pass: a pass costs more the more nodes there are.
GAP_PER_NODE_S: Final = 25e-6
GAP_MOST_S: Final = 0.25
_EXPECTED: Final = (TransientError, PermanentError)


class _Unborn(TransientError):
    """The server has refused the record of a run: there is none."""


_log = structlog.get_logger(__name__)


class FleetLoop:
    """The one place that creates runs."""

    def __init__(
        self,
        *,
        world: World,
        diagnoses: Diagnoses,
        scout: Scout,
        witnesses: Witnesses,
        records: Records,
        reader: Reader,
        reporter: Reporter,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self._world = world
        self._diagnoses = diagnoses
        self._scout = scout
        self._witnesses = witnesses
        self._records = records
        self._reader = reader
        self._reporter = reporter
        self._clock = clock
        self._telemetry = telemetry
        self._wake = asyncio.Event()
        self._looked_at: frozenset[tuple[str, str]] = frozenset()
        self._unsure = False  # a PUT of the policy whose end nobody knows yet
        self._failures = 0  # passes in a row that were not recorded
        self._waiting: frozenset[tuple[str, str, str]] = frozenset()
        self._alike = 0  # passes in a row that refused the same requests at the same gates
        self._conflicts = 0  # in a row: the policy was another one than the grants were decided on
        self._got_on_at: float | None = None
        self.refused: Mapping[str, Refused] = {}
        self.on_granted: Callable[[str], None] = lambda _: None
        self.on_passed: Callable[[FleetDecision, float], None] = lambda *_: None
        self.baselined: Callable[[], tuple[int, ...]] = tuple
        self.decide_joins: Callable[[FleetView], JoinsDecision | None] = lambda _: None
        self.on_joins: Callable[[JoinsDecision], None] = lambda _: None
        self.term = 0

    def wake(self) -> None:
        """Something that requests or gates depend on has changed."""
        self._wake.set()

    def oldest_undecided_s(self) -> float:
        """Age of the oldest confirmed fault that no pass has looked at; zero when there is none."""
        waiting = [
            fault.confirmed_at for fault in self._diagnoses.faults() if fault.key not in self._looked_at
        ]
        return (self._clock.now() - min(waiting)).total_seconds() if waiting else 0.0

    def stuck_s(self) -> float:
        """Since when a pass has not got on to its next step; zero before the first one."""
        return self._clock.monotonic() - self._got_on_at if self._got_on_at is not None else 0.0

    def _get_on(self) -> None:
        self._got_on_at = self._clock.monotonic()

    async def run(self) -> None:
        """One pass after another until cancelled; at least one every ten seconds."""
        while True:
            pause_s = await self.one_pass()
            if self._failures or self._conflicts > 1:
                # News must not shorten this: what failed would be sent as often as the server answers.
                await self._clock.sleep(pause_s if self._failures else self._conflict_pause_s())
                continue
            gap_s = min(GAP_MOST_S, GAP_PER_NODE_S * len(self._world.caches.nodes))
            await self._clock.sleep(gap_s)
            await news_or(self._wake, max(0.0, pause_s - gap_s), self._clock)

    def _conflict_pause_s(self) -> float:
        """None after the first: somebody has written in between. Then longer each time, as with failures.

        Each try creates a record of the run that it wants to grant.
        """
        return doubled(CONFLICT_PAUSE_S, self._conflicts - 2, AFTER_ERROR_S)

    async def one_pass(self) -> float:
        """Decide once and record it. Return seconds until the next pass is due by itself."""
        self._wake.clear()
        began = self._clock.monotonic()
        self._get_on()
        try:
            if self._unsure:
                await self._reread()
            pause_s = await self._decide_and_record()
        except (TransientError, PermanentError) as error:
            self._failures += 1
            _log.error("fleet pass not recorded", error=str(error))
            self._telemetry.count("remediator_fleet_pass_errors_total", {})
            return doubled(AFTER_ERROR_S, self._failures - 1, AFTER_ERRORS_MOST_S)
        finally:
            self._telemetry.observe("remediator_fleet_pass_seconds", {}, self._clock.monotonic() - began)
            self._get_on()
        self._failures = 0
        return pause_s

    async def _decide_and_record(self) -> float:
        await self._witnesses.look(self._scout.silent_nodes)
        # IMPORTANT: no await from here to the decision, or it would be made on two different worlds.
        self._diagnoses.catch_up()
        faults = self._diagnoses.faults()
        self._looked_at = frozenset(fault.key for fault in faults)
        scout = self._scout
        scout.note_cleared(faults)
        view, basis = scout.view(), self._world.policy
        decision = decide_fleet(view, scout.requests.all(faults, view), faults)
        joins = self.decide_joins(view)
        if joins is not None and joins.changed:
            decision = replace(decision, changed=True, status=replace(decision.status, joins=joins.status))
        scout.shadows = tuple(each for each in decision.shadows if scout.still_there(each))
        self._tell(decision)
        self._tell_joined(faults)
        await self._record(decision, basis)
        if joins is not None and self._stands(joins):
            self.on_joins(joins)
        pause_s = min(self._pause_s(decision), _next_join_s(joins))
        self.on_passed(decision, pause_s)
        return pause_s

    def _pause_s(self, decision: FleetDecision) -> float:
        """Until the next pass, if nothing changes before: what changes wakes us.

        Clocks wake nobody (tokens of a rate, the quiet of a breaker, the end of a pause), so whoever waits
        is judged again soon; while the answers stay the same, less and less often.
        """
        refused = ((each.request, each.blocked_by.stop) for each in decision.refused)
        waiting = frozenset((request.machine, request.fault_class, stop) for request, stop in refused)
        self._alike = self._alike + 1 if waiting == self._waiting else 0
        self._waiting = waiting
        # Codes that are not baselined yet are looked at often: until then their XIDs are not acted on.
        blind = not self._diagnoses.codes <= set(self._world.policy_status.baselined)
        born = decision.would_act or any(not each.request.harms for each in decision.granted)
        if decision.orphans or blind or born:
            return WAITING_S
        if waiting or decision.status.breakers:
            return doubled(WAITING_S, self._alike, STANDING_S)
        return IDLE_S

    def _stands(self, joins: JoinsDecision) -> bool:
        """Are these the books that are stored? A conflict has kept them out, and nothing was paid."""
        return self._world.policy_status.joins == joins.status

    # -- recording what was decided

    async def _record(self, decision: FleetDecision, basis: PolicyObject | None) -> None:
        real = [each for each in decision.granted if each.request.harms]
        self._scout.in_flight = frozenset(each.run.metadata.name for each in real)
        for each in real:
            self._reporter.granted(each.request.node.name, each.run, each.request.playbook.name)
        writes: list[Awaitable[object]] = [self._create(each) for each in real]
        codes = self.baselined()
        news = decision.changed or (codes and codes != decision.status.baselined)
        news = news or decision.status.term < self.term  # a policy that was created, or emptied, under us
        if basis is not None:
            now, pools = self._clock.now(), self._world.pools
            told = policy_conditions(basis.policy, decision.status.breakers, now, pools)
            if news or told != decision.status.conditions:
                status = replace(decision.status, conditions=told)
                writes.append(self._save_policy(status, basis))
        try:
            # Every one is waited for: a grant that is still on its way must not be overtaken.
            found = await asyncio.gather(*writes, return_exceptions=True)
        finally:
            self._scout.in_flight = frozenset()
        errors = [each for each in found if isinstance(each, BaseException)]
        births = zip(real, found, strict=False)  # the policy's end comes last
        unborn = [each.request for each, end in births if isinstance(end, _Unborn | PermanentError)]
        for each in real:
            self.on_granted(each.run.metadata.name)
        if all(isinstance(error, _EXPECTED) for error in errors):
            errors += [*await self._take_back(unborn), *await self._end_records(decision)]
        for error in sorted(errors, key=lambda each: isinstance(each, _EXPECTED)):
            raise error

    async def _take_back(self, unborn: Sequence[Request]) -> list[Exception]:
        """Give back the grants of runs that the server refused to record: else they bind budget and spare.

        IMPORTANT: only what is known to be nowhere. A run whose creation nobody has answered may be there.
        """
        basis, books = self._world.policy, self._world.policy_status  # as our PUT has left them, if it landed
        runs = {request.run for request in unborn}
        if basis is None or not any(grant.run in runs for grant in books.grants):
            return []
        _log.warning("grants taken back, their records were refused", runs=sorted(runs))
        status = take_back(books, unborn, basis.policy.spec, self._clock.now())
        try:
            await self._save_policy(status, basis)
        except _EXPECTED as error:
            return [error]
        return []

    async def _end_records(self, decision: FleetDecision) -> list[Exception]:
        """Records that end here; what can't be written of one machine stops no other."""
        reports = [each for each in decision.granted if not each.request.harms]
        jobs: list[Callable[[], Awaitable[None]]] = [
            *(partial(self._at_birth, each, RunState.WOULD_ACT, "WouldAct") for each in decision.would_act),
            *(partial(self._at_birth, each, RunState.REPORTED, "Reported") for each in reports),
            *(partial(self._not_granted, name) for name in decision.orphans),
        ]
        errors: list[Exception] = []
        for job in jobs:
            self._get_on()
            try:
                await job()
            except _EXPECTED as error:
                errors.append(error)
        return errors

    async def _create(self, granted: Granted) -> Remediation | None:
        attribution = Attribution(term=self.term, run=granted.run.metadata.name)
        written = await self._records.save(CreateRun(granted.run), attribution)
        if written.outcome is not Outcome.APPLIED:
            _log.warning("run not created", run=granted.run.metadata.name, error=written.message)
            if written.refusal is Refusal.OVERLOAD:
                raise _Unborn(f"run not created: {written.message}")
            return None
        run = msgspec.json.decode(written.body, type=Remediation)
        self._world.wrote_run(run)
        return run

    async def _save_policy(self, decided: PolicyStatus, basis: PolicyObject) -> None:
        """Record what was decided.

        IMPORTANT: over the very object that it was decided on. A newer one may hold grants of another
        leader; written over with its version, they would be gone and a spare promised twice.
        """
        status = replace(
            decided,
            observed_generation=basis.policy.metadata.generation,
            term=max(decided.term, self.term),
            baselined=self.baselined() or decided.baselined,
        )
        written = await self.save_policy(SavePolicy(raw=basis.raw, status=status))
        self._conflicts = self._conflicts + 1 if written.refusal is Refusal.CONFLICT else 0
        if written.refusal is Refusal.CONFLICT:
            _log.warning("grants not recorded", outcome=written.outcome.value, error=written.message)
        elif written.outcome is not Outcome.APPLIED:
            raise TransientError(f"grants not recorded: {written.outcome.value}: {written.message}")

    async def save_policy(self, action: SavePolicy) -> Written:
        """PUT the policy's status; whatever the reply, what counts afterwards is what stands there."""
        self._unsure = True
        written = await self._records.save(action, Attribution(term=self.term))
        if written.outcome is Outcome.APPLIED:
            policy = msgspec.json.decode(written.body, type=RemediationPolicy)
            self._world.wrote_policy(PolicyObject(policy=policy, raw=written.body))
            self._unsure = False
        else:
            await self._reread()
        return written

    async def _reread(self) -> None:
        """Read the policy from the server itself. Until that works no record ends as NotGranted."""
        seen = await self._reader.policy()
        if seen is not None:
            self._world.wrote_policy(seen)
        self._unsure = False

    async def _at_birth(self, granted: Granted, state: RunState, reason: str) -> None:
        """A record that is complete and ended at once: nothing will be done."""
        run = await self._create(granted)
        if run is None:
            return
        if state is RunState.WOULD_ACT:
            self._reporter.would_act(run)
        await self._close(run, state, reason, "nothing was done")

    async def _not_granted(self, name: str) -> None:
        run = self._world.open_runs.get(name)
        # IMPORTANT: a grant may have landed since the decision; its run may be at work already.
        granted = any(grant.run == name for grant in self._world.policy_status.grants)
        if run is not None and not granted and not ended(run_state(run)):
            await self._close(
                run, RunState.NOT_GRANTED, "NotGranted", "the grant did not land; nothing was done"
            )

    async def _close(self, run: Remediation, state: RunState, reason: str, message: str) -> None:
        now = write_instant(self._clock.now())
        before = run.status if run.status is not UNSET else RemediationStatus()
        verdict = Condition(
            type="Succeeded",
            status="True" if state is RunState.REPORTED else "False",
            reason=reason,
            message=message,
            last_transition_time=now,
        )
        status = replace(
            before, state=state.value, reason=reason, message=message, finished_at=now, conditions=(verdict,)
        )
        action = SaveRun(
            name=run.metadata.name,
            resource_version=run.metadata.resource_version,
            before=before,
            status=status,
        )
        written = await self._records.save(action, Attribution(term=self.term, run=run.metadata.name))
        if written.outcome is Outcome.APPLIED:
            self._world.wrote_run(msgspec.json.decode(written.body, type=Remediation))
            self._reporter.moved(run, before, status, reason)

    def _tell(self, decision: FleetDecision) -> None:
        self.refused = {refused.request.machine: refused for refused in decision.refused}
        for refused in decision.refused:
            node = refused.request.node
            self._reporter.refused(refused.request.machine, node.name, node.uid, refused.blocked_by)
        self._reporter.no_longer_refused(frozenset(self.refused))
        for grant in decision.dropped:
            self._reporter.dropped(grant, self._world.names.get(grant.uid, ""))
        self._telemetry.gauge("remediator_requests_waiting", {}, len(decision.refused))
        self._telemetry.gauge("remediator_grants", {}, len(decision.status.grants))

    def _tell_joined(self, faults: tuple[Fault, ...]) -> None:
        by_machine = {run.spec.machine: run for run in self._world.open_runs.values()}
        for fault in faults:
            run = by_machine.get(fault.machine)
            if run is not None and run.spec.fault_class != fault.fault_class:
                self._reporter.joined(fault, run)


def _next_join_s(joins: JoinsDecision | None) -> float:
    """Until the next node may be let in by itself, as far as a clock says so."""
    if joins is None:
        return IDLE_S
    waits = [place.stop.wait_s for place in joins.queue if place.stop is not None]
    return max(JOIN_PAUSE_S, min((wait_s for wait_s in waits if wait_s is not None), default=IDLE_S))
