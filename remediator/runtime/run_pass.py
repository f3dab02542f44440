"""Carries one run on: observe, decide, one write through the door, look again. No policy.

At most one pass per run at a time. What came of a write is learnt from the caches; a write that
got no answer is looked at before anything is written again.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
import structlog
from msgspec import UNSET

from remediator.core.account import natural_state
from remediator.core.pauses import doubled
from remediator.core.run import Move, decide_run
from remediator.core.run_view import RunView
from remediator.errors import PermanentError, TransientError
from remediator.model.action import Attribution, CreateJob, EvictPod, PatchNode, SaveRun, WorldAction
from remediator.model.decision import Look
from remediator.model.remediation import Remediation, RemediationStatus, RunState
from remediator.ports import Clock, Outcome, Records, Refusal, Telemetry, Writer, Written
from remediator.runtime.observer import Observer
from remediator.runtime.replies import resource_version, version_after
from remediator.runtime.report import Reporter
from remediator.runtime.world import World

MOVES_MAX: Final = 32  # status writes and step actions in one turn before others get theirs
SEEN_WITHIN_S: Final = 5.0
CONFLICT_PAUSE_S: Final = 0.02
UNKNOWN_PAUSE_S: Final = 0.5
AGAIN_PAUSE_MAX_S: Final = 5.0
# What won't work until a person acts. A server that has just started refuses everybody for a moment, too.
ERROR_PAUSE_FIRST_S: Final = 1.0
ERROR_PAUSE_MAX_S: Final = 15.0
REFUSED_EVICTION_S: Final = 5.0

_log = structlog.get_logger(__name__)


class RunPass:
    """One turn of one run. It remembers how often each was refused; the observer, what it looked at."""

    def __init__(
        self,
        *,
        world: World,
        observer: Observer,
        writer: Writer,
        records: Records,
        reporter: Reporter,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self._world = world
        self._observer = observer
        self._writer = writer
        self._records = records
        self._reporter = reporter
        self._clock = clock
        self._telemetry = telemetry
        self._stuck_turns: dict[str, int] = {}  # of open runs: errors of a person's making in a row
        self._turns: dict[str, int] = {}  # of open runs: tries in a row that did not land
        self.term = 0

    async def turn(self, name: str) -> float | None:
        """Move one run as far as it goes now. Return seconds until the next look; None: it is over.

        Raises:
            ContractError: the run would break one of our own rules.
        """
        self._observer.begin_turn(name)
        for _ in range(MOVES_MAX):
            run = self._world.run(name)
            if run is None:
                self._observer.forget(name)
                self._turns.pop(name, None)
                after_s = None  # deleted: the sweep restores the node
                break
            try:
                after_s = await self._move(run)
            except TransientError as error:
                _log.info("look failed", run=name, error=str(error))
                return UNKNOWN_PAUSE_S
            except PermanentError as error:
                return self._stuck(run, error)
            if after_s is None or after_s > 0:
                break
        else:
            after_s = CONFLICT_PAUSE_S
        # Only now: a turn that looks, and then is refused, has come no further.
        self._stuck_turns.pop(name, None)
        return after_s

    async def _move(self, run: Remediation) -> float | None:
        view = self._observer.run_view(run)
        move = decide_run(view)
        log = _log.bind(
            run=view.name, node=run.spec.node.name, playbook=run.spec.playbook.name, step=move.step
        )
        attribution = Attribution(
            term=self.term, run=view.name, step=move.step, attempt=_attempt(view, move.step)
        )
        if move.save is not None:
            return await self._save(view, move.save, attribution, move.reason)
        if move.actions:
            log.info("acting", reason=move.reason, writes=len(move.actions))
            return await self._act(move, attribution)
        if move.look is not Look.NOTHING:
            await self._observer.look(move.look, view)
        if move.after_s is None:
            self._observer.forget(view.name)
            self._turns.pop(view.name, None)
        return move.after_s

    async def _save(
        self, view: RunView, status: RemediationStatus, attribution: Attribution, reason: str
    ) -> float:
        before = view.status
        action = SaveRun(
            name=view.name,
            resource_version=view.run.metadata.resource_version,
            before=before,
            status=status,
        )
        written = await self._records.save(action, attribution)
        if written.outcome is Outcome.APPLIED:
            self._world.wrote_run(msgspec.json.decode(written.body, type=Remediation))
            self._reporter.moved(view.run, before, status, reason)
            self._turns.pop(view.name, None)
            return 0.0
        return await self._look_again(view.run, written)

    async def _look_again(self, run: Remediation, written: Written) -> float:
        """Our status write did not land for sure: see what the record says now."""
        name = run.metadata.name
        if written.refusal is Refusal.GONE:
            self._world.forget_run(name)
            return UNKNOWN_PAUSE_S
        if written.outcome is Outcome.UNKNOWN and not await self._observer.run_exists(name):
            self._world.forget_run(name)
        if written.refusal is not Refusal.CONFLICT:
            return self._again_s(name, UNKNOWN_PAUSE_S)
        await self._world.caches.runs.wait_for(version_after(run.metadata.resource_version), SEEN_WITHIN_S)
        return self._again_s(name, CONFLICT_PAUSE_S)

    def _again_s(self, run: str, first_s: float) -> float:
        """When to try again; later each time in a row, until something of the run's lands.

        A server that is unwell for minutes must not be asked twice a second for as long; nor may a watch that
        hangs turn into a stream of conflicts. Waiting for the cache alone does not do: other objects may have
        brought it past this one's version before it began to hang.
        """
        turns = self._turns.get(run, 0)
        self._turns[run] = turns + 1
        return doubled(first_s, turns, AGAIN_PAUSE_MAX_S)

    async def _act(self, move: Move, attribution: Attribution) -> float:
        if all(isinstance(action, EvictPod) for action in move.actions):
            pauses = await asyncio.gather(*(self._apply(action, attribution) for action in move.actions))
            self._observer.evicted(attribution.run)
            if min(pauses) > 0.0:  # none was let go
                return max(*pauses, self._again_s(attribution.run, UNKNOWN_PAUSE_S))
            self._turns.pop(attribution.run, None)
            return max(pauses)
        for action in move.actions:
            pause_s = await self._apply(action, attribution)
            if pause_s > 0:
                return pause_s
        return 0.0

    async def _apply(self, action: WorldAction, attribution: Attribution) -> float:
        """Send one write. Return the pause before the next look."""
        began = self._clock.monotonic()
        written = await self._writer.apply(action, attribution)
        kind = type(action).__name__
        self._telemetry.count(
            "remediator_writes_total",
            {"action": kind, "outcome": written.outcome.value, "refusal": written.refusal.value},
        )
        self._telemetry.observe("remediator_write_seconds", {"action": kind}, self._clock.monotonic() - began)
        match action:
            case PatchNode():
                return await self._patched(action, written, attribution.run)
            case EvictPod():
                return self._evicted(action, written, attribution.run)
            case CreateJob():
                self._observer.forget_job(attribution.run)
                landed = written.outcome is Outcome.APPLIED
                return 0.0 if landed else self._again_s(attribution.run, UNKNOWN_PAUSE_S)

    async def _patched(self, action: PatchNode, written: Written, run: str) -> float:
        nodes = self._world.caches.nodes
        if written.outcome is Outcome.APPLIED:
            self._turns.pop(run, None)
            version = resource_version(written.body)
            if version and not await nodes.wait_for(version, SEEN_WITHIN_S):
                _log.warning("our own write is not seen in the watch", node=action.name, version=version)
                return UNKNOWN_PAUSE_S
            return 0.0
        if written.refusal is Refusal.CONFLICT:
            # Somebody wrote in between: the cache gets there within milliseconds.
            await nodes.wait_for(version_after(action.resource_version), SEEN_WITHIN_S)
            return self._again_s(run, CONFLICT_PAUSE_S)
        _log.warning(
            "node patch not confirmed", node=action.name, outcome=written.outcome.value, error=written.message
        )
        return self._again_s(run, UNKNOWN_PAUSE_S)

    def _evicted(self, action: EvictPod, written: Written, run: str) -> float:
        outcome = written.refusal.value if written.outcome is Outcome.REFUSED else written.outcome.value
        self._telemetry.count("remediator_evictions_total", {"outcome": outcome})
        if written.outcome is Outcome.APPLIED:
            self._observer.eviction_accepted(run)
        if written.refusal is Refusal.BUDGET:
            key = f"{action.namespace}/{action.name}"
            self._observer.refuse(run, key, written.message, REFUSED_EVICTION_S)
            return 0.0
        if written.refusal is Refusal.OVERLOAD:
            return written.retry_after_s or 1.0
        return (
            0.0 if written.outcome is Outcome.APPLIED or written.refusal is Refusal.GONE else UNKNOWN_PAUSE_S
        )

    def _stuck(self, run: Remediation, error: PermanentError) -> float:
        _log.error("run can't go on", run=run.metadata.name, node=run.spec.node.name, error=str(error))
        self._reporter.stuck(run, str(error))
        turns = self._stuck_turns.get(run.metadata.name, 0)
        self._stuck_turns[run.metadata.name] = turns + 1
        return doubled(ERROR_PAUSE_FIRST_S, turns, ERROR_PAUSE_MAX_S)


def _attempt(view: RunView, step: str) -> int:
    return next((each.attempt for each in view.status.steps if each.id == step), 1)


def repairs_before(world: World, run: Remediation) -> int:
    """Repairs under way that came before this run's, by the time their intent was stored."""
    mine = _repair_intent(run)
    if mine is None:
        return 0
    return sum(
        other.metadata.name != run.metadata.name
        and natural_state(other) is RunState.REPAIRING
        and (_repair_intent(other) or "~", other.metadata.name) < (mine, run.metadata.name)
        for other in world.open_runs.values()
    )


def _repair_intent(run: Remediation) -> str | None:
    if run.status is UNSET:
        return None
    return next((each.started_at for each in run.status.steps if each.action == "repair"), None)
