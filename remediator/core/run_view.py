"""Everything that one run pass looks at, read at one instant. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from msgspec import UNSET, Struct

from remediator.core.account import is_hard
from remediator.core.prior import Prior, parse_prior, read_prior
from remediator.core.spares import Fleetwide
from remediator.model.keys import ANNOTATION_RUN, TAINT_QUARANTINE
from remediator.model.playbook import PlaybookSpec, Step, action_name
from remediator.model.policy import Grant, PolicySpec
from remediator.model.pool import ResourcePool
from remediator.model.remediation import Remediation, RemediationStatus, StepStatus
from remediator.model.signal import PageReading
from remediator.model.views import EventView, JobView, NodeView, PdbView, PodView


class RunView(Struct, frozen=True, kw_only=True):
    """One open run and the part of the world that it may touch.

    ``node`` is None when no live Node has that name and uid. ``pods`` is None until known;
    ``pods_confirmed`` is True when they come from a consistent LIST begun after our taint was
    seen. ``refused_evictions`` maps pods to why the server refused them lately. ``signals`` are
    the node's true fault signals, one line each; ``signals_unknown`` says what we can't see of
    it; ``fault_over`` that the fault which began the run is known to have ended. ``home`` is the pool at
    the grant, ``spare_home`` the spare's pool now, ``buffer`` the pool that a repaired node goes to.
    ``repairs_before`` counts repairs under way that came first.
    ``hard_fault`` is a hard fault of this machine that is acted on, as one line.
    ``tolerant_classes`` are PriorityClasses of its pods that tolerate preemption only for a while.
    ``busy_gangs`` have pods on other nodes under a soft run. ``events`` are the node's;
    ``evictions`` counts those that were accepted since this process looks after the run.
    """

    now: datetime
    run: Remediation
    playbook: PlaybookSpec
    policy: PolicySpec
    fleetwide: Fleetwide
    node: NodeView | None
    grant: Grant | None = None
    spare: NodeView | None = None
    home: ResourcePool | None = None
    spare_home: ResourcePool | None = None
    buffer: ResourcePool | None = None
    repair_pool: ResourcePool | None = None
    pods: tuple[PodView, ...] | None = None
    pods_confirmed: bool = False
    pdbs: tuple[PdbView, ...] = ()
    tolerant_classes: frozenset[str] = frozenset()
    refused_evictions: Mapping[str, str] = {}
    job: JobView | None = None
    job_known: bool = False
    reading: PageReading | None = None
    signals: tuple[str, ...] = ()
    signals_unknown: str = ""
    hard_fault: str = ""
    fault_over: bool = False
    repairs_before: int = 0
    busy_gangs: frozenset[str] = frozenset()
    strikes: int = 0
    hold: str = ""
    paused: str = ""
    events: tuple[EventView, ...] | None = None
    evictions: int = 0

    @property
    def status(self) -> RemediationStatus:
        return RemediationStatus() if self.run.status is UNSET else self.run.status

    @property
    def hard(self) -> bool:
        """Has the machine's work been lost already, by the fault that began this or by one that joined?"""
        return is_hard(self.run)

    @property
    def name(self) -> str:
        return self.run.metadata.name

    def mark(self, step: str) -> str:
        return f"{self.name}/{step}"

    @property
    def marked(self) -> bool:
        """Does the node carry a mark of this run?"""
        if self.node is None:
            return False
        return self.node.annotations.get(ANNOTATION_RUN, "").split("/", 1)[0] == self.name

    @property
    def quarantined(self) -> bool:
        return self.node is not None and self.node.taint(TAINT_QUARANTINE) is not None

    @property
    def prior(self) -> Prior:
        """What to restore: the node's own annotation first, then the record's copy."""
        found = read_prior(self.node) if self.node is not None else None
        return found or parse_prior(self.status.prior) or Prior()

    def step(self) -> tuple[Step, StepStatus | None] | None:
        """The step to carry out now, with its status when its intent is stored; None at the end."""
        steps = self.playbook.steps
        done = {each.id: each for each in self.status.steps}
        for step in steps:
            found = done.get(step.id)
            if found is None or found.state == "Intent":
                return step, found
        return None

    def did(self, action: str) -> StepStatus | None:
        """The finished step of this action, or None when it was not done or was skipped."""
        return next(
            (each for each in self.status.steps if each.action == action and each.state == "Done"), None
        )

    def follows(self, action: str) -> bool:
        """Is there a step of this action in the playbook?"""
        return any(action_name(step) == action for step in self.playbook.steps)
