"""What is known of the nodes that wait at the join gate: an index kept in step, and one look at their pods.

It decides nothing and writes nothing; ``Joins`` acts on it and the fleet pass reads it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from msgspec import UNSET, Struct

from remediator.core.joins.daemons import lacking
from remediator.core.joins.decide import SETTLES_MAX, JoinsView, Newcomer, rank_of, settles
from remediator.core.joins.gate import Gate, gate_of, is_gated, read_mark, waits_s
from remediator.core.joins.limiter import Standing
from remediator.core.joins.preflight import PREFLIGHT, Facts, Verdict, preflight, worth_a_look
from remediator.core.joins.validity import faults_of_joins
from remediator.core.people import paused
from remediator.core.request import FleetView
from remediator.core.summary import machines_away
from remediator.model.duration import seconds
from remediator.model.instant import read_instant
from remediator.model.joins import JoinsSpec, JoinsStatus
from remediator.model.pool import ResourcePool
from remediator.model.views import NodeView
from remediator.ports import Clock, Reader
from remediator.runtime.diagnosis import Diagnoses
from remediator.runtime.together import spread
from remediator.runtime.world import World

LOOKS_AT_ONCE: Final = 8
LOOKS_MAX: Final = 64  # listings of pods in one turn
LOOK_AGAIN_S: Final = 10.0
SLICE: Final = 128  # nodes that are judged before the loop gets its turn


class _Ruling(Struct, frozen=True):
    """What policy and pools say of joins."""

    spec: JoinsSpec | None
    faults: tuple[str, ...]
    enforced: bool


class Newcomers:
    """The nodes whose gate is shut, or should be, and those that were let in a short while ago."""

    def __init__(self, *, world: World, diagnoses: Diagnoses, reader: Reader, clock: Clock) -> None:
        self._world = world
        self._diagnoses = diagnoses
        self._reader = reader
        self._clock = clock
        self._ruled: tuple[int, _Ruling] = (-1, _Ruling(None, (), enforced=False))
        self._watched: set[str] = set()
        self._gated: set[str] = set()
        self._rules: tuple[str, str] = ("", "")
        self._judged: dict[str, tuple[NodeView, Verdict]] = {}  # by uid, as of the last look
        self._looks: dict[str, tuple[float, str]] = {}  # uid -> when its pods were listed, what lacks
        self.audited: dict[str, None] = {}  # uids that Audit would have let in by now
        self.brake: Callable[[], float] = lambda: 1.0

    # -- what is in force

    @property
    def spec(self) -> JoinsSpec | None:
        """How the policy lets nodes in; None: not at all, or in a way that can't be followed."""
        return self._ruling.spec

    @property
    def faults(self) -> tuple[str, ...]:
        """Why the limits can't be followed, each with the fix."""
        return self._ruling.faults

    @property
    def enforced(self) -> bool:
        return self._ruling.enforced

    @property
    def _ruling(self) -> _Ruling:
        """Asked of every node at every look; policy and pools change a few times a day."""
        if self._ruled[0] != self._world.rulings:
            self._ruled = (self._world.rulings, self._rule())
        return self._ruled[1]

    def _rule(self) -> _Ruling:
        world, spec = self._world, self._world.policy_spec.joins
        faults = () if spec is UNSET else faults_of_joins(spec, world.pools)
        if world.policy is None or spec is UNSET or spec.mode == "Disabled" or faults:
            return _Ruling(None, faults, enforced=False)
        return _Ruling(spec, faults, enforced=spec.mode == world.policy_spec.max_mode == "Enforce")

    @property
    def status(self) -> JoinsStatus:
        found = self._world.policy_status.joins
        return found if found is not UNSET else JoinsStatus()

    # -- the index

    def __bool__(self) -> bool:
        return bool(self._watched)

    def node_changed(self, name: str, after: NodeView | None) -> bool:
        """Keep the index in step; no look walks the whole fleet. True: the node is of interest."""
        self._gated.discard(name)
        self._watched.discard(name)
        if after is None:
            return False
        if is_gated(after, self._rules[0]):
            self._gated.add(name)
        if not self._of_interest(after):
            return False
        self._watched.add(name)
        return True

    def _of_interest(self, node: NodeView) -> bool:
        """Does it wait, should it, or was it let in so short a while ago that it may still settle?"""
        gate, since = self._rules
        if is_gated(node, gate):
            return True
        mark, now = read_mark(node), self._clock.now()
        if mark is not None:
            return mark.at is not None and now - mark.at <= SETTLES_MAX
        began, created = read_instant(since), read_instant(node.created_at)
        if began is None or created is None or created < began:
            return False
        return self.enforced or self._audits(node)

    def _audits(self, node: NodeView) -> bool:
        """A restart forgets whom Audit let in: what is old by then is not asked about again."""
        spec = self.spec
        most_s = seconds(spec.deadline) if spec is not None else 0
        return node.uid not in self.audited and waits_s(node, self._clock.now()) <= most_s

    def reindex(self) -> None:
        """File every node anew where the gate in force is another one than before."""
        rules = (self.status.gate, self.status.since)
        if rules == self._rules:
            return
        self._rules = rules
        for name, node in self._world.nodes.items():
            self.node_changed(name, node)

    def standing(self) -> list[tuple[NodeView, Gate]]:
        """Every node of interest with its gate, in the order of their names; time has made others none."""
        gate, since = self.status.gate, read_instant(self.status.since)
        found = []
        for name in sorted(self._watched):
            node = self._world.node(name)
            if node is None or since is None:
                continue
            if not self._of_interest(node):
                self._watched.discard(name)
                continue
            found.append((node, gate_of(node, gate, since, self._clock.now())))
        return found

    def waiting(self) -> list[NodeView]:
        """Nodes whose gate is shut; in Audit those that would be behind it by now."""
        if self.enforced:
            return [node for node, gate in self.standing() if gate is Gate.SHUT]
        shut = [node for node, gate in self.standing() if gate in (Gate.SHUT, Gate.ABSENT)]
        return [node for node in shut if self._audits(node)]

    # -- what is known of each

    async def look_at_pods(self) -> None:
        """List the pods of those for whom nothing else is missing; a few at a time.

        Raises:
            TransientError, PermanentError: a listing failed; the others are done.
        """
        now = self._clock.monotonic()
        due = []
        facts = self._facts_of(self.waiting())
        for each in facts:
            looked = self._looks.get(each.node.uid)
            if worth_a_look(each) and (looked is None or now - looked[0] >= LOOK_AGAIN_S):
                due.append((looked[0] if looked is not None else 0.0, each.node))
        due.sort(key=lambda pair: (pair[0], pair[1].created_at, pair[1].name))
        alive = {each.node.uid for each in facts}
        self._looks = {uid: found for uid, found in self._looks.items() if uid in alive}
        await spread(self._look, [node for _, node in due[:LOOKS_MAX]], at_once=LOOKS_AT_ONCE)

    async def _look(self, node: NodeView) -> None:
        listing = await self._reader.pods_of(node.name)
        spec = self.spec
        wanted = set(spec.daemon_sets) if spec is not None else set()
        pool = self._pool(node)
        if pool is not None and pool.spec.joins is not UNSET:
            wanted |= set(pool.spec.joins.daemon_sets)
        self._looks[node.uid] = (self._clock.monotonic(), lacking(listing.pods, wanted))

    async def judge(self) -> list[tuple[NodeView, Verdict]]:
        """Judge every node that waits by what is known now; in slices, since a storm may be thousands."""
        found: dict[str, tuple[NodeView, Verdict]] = {}
        waiting = self.waiting()
        for begin in range(0, len(waiting), SLICE):
            spec = self.spec
            if spec is None:
                break
            now = self._clock.now()
            for each in self._facts_of(waiting[begin : begin + SLICE]):
                found[each.node.uid] = (each.node, preflight(each, spec, now))
            await self._clock.sleep(0)
        self._judged = found
        return list(found.values())

    def _verdicts(self) -> list[tuple[NodeView, Verdict]]:
        """As they were judged last; whoever has changed since is judged anew."""
        spec, now = self.spec, self._clock.now()
        if spec is None:
            return []
        found, changed = [], []
        for node in self.waiting():
            known = self._judged.get(node.uid)
            if known is not None and known[0] is node:
                found.append(known)
            else:
                changed.append(node)
        return [*found, *((each.node, preflight(each, spec, now)) for each in self._facts_of(changed))]

    def _facts_of(self, nodes: Sequence[NodeView]) -> list[Facts]:
        faults = self._faults()
        for run in self._world.open_runs.values():
            faults[run.spec.machine] = f"{run.metadata.name} is under way on this machine"
        conflicted = self._world.conflicted()
        alike: dict[str, NodeView | None] = {}
        found = []
        for node in nodes:
            pool = self._pool(node)
            name = pool.metadata.name if pool is not None else ""
            if name not in alike:
                alike[name] = self._member(name)
            machine = self._world.machine(node)
            looked = self._looks.get(node.uid)
            found.append(
                Facts(
                    node=node,
                    pool=pool,
                    fault=faults.get(machine, "") or self._kept_out(machine),
                    conflicted=node.name in conflicted,
                    page=self._page(node),
                    daemons=looked[1] if looked is not None else None,
                    alike=alike[name],
                )
            )
        return found

    def _faults(self) -> dict[str, str]:
        """Confirmed faults by machine, in one line each.

        Not those that a playbook finds in our own condition: the proof must not fail because it failed.
        """
        own = {
            (playbook.name, matcher.id)
            for playbook in self._world.playbooks
            for matcher in playbook.spec.match.any_of
            if matcher.node_condition is not UNSET and matcher.node_condition.type == PREFLIGHT
        }
        return {
            fault.machine: f"{fault.fault_class} by playbook {fault.playbook}"
            for fault in self._diagnoses.faults()
            if (fault.playbook, fault.matcher) not in own
        }

    def _kept_out(self, machine: str) -> str:
        out = self._world.settled_ledger(machine).out if self._world.ledger(machine) is not None else UNSET
        return f"{out.run} keeps this machine out" if out is not UNSET else ""

    def _page(self, node: NodeView) -> str | None:
        if not self._diagnoses.expects_page(node.name):
            return None
        trouble = self._diagnoses.page_trouble(node.name)
        return None if trouble is None else trouble.text

    def _pool(self, node: NodeView) -> ResourcePool | None:
        return self._world.caches.pools.get(self._world.census.home(node.name) or "")

    def _member(self, pool: str) -> NodeView | None:
        """A member that serves, to compare hardware with; the first by name, so mostly the same one."""
        census = self._world.census
        serving = census.members(pool) - census.out(pool).keys()
        return self._world.node(min(serving)) if serving else None

    # -- for the fleet pass

    def view(self, fleet: FleetView) -> JoinsView | None:
        """What the decision is made from; None: nobody is let in by us."""
        spec = self.spec
        if spec is None:
            return None
        away = machines_away(fleet.ledgers, fleet.runs.values())
        newcomers = []
        for node, verdict in self._verdicts():
            pool = self._pool(node)
            name = pool.metadata.name if pool is not None else ""
            missing = away[name] + len(fleet.census.out(name)) if pool is not None else 0
            newcomers.append(Newcomer(node, name, rank_of(pool, missing), verdict))
        return JoinsView(
            now=fleet.now,
            term=fleet.term,
            mode="Enforce" if self.enforced else "Audit",
            spec=spec,
            pools={name: pool.spec for name, pool in fleet.pools.items()},
            status=self.status,
            newcomers=tuple(newcomers),
            gated=frozenset(self._gated),
            names=fleet.names,
            nodes=fleet.nodes,
            standing=Standing(
                now=fleet.now,
                settling=self._settling(fleet),
                inside=len(fleet.nodes) - len(self._gated),
                brake=self.brake(),
                closed=self._closed(fleet),
            ),
        )

    def _settling(self, fleet: FleetView) -> Mapping[str, int]:
        found: Counter[str] = Counter()
        for name in self._watched:
            node = fleet.nodes.get(name)
            if node is not None and read_mark(node) is not None:
                pool = self._pool(node)
                if settles(node, pool, fleet.policy.serving_taints, fleet.now):
                    found[pool.metadata.name if pool is not None else ""] += 1
        return found

    def _closed(self, fleet: FleetView) -> Mapping[str, str]:
        """Pools, and all of them under the empty name, for which nobody is let in, and why."""
        found = {}
        everywhere = fleet.blind or paused(fleet.policy.pause, "policy", fleet.now)
        if everywhere:
            found[""] = everywhere
        for name, pool in fleet.pools.items():
            why = paused(pool.spec.pause, f"pool {name}", fleet.now)
            if why:
                found[name] = why
        return found
