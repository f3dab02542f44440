"""Lets new nodes in: shuts the gate where it is missing, proves each node, opens the gate once it is paid.

The proof and the patches are made here; who may go in now is decided with the fleet's grants, and
recorded by the same write. Only the leader does any of it, and in Audit nothing is written to a Node.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from remediator.core import patches
from remediator.core.joins.decide import JoinsDecision, JoinsView, Place, decide_joins
from remediator.core.joins.gate import Gate, waits_s, write_mark
from remediator.core.joins.preflight import PREFLIGHT, Verdict
from remediator.core.pauses import doubled
from remediator.core.request import FleetView
from remediator.errors import PermanentError, TransientError
from remediator.model.action import Attribution, PatchNode, SetCondition
from remediator.model.duration import spoken
from remediator.model.joins import Release
from remediator.model.views import NodeView
from remediator.ports import Clock, Outcome, Proofs, Telemetry, Writer, Written
from remediator.runtime.events import Events
from remediator.runtime.newcomers import Newcomers
from remediator.runtime.replies import resource_version
from remediator.runtime.together import news_or, spread
from remediator.runtime.world import World

BUSY_S: Final = 1.0
IDLE_S: Final = 10.0
GAP_S: Final = 0.02  # news of many nodes make one look
AFTER_ERRORS_MOST_S: Final = 30.0
AT_ONCE: Final = 8  # writes in flight
NOT_YET_S: Final = 30.0  # what a node that starts lacks for a shorter time is not worth a write
SEEN_WITHIN_S: Final = 2.0
REMEMBERED_MAX: Final = 10_000
_EXPECTED: Final = (TransientError, PermanentError)

_log = structlog.get_logger(__name__)


class Joins:
    """The join gates of all nodes."""

    def __init__(
        self,
        *,
        world: World,
        newcomers: Newcomers,
        writer: Writer,
        proofs: Proofs,
        events: Events,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self._world = world
        self._newcomers = newcomers
        self._writer = writer
        self._proofs = proofs
        self._events = events
        self._clock = clock
        self._telemetry = telemetry
        self._wake = asyncio.Event()
        self._told: dict[str, tuple[str, str]] = {}  # uid -> the last verdict that was told
        self._trouble = ""  # why the last look failed, told once
        self._failures = 0  # looks in a row that failed
        self.queue: tuple[Place, ...] = ()
        self.on_proof: Callable[[], None] = lambda: None
        self.blind: Callable[[], str] = lambda: ""
        self.term = 0

    def node_changed(self, name: str, after: NodeView | None) -> None:
        """Take in the newest view of one node."""
        if self._newcomers.node_changed(name, after):
            self._wake.set()

    # -- with the fleet pass

    def decide(self, fleet: FleetView) -> JoinsDecision | None:
        """Who may go in now; None where nobody is let in by us. To be recorded before anything is done."""
        view: JoinsView | None = self._newcomers.view(fleet)
        if view is None:
            self.queue = ()
            return None
        decision = decide_joins(view)
        self.queue = decision.queue
        return decision

    def recorded(self, decision: JoinsDecision) -> None:
        """The books of this decision stand: what they have paid may be done."""
        if self._newcomers.enforced:
            if decision.released:
                self._wake.set()
            return
        for release in decision.released:
            self._would_let_in(release)

    def _would_let_in(self, release: Release) -> None:
        node = self._world.node(release.node)
        self._newcomers.audited[release.uid] = None
        while len(self._newcomers.audited) > REMEMBERED_MAX:
            del self._newcomers.audited[next(iter(self._newcomers.audited))]
        if node is None:
            return
        waited = spoken(waits_s(node, self._clock.now()))
        _log.info("would let in", node=node.name, waited=waited)
        self._telemetry.count("remediator_joins_total", {"outcome": "would_let_in"})
        self._tell(node, "WouldLetIn", f"Audit: would be let in now, {waited} after its creation")

    # -- the loop

    async def run(self) -> None:
        """Look until cancelled: at every node that waits, and at what is paid."""
        while True:
            self._wake.clear()
            await self._clock.sleep(await self._turn())
            await news_or(self._wake, BUSY_S if self._newcomers else IDLE_S, self._clock)

    async def _turn(self) -> float:
        """One look. Returns the seconds before which there is no other one, whatever the news."""
        try:
            await self.once()
        except _EXPECTED as error:
            if str(error) != self._trouble:
                _log.warning("new nodes can't be let in", error=str(error))
            self._trouble, self._failures = str(error), self._failures + 1
            return doubled(BUSY_S, self._failures - 1, AFTER_ERRORS_MOST_S)
        if self._failures:
            _log.info("new nodes are let in again", failed=self._failures)
        self._trouble, self._failures = "", 0
        return GAP_S

    async def once(self) -> None:
        """One look: gates that are missing, proofs, and gates that may open.

        Raises:
            TransientError, PermanentError: a look or a write failed; all others are done.
        """
        found = self._newcomers
        found.reindex()
        if found.spec is None or self._world.caches.missing() or not found or self.blind():
            return
        await found.look_at_pods()
        verdicts = await found.judge()
        for node, verdict in verdicts:
            self._news(node, verdict)
        if found.enforced:
            await self._enforce(verdicts)
        self.on_proof()

    async def _enforce(self, verdicts: list[tuple[NodeView, Verdict]]) -> None:
        absent = [node for node, gate in self._newcomers.standing() if gate is Gate.ABSENT]
        await spread(self._shut, absent, at_once=AT_ONCE)
        news = [pair for pair in verdicts if self._worth_writing(*pair)]
        await spread(self._prove, news, at_once=AT_ONCE)
        paid = {release.uid for release in self._newcomers.status.releasing}
        fit = [node for node, verdict in verdicts if node.uid in paid and verdict.status == "True"]
        await spread(self._open, fit, at_once=AT_ONCE)

    # -- writes

    async def _shut(self, node: NodeView) -> None:
        """The gate was missing when the node registered: whatever was scheduled since stays there."""
        exposed = spoken(waits_s(node, self._clock.now()))
        key = self._newcomers.status.gate
        action, written = await self._patch(node, patches.shut_gate(node, key), "shut")
        await self._seen(action, written)
        if written.outcome is Outcome.APPLIED:
            _log.warning("join gate was missing", node=node.name, exposed=exposed, gate=key)
            self._telemetry.count("remediator_joins_total", {"outcome": "gate_missing"})
            note = f"registered without the taint {key}; open to pods for {exposed}: let the kubelet set it"
            self._tell(node, "JoinGateMissing", note, warning=True)

    async def _prove(self, pair: tuple[NodeView, Verdict]) -> None:
        node, verdict = pair
        before = node.condition(PREFLIGHT)
        action = SetCondition(
            name=node.name,
            resource_version=node.resource_version,
            type=PREFLIGHT,
            status=verdict.status,
            reason=verdict.reason,
            message=verdict.message[:1_024],
            at=self._clock.now(),
            turned=before is None or before.status != verdict.status,
        )
        sent = self._proofs.prove(action, Attribution(term=self.term, step="join-prove"))
        await self._seen(action, await self._timed(action, sent))

    async def _open(self, node: NodeView) -> None:
        mark = write_mark(node.uid, self._clock.now())
        action, written = await self._patch(
            node, patches.open_gate(node, self._newcomers.status.gate, mark), "open"
        )
        await self._seen(action, written)
        if written.outcome is not Outcome.APPLIED:
            return
        waited_s = waits_s(node, self._clock.now())
        _log.info("let in", node=node.name, waited=spoken(waited_s))
        self._telemetry.count("remediator_joins_total", {"outcome": "let_in"})
        self._telemetry.observe("remediator_join_wait_seconds", {}, waited_s)
        self._tell(node, "LetIn", f"preflight passed; let in {spoken(waited_s)} after its creation")

    async def _patch(self, node: NodeView, patch: patches.Patch, step: str) -> tuple[PatchNode, Written]:
        action = PatchNode(name=node.name, uid=node.uid, resource_version=node.resource_version, patch=patch)
        sent = self._writer.apply(action, Attribution(term=self.term, step=f"join-{step}"))
        return action, await self._timed(action, sent)

    async def _timed(self, action: PatchNode | SetCondition, sent: Awaitable[Written]) -> Written:
        began = self._clock.monotonic()
        written = await sent
        kind = type(action).__name__
        labels = {"action": kind, "outcome": written.outcome.value, "refusal": written.refusal.value}
        self._telemetry.count("remediator_writes_total", labels)
        self._telemetry.observe("remediator_write_seconds", {"action": kind}, self._clock.monotonic() - began)
        return written

    async def _seen(self, action: PatchNode | SetCondition, written: Written) -> None:
        """Wait until the cache shows our write: the next look must not be made at the past."""
        if written.outcome is Outcome.APPLIED:
            version = resource_version(written.body)
            if version:
                await self._world.caches.nodes.wait_for(version, SEEN_WITHIN_S)
        elif written.message:
            _log.info("join write not confirmed", node=action.name, error=written.message)

    def _worth_writing(self, node: NodeView, verdict: Verdict) -> bool:
        before = node.condition(PREFLIGHT)
        if before is None:
            return verdict.status != "Unknown" or waits_s(node, self._clock.now()) > NOT_YET_S
        return (before.status, before.reason) != (verdict.status, verdict.reason)

    # -- news

    def _news(self, node: NodeView, verdict: Verdict) -> None:
        """Tell once what is wrong for good."""
        said = (verdict.status, verdict.reason)
        if self._told.get(node.uid) == said:
            return
        self._told[node.uid] = said
        while len(self._told) > REMEMBERED_MAX:
            del self._told[next(iter(self._told))]
        _log.info("preflight", node=node.name, status=verdict.status, reason=verdict.reason)
        if verdict.status == "False":
            self._telemetry.count("remediator_joins_total", {"outcome": "unfit"})
            note = f"{verdict.reason}: {verdict.message}; the join gate stays shut"
            self._tell(node, "PreflightFailed", note, warning=True)

    def _tell(self, node: NodeView, reason: str, note: str, *, warning: bool = False) -> None:
        self._events.tell(
            machine=self._world.machine(node),
            node=node.name,
            node_uid=node.uid,
            reason=reason,
            action="Join",
            note=note,
            warning=warning,
        )

    @property
    def rate_share(self) -> float:
        """The share of each rate that the brake leaves now."""
        return self._newcomers.brake()

    def oldest_wait_s(self) -> float:
        """Age of the oldest node at the gate; zero where nobody waits."""
        now = self._clock.now()
        return max((waits_s(place.newcomer.node, now) for place in self.queue), default=0.0)

    def counted(self) -> Counter[str]:
        """How many nodes wait, by why."""
        return Counter(place.stop.reason for place in self.queue if place.stop is not None)
