"""Tells people what a run did: one log line, one Event, metrics. It decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import structlog

from remediator.core.lifecycle import ended
from remediator.model.decision import GateVerdict
from remediator.model.instant import read_instant
from remediator.model.policy import Grant
from remediator.model.remediation import Remediation, RemediationStatus, RunState, StepStatus
from remediator.model.signal import Fault
from remediator.ports import Clock, Telemetry
from remediator.runtime.events import Events

JOINED_MAX: Final = 1_024

_log = structlog.get_logger(__name__)

# Step or state reached -> (Event reason, action, warning). Of states that have a cause of their own the
# cause is the reason: ``_cause``.
_STEP_NEWS: Final[Mapping[str, tuple[str, str, bool]]] = MappingProxyType(
    {
        "quarantine": ("Quarantined", "Fence", True),
        "swap": ("SparePromoted", "Swap", False),
        "drain": ("Drained", "Drain", False),
        "detach": ("Detached", "Detach", False),
        "repair": ("RebootDone", "Repair", False),
        "verify": ("CheckPassed", "Verify", False),
    }
)
_STATE_NEWS: Final[Mapping[RunState, tuple[str, str, bool]]] = MappingProxyType(
    {
        RunState.RETURNED: ("ReturnedAsSpare", "Return", False),
        RunState.REPORTED: ("FaultConfirmed", "Detect", True),
        RunState.HANDED_OFF: ("HandedOff", "Repair", True),
        RunState.CANCELLED: ("Cancelled", "Cancel", False),
        RunState.NODE_GONE: ("NodeGone", "Cancel", True),
        RunState.FAILED: ("Failed", "Repair", True),
        RunState.HELD: ("Held", "Hold", True),
        RunState.BLOCKED: ("Blocked", "Hold", True),
        RunState.WOULD_ACT: ("WouldRemediate", "Audit", False),
    }
)
_CAUSED: Final = frozenset({RunState.FAILED, RunState.HELD, RunState.HANDED_OFF, RunState.CANCELLED})
_TIMED: Final = MappingProxyType(
    {
        "quarantine": "remediator_time_to_isolate_seconds",
        "swap": "remediator_time_to_capacity_seconds",
        "return": "remediator_time_to_return_seconds",
    }
)


class Reporter:
    """Turns changes of runs and refusals into logs, Events and metrics."""

    def __init__(self, *, events: Events, clock: Clock, telemetry: Telemetry) -> None:
        self._events = events
        self._clock = clock
        self._telemetry = telemetry
        self._refused: dict[str, str] = {}
        self._joined: set[tuple[str, str]] = set()  # run and class that were told of

    def moved(
        self, run: Remediation, before: RemediationStatus, after: RemediationStatus, reason: str
    ) -> None:
        """One status write of one run landed."""
        finished = {step.id for step in before.steps if step.state != "Intent"}
        for step in after.steps:
            if step.state != "Intent" and step.id not in finished:
                self._step_ended(run, step)
        state = RunState(after.state) if after.state else RunState.GRANTED
        _log.info(
            "run moved",
            run=run.metadata.name,
            node=run.spec.node.name,
            playbook=run.spec.playbook.name,
            state=state.value,
            reason=after.reason or reason,
            message=after.message,
            waits_for=after.waits_for,
        )
        if after.state != before.state and state in _STATE_NEWS:
            event, action, warning = _STATE_NEWS[state]
            self._tell(run, _cause(after, state) or event, action, after.message or reason, warning)
        if after.put_backs > before.put_backs:
            self._telemetry.count("remediator_taints_put_back_total", {})
            self._tell(run, "TaintLost", "Fence", after.message, warning=True)
        if ended(state):
            self._ended(run, state)

    def refused(self, machine: str, node: str, node_uid: str, verdict: GateVerdict) -> None:
        """A request waits; said once per reason."""
        if self._refused.get(machine) == verdict.stop:
            return
        self._refused[machine] = verdict.stop
        _log.warning(
            "request waits",
            node=node,
            machine=machine,
            gate=verdict.gate,
            reason=verdict.stop,
            numbers=verdict.numbers,
        )
        self._telemetry.count("remediator_decisions_total", {"decision": "queue", "reason": verdict.stop})
        note = f"waits at gate {verdict.gate}: {verdict.numbers}"
        self._events.tell(
            machine=machine,
            node=node,
            node_uid=node_uid,
            reason=verdict.stop,
            action="Hold",
            note=note,
            warning=True,
        )

    def dropped(self, grant: Grant, node: str) -> None:
        """A grant whose run is nowhere is given back: what it reserved is free again."""
        spare = f" and the spare {grant.spare}" if grant.spare else ""
        _log.warning("grant dropped", run=grant.run, node=node, spare=grant.spare)
        self._events.tell(
            machine=grant.run.rpartition("-")[0],
            node=node,
            node_uid=grant.uid,
            reason="GrantDropped",
            action="Sweep",
            note=f"run {grant.run} does not exist; its place in the budget{spare} is free again",
            run=grant.run,
        )

    def joined(self, fault: Fault, run: Remediation) -> None:
        """Another fault on a machine that is under repair: the open run is about the machine already."""
        key = (run.metadata.name, fault.fault_class)
        if key in self._joined:
            return
        if len(self._joined) >= JOINED_MAX:
            self._joined.clear()
        self._joined.add(key)
        said = fault.evidence[0].text if fault.evidence else fault.fault_class
        _log.warning(
            "fault joined", run=key[0], node=fault.node, fault_class=fault.fault_class, evidence=said
        )
        self._tell(run, "FaultJoined", "Detect", f"{said}; the open run goes on", True)

    def no_longer_refused(self, machines: frozenset[str]) -> None:
        """Only these machines still wait."""
        for machine in [each for each in self._refused if each not in machines]:
            del self._refused[machine]

    def granted(self, case_node: str, run: Remediation, playbook: str) -> None:
        _log.warning(
            "run granted",
            run=run.metadata.name,
            node=case_node,
            playbook=playbook,
            fault_class=run.spec.fault_class,
            spare=getattr(run.spec.spare, "name", ""),
            plan=run.spec.plan_hash,
        )
        self._telemetry.count("remediator_decisions_total", {"decision": "act", "reason": "Granted"})

    def would_act(self, run: Remediation) -> None:
        _log.warning(
            "would act",
            run=run.metadata.name,
            node=run.spec.node.name,
            playbook=run.spec.playbook.name,
            fault_class=run.spec.fault_class,
            plan=list(run.spec.plan),
            plan_hash=run.spec.plan_hash,
        )
        self._telemetry.count("remediator_decisions_total", {"decision": "audit", "reason": "ModeAudit"})
        first = run.spec.evidence[0].text if run.spec.evidence else run.spec.fault_class
        plan = f"would run {run.spec.playbook.name}, plan {run.spec.plan_hash}"
        note = f"{first}; Audit: {plan}, recorded in {run.metadata.name}"
        self._tell(run, "WouldRemediate", "Audit", note, False)

    def stuck(self, run: Remediation, error: str) -> None:
        """A write or read that can't work until somebody changes something."""
        self._telemetry.count("remediator_step_failures_total", {"reason": "Permanent"})
        self._tell(run, "RunStuck", "Hold", error, True)

    def _step_ended(self, run: Remediation, step: StepStatus) -> None:
        self._telemetry.count(
            "remediator_steps_total", {"action": step.action, "outcome": step.state.lower()}
        )
        began, end = read_instant(step.started_at), read_instant(step.finished_at)
        if began is not None and end is not None:
            self._telemetry.observe(
                "remediator_step_duration_seconds", {"action": step.action}, (end - began).total_seconds()
            )
        seen = read_instant(run.spec.first_seen)
        if step.action in _TIMED and seen is not None and end is not None and step.state == "Done":
            self._telemetry.observe(_TIMED[step.action], {}, (end - seen).total_seconds())
        if step.action in _STEP_NEWS and step.state == "Done":
            event, action, warning = _STEP_NEWS[step.action]
            self._tell(run, event, action, step.note, warning)

    def _ended(self, run: Remediation, state: RunState) -> None:
        self._telemetry.count(
            "remediator_runs_total", {"playbook": run.spec.playbook.name, "outcome": state.value}
        )

    def _tell(self, run: Remediation, reason: str, action: str, note: str, warning: bool) -> None:
        self._events.tell(
            machine=run.spec.machine,
            node=run.spec.node.name,
            node_uid=run.spec.node.uid,
            reason=reason,
            action=action,
            note=f"{note} [{run.metadata.name}]",
            warning=warning,
            run=run.metadata.name,
        )


def _cause(status: RemediationStatus, state: RunState) -> str:
    """The reason code of a state that people have to tell apart by its cause; empty for any other."""
    if state is RunState.BLOCKED:
        return next((each.reason for each in status.conditions if each.type == "Blocked"), "")
    return status.reason if state in _CAUSED else ""
