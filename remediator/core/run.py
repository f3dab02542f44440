"""The run pass: one pure function that picks the next move of one run.

A move is either one status write, or the actions of the current step, or a pause. The intent of
a step is stored, together with the result of the one before, before its first effect; the first
step's intent is the Remediation itself, which is complete at birth. What came of a write is only
ever learnt by looking.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from msgspec import UNSET, Struct
from msgspec.structs import replace

from remediator.core.account import natural_state, needs_grant, run_state
from remediator.core.lifecycle import FAULT_OVER, advance, ended, natural
from remediator.core.owners import claimed_by_other
from remediator.core.prior import write_prior
from remediator.core.put_back import counted, fence, taint_lost
from remediator.core.run_view import RunView
from remediator.core.silence import back_in_service
from remediator.core.steps.collect import decide_collect
from remediator.core.steps.detach import decide_detach
from remediator.core.steps.drain import decide_drain
from remediator.core.steps.give_back import decide_return
from remediator.core.steps.quarantine import decide_quarantine
from remediator.core.steps.repair import decide_repair
from remediator.core.steps.swap import decide_swap
from remediator.core.steps.verify import decide_verify
from remediator.core.veto import decide_undo, find_veto, keeps_out
from remediator.model.action import WorldAction
from remediator.model.decision import Act, Decision, Done, GiveUp, Look, Wait
from remediator.model.instant import read_instant, write_instant
from remediator.model.keys import ANNOTATION_RUN
from remediator.model.meta import Condition
from remediator.model.playbook import Step, action_name
from remediator.model.remediation import NodeRef, RemediationStatus, RunState, StepStatus

UNDO: Final = "undo"
HELD_POLL_S: Final = 10.0
GRANT_POLL_S: Final = 1.0
BLOCKED_NEWS_S: Final = 15.0
PRIOR_MAX: Final = 8_192
NOT_BEGUN: Final = "NotBegun"
_SUCCESS: Final = (RunState.RETURNED, RunState.REPORTED)


class Move(Struct, frozen=True):
    """What the run pass does next.

    Exactly one of: ``save`` (one status write, then look again), ``actions`` (the step's writes,
    in order, then look again), or neither (look again in ``after_s``; None: the run is over).
    """

    reason: str
    step: str = ""
    save: RemediationStatus | None = None
    actions: tuple[WorldAction, ...] = ()
    look: Look = Look.NOTHING
    after_s: float | None = 0.0


def decide_run(view: RunView) -> Move:
    """Say what one run does next.

    Raises:
        ContractError: the record asks for something that our own rules forbid.
    """
    if ended(run_state(view.run)):
        return Move(reason="the run has ended", after_s=None)
    if any(step.action == UNDO for step in view.status.steps):
        return _undo(view)
    stop = _stop(view)
    if stop is not None:
        return stop
    lost = taint_lost(view)
    if lost is not None:
        save = counted(view, lost)
        actions = (fence(view),) if save is None else ()
        return Move(reason=f"{lost.manager} took our taint away", save=save, actions=actions)
    current = view.step()
    if view.hard_fault and not view.hard:
        return _raise(view)
    if current is None:
        return _end(view, RunState.HANDED_OFF, "PlaybookEnded", "no step is left; the machine stays out")
    if needs_grant(view.run) and view.grant is None:
        return Move(reason="waiting for the grant", after_s=GRANT_POLL_S)
    return _carry_on(view, current[0], _status_of(view, *current))


def _stop(view: RunView) -> Move | None:
    """The world has taken this run's reason away, or somebody has."""
    if view.node is None:
        return _end(view, RunState.NODE_GONE, "NodeGone", "the Node is gone; the machine stays out")
    veto = find_veto(view)
    if veto is not None:
        said = f"{veto.message}" + (f" (by {veto.by})" if veto.by else "")
        if keeps_out(view, veto):
            return _end(view, RunState.CANCELLED, veto.reason, f"{said}; the machine stays out, as it was")
        return _begin_undo(view, veto.reason, said)
    fenced = view.marked or view.quarantined or view.did("quarantine") is not None
    if view.fault_over and not fenced:
        return _fault_over(view)
    return None


def _fault_over(view: RunView) -> Move:
    """Nothing is fenced for a fault that has ended. A spare that came stays: it serves already."""
    given = view.spare_home is not None and view.home is not None and view.spare_home is view.home
    if given or any(each.state == "Done" for each in view.status.steps):
        return _end(view, RunState.CANCELLED, FAULT_OVER, "the fault had ended before the node was fenced")
    return _end(view, RunState.NOT_GRANTED, FAULT_OVER, "the fault had ended before anything was done")


def _raise(view: RunView) -> Move:
    """Write down that a hard fault has joined, once and for good. The step under way gets its full time.

    A wait of hours that suits a soft fault may have used up the time that a hard one gives to a step.
    """
    now, message = write_instant(view.now), f"a hard fault has joined: {view.hard_fault}"
    steps = tuple(
        replace(each, started_at=now) if each.state == "Intent" else each for each in view.status.steps
    )
    status = replace(
        view.status,
        state=run_state(view.run).value,
        steps=steps,
        raised_by=view.hard_fault[:256],
        message=message[:1_024],
    )
    return Move(reason=message, save=status)


def _status_of(view: RunView, step: Step, status: StepStatus | None) -> StepStatus:
    if status is not None:
        return status
    born = view.run.metadata.creation_timestamp or write_instant(view.now)
    return StepStatus(id=step.id, action=action_name(step), state="Intent", started_at=born)


def _carry_on(view: RunView, step: Step, status: StepStatus) -> Move:
    held = run_state(view.run) is RunState.HELD
    aside = None if held else _stand_aside(view, step)
    if aside is not None:
        return _wait(view, step, aside)
    back = back_in_service(view.node) if view.node is not None and view.quarantined else None
    if back is not None:
        return Move(reason="heard again: lifting out-of-service", step=step.id, actions=(back,))
    decision = decide_step(view, step, status)
    not_begun = view.status.reason == NOT_BEGUN and status in view.status.steps
    if not_begun and isinstance(decision, Act | GiveUp):
        return _start_anew(view, step, status)
    if isinstance(decision, Done):
        return _finish(view, step, status, decision)
    if isinstance(decision, GiveUp):
        return _give_up(view, step, status, decision)
    if held:
        # A look that the decision needs is taken all the same: what isn't looked at never changes.
        look = decision.look if isinstance(decision, Wait) else Look.NOTHING
        pause_s = HELD_POLL_S if look is Look.NOTHING else 0.0
        return Move(reason=f"held: {view.status.message}", step=step.id, look=look, after_s=pause_s)
    if isinstance(decision, Act):
        return Move(reason=decision.reason, step=step.id, actions=decision.actions)
    return _wait(view, step, decision)


def _stand_aside(view: RunView, step: Step) -> Wait | None:
    """Let a pause, or somebody else who works on this node, go first."""
    if view.paused and not _begun(view, step):
        return Wait(after_s=HELD_POLL_S / 2, reason=view.paused, blocked="Paused", idle=True)
    other = claimed_by_other(view.node) if view.node is not None else None
    if other is None or step.verify is not UNSET or step.collect is not UNSET:
        return None  # these two write nothing to the node
    reason = f"OwnedByOther: {other} works on this node"
    return Wait(after_s=HELD_POLL_S / 2, reason=reason, blocked="OwnedByOther", idle=True)


def _start_anew(view: RunView, step: Step, status: StepStatus) -> Move:
    """Give the step its full time, once: a pause or a queue kept it from beginning while its time ran."""
    fresh = replace(status, started_at=write_instant(view.now))
    steps = tuple(fresh if each is status else each for each in view.status.steps)
    message = "its time starts now"
    base = replace(view.status, steps=steps, reason="", waits_for="", until="")
    save = _in_state(view, base, natural_state(view.run), message)
    return Move(reason=message, step=step.id, save=save)


def decide_step(view: RunView, step: Step, status: StepStatus) -> Decision:
    """Ask the one action that the step carries."""
    if step.quarantine is not UNSET:
        return decide_quarantine(view, step.quarantine, step.id)
    if step.swap is not UNSET:
        return decide_swap(view, step.swap, status)
    if step.drain is not UNSET:
        return decide_drain(view, step.drain, status)
    if step.repair is not UNSET:
        return decide_repair(view, step.repair, status)
    if step.verify is not UNSET:
        return decide_verify(view, step.verify, status)
    if step.return_ is not UNSET:
        return decide_return(view, step.return_, status)
    if step.detach is not UNSET:
        return decide_detach(view, step.id)
    if step.collect is not UNSET:
        return decide_collect(view, step.collect, status)
    return Done(reason="reported")


def _begun(view: RunView, step: Step) -> bool:
    """Has this step had an effect already? A pause lets it finish then."""
    if step.verify is not UNSET or step.collect is not UNSET:
        return True  # They write nothing to the cluster; a pause would only blind the soak.
    if step.repair is not UNSET:
        return view.job is not None
    if step.drain is not UNSET:
        return view.evictions > 0 or any(pod.deleting for pod in view.pods or ())
    return view.node is not None and view.node.annotations.get(ANNOTATION_RUN) == view.mark(step.id)


def _finish(view: RunView, step: Step, status: StepStatus, done: Done) -> Move:
    """Store the result of this step and the intent of the next in one write."""
    now = write_instant(view.now)
    finished = replace(
        status,
        state="Skipped" if done.skipped else "Done",
        finished_at=now,
        note=(done.note or done.reason)[:1_024],
        evictions=view.evictions if step.drain is not UNSET else 0,
    )
    steps = [*(each for each in view.status.steps if each.id != step.id), finished]
    following = _next_step(view, step)
    if following is not None:
        steps.append(
            StepStatus(id=following.id, action=action_name(following), state="Intent", started_at=now)
        )
    base = replace(
        view.status, steps=tuple(steps), waits_for="", until="", quiet_since="", reason="", message=""
    )
    if step.quarantine is not UNSET:
        base = replace(base, started_at=view.status.started_at or now)
    if step.quarantine is not UNSET or step.detach is not UNSET:
        base = replace(base, prior=_prior_for_record(view))
    if following is not None and following.repair is not UNSET and view.node is not None:
        base = replace(base, repair_boot_id=view.node.boot_id)
    if done.evidence:
        base = replace(base, evidence=done.evidence)
    if step.swap is not UNSET and view.spare is not None and not done.skipped:
        base = replace(base, spare=NodeRef(name=view.spare.name, uid=view.spare.uid))
    state = _natural(base)
    if following is None and not ended(state):
        return _end(
            view, RunState.HANDED_OFF, "PlaybookEnded", "no step is left; the machine stays out", base
        )
    if ended(state):
        return Move(
            reason=done.reason, step=step.id, save=_closed(view, base, state, state.value, done.reason)
        )
    # One write tells of two changes: where this step's end leads, and where the next one's begin does.
    through = advance(run_state(view.run), _natural(replace(base, steps=_until(base.steps, step.id))))
    return Move(reason=done.reason, step=step.id, save=_in_state(view, base, state, done.reason, through))


def _until(steps: tuple[StepStatus, ...], step_id: str) -> tuple[StepStatus, ...]:
    ids = [each.id for each in steps]
    return steps[: ids.index(step_id) + 1]


def _prior_for_record(view: RunView) -> str:
    """The record's copy of what to restore, for the case that somebody removes the annotation."""
    written = write_prior(view.prior)
    return written if len(written) <= PRIOR_MAX else view.status.prior


def _next_step(view: RunView, step: Step) -> Step | None:
    ids = [each.id for each in view.playbook.steps]
    index = ids.index(step.id) + 1
    return view.playbook.steps[index] if index < len(ids) else None


def _natural(status: RemediationStatus) -> RunState:
    # A skipped step led nowhere: without a spare nothing was handed over.
    return natural(tuple((each.action, each.state == "Done") for each in status.steps if each.action != UNDO))


def _wait(view: RunView, step: Step, wait: Wait) -> Move:
    """Sleep; or first write down what the run waits for, when that is news worth a write."""
    asleep = Move(reason=wait.reason, step=step.id, look=wait.look, after_s=wait.after_s)
    status = view.status
    if wait.quiet is True and not status.quiet_since:
        began = replace(status, quiet_since=write_instant(view.now), waits_for=wait.reason[:256])
        return Move(
            reason=wait.reason,
            step=step.id,
            save=_in_state(view, began, natural_state(view.run), wait.reason),
        )
    if wait.quiet is False and status.quiet_since:
        broken = replace(status, quiet_since="")
        return Move(reason=wait.reason, step=step.id, save=_blocked(view, broken, step, wait))
    if not wait.blocked or status.waits_for == wait.reason[:256] or not _is_news(view):
        return asleep
    return Move(reason=wait.reason, step=step.id, save=_blocked(view, status, step, wait))


def _is_news(view: RunView) -> bool:
    """At most one write in 15 seconds about what a run waits for."""
    last = next((each for each in view.status.conditions if each.type == "Blocked"), None)
    at = read_instant(last.last_transition_time) if last is not None else None
    return at is None or view.now - at >= timedelta(seconds=BLOCKED_NEWS_S)


def _blocked(view: RunView, status: RemediationStatus, step: Step, wait: Wait) -> RemediationStatus:
    if all(each.id != step.id for each in status.steps):
        status = replace(status, steps=(*status.steps, _status_of(view, step, None)))
    status = replace(
        status,
        waits_for=wait.reason[:256],
        until=write_instant(wait.until) if wait.until is not None else "",
        reason=NOT_BEGUN if wait.idle else status.reason,
    )
    waiting = _in_state(view, status, RunState.BLOCKED, wait.reason, blocked=wait.blocked)
    if not wait.condition:
        return waiting
    named = _named(wait.condition, wait.condition, wait.reason, write_instant(view.now))
    return replace(waiting, conditions=(*waiting.conditions, *named))


def _give_up(view: RunView, step: Step, status: StepStatus, decision: GiveUp) -> Move:
    if decision.state is RunState.HELD:
        if run_state(view.run) is RunState.HELD and view.status.message == decision.message[:1_024]:
            return Move(reason=f"held: {decision.message}", step=step.id, after_s=HELD_POLL_S)
        held = replace(view.status, waits_for="a person", until="")
        save = replace(
            _in_state(view, held, RunState.HELD, decision.message, blocked=decision.reason),
            reason=decision.reason,
        )
        return Move(reason=decision.message, step=step.id, save=save)
    failed = decision.state is not RunState.HANDED_OFF
    closed = replace(
        status,
        state="Failed" if failed else "Done",
        finished_at=write_instant(view.now),
        note=decision.message[:1_024],
    )
    steps = (*(each for each in view.status.steps if each.id != step.id), closed)
    return _end(view, decision.state, decision.reason, decision.message, replace(view.status, steps=steps))


def _begin_undo(view: RunView, reason: str, message: str) -> Move:
    untouched = not view.marked and view.did("quarantine") is None
    if untouched:
        return _end(view, RunState.CANCELLED, reason, message)
    undo = StepStatus(id=UNDO, action=UNDO, state="Intent", started_at=write_instant(view.now))
    status = replace(
        view.status,
        state=run_state(view.run).value,
        steps=(*view.status.steps, undo),
        reason=reason,
        message=message[:1_024],
        waits_for="undo",
    )
    return Move(reason=message, step=UNDO, save=status)


def _undo(view: RunView) -> Move:
    decision = decide_undo(view)
    if isinstance(decision, Act):
        return Move(reason=decision.reason, step=UNDO, actions=decision.actions)
    now = write_instant(view.now)
    steps = tuple(
        replace(each, state="Done", finished_at=now, note=decision.reason) if each.id == UNDO else each
        for each in view.status.steps
    )
    reason, message = view.status.reason, view.status.message
    if any(each.action == "repair" and each.state == "Intent" for each in steps):
        reason, message = "RepairMayStillRun", f"{message}; a repair Job that was sent is not deleted"
    return _end(view, RunState.CANCELLED, reason, message, replace(view.status, steps=steps))


def _end(
    view: RunView, state: RunState, reason: str, message: str, status: RemediationStatus | None = None
) -> Move:
    closed = _closed(view, status if status is not None else view.status, state, reason, message)
    return Move(reason=message, save=closed)


def _closed(
    view: RunView, status: RemediationStatus, state: RunState, reason: str, message: str
) -> RemediationStatus:
    # Several steps may end in one write; what has to be allowed is the way from where they led.
    advance(_natural(status) if not ended(_natural(status)) else run_state(view.run), state)
    now = write_instant(view.now)
    surplus = _surplus(view, status) if state is RunState.CANCELLED else ""
    message = f"{message}; {surplus}" if surplus else message
    verdict = Condition(
        type="Succeeded",
        status="True" if state in _SUCCESS else "False",
        reason=reason,
        message=message[:1_024],
        last_transition_time=now,
    )
    return replace(
        status,
        state=state.value,
        reason=reason,
        message=message[:1_024],
        waits_for="",
        until="",
        finished_at=now,
        conditions=(verdict, *_named("SurplusInPool", "SpareStays", surplus, now)),
    )


def _surplus(view: RunView, status: RemediationStatus) -> str:
    """What the undo of a run leaves: nobody takes a serving node out of its pool for being one too many."""
    if status.spare is UNSET or all((each.action, each.state) != ("swap", "Done") for each in status.steps):
        return ""
    return f"{status.spare.name} stays in pool {view.run.spec.pool}, which has one node more than before"


def _named(type_: str, reason: str, message: str, now: str) -> tuple[Condition, ...]:
    """A true condition with this message; none where there is nothing to say."""
    if not message:
        return ()
    return (
        Condition(
            type=type_, status="True", reason=reason, message=message[:1_024], last_transition_time=now
        ),
    )


def _in_state(
    view: RunView,
    status: RemediationStatus,
    state: RunState,
    message: str,
    through: RunState | None = None,
    *,
    blocked: str = "",
) -> RemediationStatus:
    now = write_instant(view.now)
    under_way = Condition(type="Succeeded", status="Unknown", reason=state.value, last_transition_time=now)
    return replace(
        status,
        state=advance(through or run_state(view.run), state).value,
        message=message[:1_024],
        conditions=(under_way, *(_named("Blocked", blocked, message, now) if blocked else ())),
        started_at=status.started_at or now,
    )
