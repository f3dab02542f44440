"""One view of everything: the caches, what we wrote but have not seen yet, and the indexes.

Changed by the caches' listeners and by the writers of our own records; it decides nothing. All of
it lives on one event loop: between two awaits nothing moves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from remediator.core.account import run_state
from remediator.core.census import Census
from remediator.core.identity import machine_name
from remediator.core.ledger import number_of, overlay
from remediator.core.lifecycle import ended
from remediator.core.validity import faults_of
from remediator.model.duration import seconds
from remediator.model.instant import read_instant, write_instant
from remediator.model.ledger import ManagedNode, ManagedNodeStatus
from remediator.model.playbook import Playbook, PlaybookInForce, PlaybookSpec
from remediator.model.policy import PolicySpec, PolicyStatus, RemediationPolicy
from remediator.model.pool import ResourcePool
from remediator.model.remediation import Remediation
from remediator.model.views import NodeView
from remediator.ports import Cache, Clock, PolicyObject

DELETED_MAX: Final = 1_024  # names of deleted runs that a late reply must not bring back


@dataclass(frozen=True, slots=True, kw_only=True)
class Caches:
    """The reflected kinds that the world is made of, each keyed by name."""

    nodes: Cache[NodeView]
    runs: Cache[Remediation]
    playbooks: Cache[Playbook]
    pools: Cache[ResourcePool]
    policies: Cache[PolicyObject]
    ledgers: Cache[ManagedNode]

    def missing(self) -> tuple[str, ...]:
        """Names of the kinds that were never read completely, or may not be read any more."""
        return tuple(kind for kind, synced in self.synced().items() if not synced)

    def ages(self) -> dict[str, float | None]:
        """For each kind the seconds since the server last proved it fresh."""
        return {
            "nodes": self.nodes.age_s(),
            "remediations": self.runs.age_s(),
            "playbooks": self.playbooks.age_s(),
            "resourcepools": self.pools.age_s(),
            "remediationpolicies": self.policies.age_s(),
            "managednodes": self.ledgers.age_s(),
        }

    def synced(self) -> dict[str, bool]:
        """For each kind whether what we hold is complete."""
        return {
            "nodes": self.nodes.synced,
            "remediations": self.runs.synced,
            "playbooks": self.playbooks.synced,
            "resourcepools": self.pools.synced,
            "remediationpolicies": self.policies.synced,
            "managednodes": self.ledgers.synced,
        }


@dataclass(slots=True)
class _Index:
    """What is derived from the caches and kept in step with them."""

    machines: dict[str, set[str]] = field(default_factory=dict)  # machine -> node names
    shared: set[str] = field(default_factory=set)  # machines that more than one Node claims to be
    machine_by_node: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)  # node uid -> name
    numbers: dict[str, int] = field(default_factory=dict)  # machine -> highest n ever
    open_runs: dict[str, Remediation] = field(default_factory=dict)
    ended_runs: dict[str, Remediation] = field(default_factory=dict)
    ended_by_machine: dict[str, set[str]] = field(default_factory=dict)


class World:
    """The caches with their indexes.

    ``on_node``, ``on_run`` and ``on_rules`` are called after a node, a run, or any object that
    changes how things are judged has changed.
    """

    def __init__(self, caches: Caches, *, clock: Clock) -> None:
        self.caches = caches
        self.census = Census()
        self.on_node: Callable[[str, NodeView | None, NodeView | None], None] = lambda *_: None
        self.on_run: Callable[[str], None] = lambda _: None
        self.on_rules: Callable[[], None] = lambda: None
        self._clock = clock
        self._index = _Index()
        self._written_runs: dict[str, Remediation] = {}
        self._deleted_runs: dict[str, None] = {}  # the newest ones, oldest first
        self._written_policy: PolicyObject | None = None
        self._playbooks: tuple[PlaybookInForce, ...] | None = None
        self._parsed: dict[str, PlaybookSpec] = {}
        self._vetoes: dict[str, tuple[str, str]] = {}  # machine -> until, who
        self.rulings = 0  # how often policy, pools or playbooks have changed, for whoever keeps what they say
        self.gate = ""  # key of the join gate in force, as the census counts by it
        caches.nodes.subscribe(self._node_changed)
        caches.runs.subscribe(self._run_changed)
        caches.pools.subscribe(lambda _, before, after: self._rules_changed(before, after))
        caches.policies.subscribe(lambda _, before, after: self._policy_changed(before, after))
        caches.playbooks.subscribe(lambda _, before, after: self._rules_changed(before, after))
        caches.ledgers.subscribe(self._ledger_changed)

    # -- nodes and machines

    def node(self, name: str) -> NodeView | None:
        return self.caches.nodes.get(name)

    @property
    def nodes(self) -> Mapping[str, NodeView]:
        return self.caches.nodes.views()

    @property
    def names(self) -> Mapping[str, str]:
        """Live Nodes' names by uid."""
        return self._index.names

    def machine(self, node: NodeView) -> str:
        """Name of the machine behind a node, as its objects carry it."""
        known = self._index.machine_by_node.get(node.name)
        return known if known is not None else machine_name(node, self.policy_spec.identity)

    def nodes_of(self, machine: str) -> tuple[NodeView, ...]:
        """The live Nodes that carry this machine's identity; more than one is a conflict."""
        names = sorted(self._index.machines.get(machine, ()))
        return tuple(node for node in map(self.node, names) if node is not None)

    def conflicted(self) -> frozenset[str]:
        """Nodes whose identity another live Node carries too."""
        machines = self._index.machines
        return frozenset(name for machine in self._index.shared for name in machines[machine])

    def spares(self) -> frozenset[str]:
        """Members of every Buffer pool."""
        return frozenset[str]().union(*(self.census.members(name) for name in self._buffers()))

    def is_spare(self, node: str) -> bool:
        """Is it one of ``spares``?"""
        return any(node in self.census.members(name) for name in self._buffers())

    def _buffers(self) -> list[str]:
        return [name for name, pool in self.pools.items() if pool.spec.role == "Buffer"]

    def strikes_of(self, node: str) -> int:
        """How many repairs the machine behind this node has had."""
        ledger = self.ledger(self._index.machine_by_node.get(node, ""))
        return len(ledger.status.strikes) if ledger is not None and ledger.status is not UNSET else 0

    # -- rules

    @property
    def policy(self) -> PolicyObject | None:
        """The newest policy that we know of, our own last write included."""
        seen = self.caches.policies.get("cluster")
        mine = self._written_policy
        if mine is None or seen is None:
            return seen
        newer = _version(mine.policy.metadata.resource_version) > _version(
            seen.policy.metadata.resource_version
        )
        return mine if newer else seen

    @property
    def policy_spec(self) -> PolicySpec:
        return self.policy.policy.spec if self.policy is not None else PolicySpec()

    @property
    def policy_status(self) -> PolicyStatus:
        if self.policy is None or self.policy.policy.status is UNSET:
            return PolicyStatus()
        return self.policy.policy.status

    @property
    def pools(self) -> Mapping[str, ResourcePool]:
        return self.caches.pools.views()

    @property
    def playbooks(self) -> tuple[PlaybookInForce, ...]:
        """The last good version of every playbook, by name."""
        if self._playbooks is None:
            views = self.caches.playbooks.views()
            found = (self.in_force(views[name]) for name in sorted(views))
            self._playbooks = tuple(each for each in found if each is not None)
        return self._playbooks

    def in_force(self, playbook: Playbook) -> PlaybookInForce | None:
        """This version when it can be followed, else the last good one that its status kept."""
        name = playbook.metadata.name
        if not faults_of(playbook.spec):
            text = msgspec.json.encode(playbook.spec).decode()
            return PlaybookInForce(
                name=name, generation=playbook.metadata.generation, spec=playbook.spec, text=text
            )
        if playbook.status is UNSET or not playbook.status.in_force:
            return None
        try:
            spec = self.parse(playbook.status.in_force)
        except msgspec.MsgspecError:
            return None  # written by a program that knew other fields: nothing to follow
        return PlaybookInForce(
            name=name,
            generation=playbook.status.in_force_generation,
            spec=spec,
            text=playbook.status.in_force,
        )

    def parse(self, text: str) -> PlaybookSpec:
        """The playbook that a run or a status carries as text; parsed once."""
        spec = self._parsed.get(text)
        if spec is None:
            if len(self._parsed) >= 512:
                self._parsed.clear()
            spec = self._parsed[text] = msgspec.json.decode(text, type=PlaybookSpec)
        return spec

    # -- runs and ledgers

    def run(self, name: str) -> Remediation | None:
        """The newest version that we know of, our own last write included."""
        seen = self.caches.runs.get(name)
        mine = self._written_runs.get(name)
        if mine is None:
            return seen
        if seen is None or _version(mine.metadata.resource_version) > _version(
            seen.metadata.resource_version
        ):
            return mine
        return seen

    @property
    def open_runs(self) -> Mapping[str, Remediation]:
        return self._index.open_runs

    @property
    def ended_runs(self) -> Mapping[str, Remediation]:
        return self._index.ended_runs

    def ended_of(self, machine: str) -> tuple[Remediation, ...]:
        """The machine's ended runs, oldest first."""
        names = self._index.ended_by_machine.get(machine, ())
        return tuple(self._index.ended_runs[name] for name in sorted(names, key=number_of))

    def wrote_run(self, run: Remediation) -> None:
        """Take the server's reply to our own write, until the watch shows it."""
        if run.metadata.name in self._deleted_runs:
            return  # the watch was faster than the reply; a name is never used again
        self._written_runs[run.metadata.name] = run
        self._file_run(run.metadata.name)

    def forget_run(self, name: str) -> None:
        """The server says that there is no such run, whatever we wrote."""
        self._written_runs.pop(name, None)
        self._file_run(name)

    def wrote_policy(self, policy: PolicyObject) -> None:
        self._written_policy = policy

    def seen_run(self, name: str) -> bool:
        """Has the watch shown this run, in any version?"""
        return self.caches.runs.get(name) is not None

    def next_number(self, machine: str) -> int:
        """The n for the machine's next run: above every n that we know of."""
        ledger = self.caches.ledgers.get(machine)
        stored = ledger.status.runs if ledger is not None and ledger.status is not UNSET else 0
        return max(stored, self._index.numbers.get(machine, 0)) + 1

    def ledger(self, machine: str) -> ManagedNode | None:
        return self.caches.ledgers.get(machine)

    def settled_ledgers(self) -> dict[str, ManagedNodeStatus]:
        """Every machine's ledger, with runs that ended since it was written."""
        stored = {
            name: each.status if each.status is not UNSET else ManagedNodeStatus()
            for name, each in self.caches.ledgers.views().items()
        }
        settled = overlay(stored, self._index.ended_runs.values(), self.policy_spec)
        for machine, (until, by) in self._vetoes.items():
            before = settled.get(machine, ManagedNodeStatus())
            settled[machine] = replace(before, veto_until=max(until, before.veto_until), veto_by=by)
        return settled

    def settled_ledger(self, machine: str) -> ManagedNodeStatus:
        """One machine's ledger, with runs that ended since it was written."""
        ledger = self.ledger(machine)
        stored = ledger.status if ledger is not None and ledger.status is not UNSET else ManagedNodeStatus()
        return overlay({machine: stored}, self.ended_of(machine), self.policy_spec)[machine]

    def veto(self, machine: str, by: str) -> None:
        """A person said no in a way that leaves no record but this: not again for the hold time."""
        hold = timedelta(seconds=seconds(self.policy_spec.hold_after_veto))
        until = write_instant((self._clock.now() + hold).replace(microsecond=0))
        self._vetoes[machine] = (until, by[:256])

    @property
    def vetoes(self) -> Mapping[str, tuple[str, str]]:
        """Until when, and by whom, of every machine that was vetoed in the life of this process."""
        return self._vetoes

    def veto_of(self, machine: str) -> tuple[str, str] | None:
        """Until when, and by whom; for the ledger, which keeps it over a restart."""
        return self._vetoes.get(machine)

    def adopted(self) -> frozenset[str]:
        """Nodes that a person declared known out, until a date that is not over."""
        now = self._clock.now()
        found: set[str] = set()
        for machine, ledger in self.caches.ledgers.views().items():
            if _known_out(ledger, now):
                found.update(self._index.machines.get(machine, ()))
        return frozenset(found)

    def is_adopted(self, node: str) -> bool:
        """Is this one of ``adopted``? Asked of a few nodes, it walks no other ledger."""
        ledger = self.ledger(self._index.machine_by_node.get(node, ""))
        return ledger is not None and _known_out(ledger, self._clock.now())

    # -- listeners

    def _node_changed(self, name: str, before: NodeView | None, after: NodeView | None) -> None:
        self.census.update(name, after)
        if before is not None:
            self._index.names.pop(before.uid, None)
        self._unfile_machine(name)
        if after is not None:
            self._index.names[after.uid] = name
            self._file_machine(after)
        self.on_node(name, before, after)

    def _file_machine(self, node: NodeView) -> None:
        machine = machine_name(node, self.policy_spec.identity)
        self._index.machine_by_node[node.name] = machine
        names = self._index.machines.setdefault(machine, set())
        names.add(node.name)
        if len(names) > 1:
            self._index.shared.add(machine)

    def _unfile_machine(self, name: str) -> None:
        machine = self._index.machine_by_node.pop(name, None)
        if machine is None:
            return
        names = self._index.machines[machine]
        names.discard(name)
        if len(names) < 2:
            self._index.shared.discard(machine)
        if not names:
            del self._index.machines[machine]

    def _run_changed(self, name: str, _before: Remediation | None, after: Remediation | None) -> None:
        if after is None:
            deleted = self._index.open_runs.get(name)
            if deleted is not None:
                self.veto(deleted.spec.machine, f"somebody deleted {name}")
            self._written_runs.pop(name, None)
            self._deleted_runs[name] = None
            if len(self._deleted_runs) > DELETED_MAX:
                del self._deleted_runs[next(iter(self._deleted_runs))]
        self._file_run(name)
        self.on_run(name)

    def _file_run(self, name: str) -> None:
        run = self.run(name)
        self._index.open_runs.pop(name, None)
        self._unfile_ended(name)
        if run is None:
            return
        mine = self._written_runs.get(name)
        if mine is not None and run is not mine:
            del self._written_runs[name]
        machine = run.spec.machine
        self._index.numbers[machine] = max(self._index.numbers.get(machine, 0), number_of(name))
        if ended(run_state(run)):
            self._index.ended_runs[name] = run
            self._index.ended_by_machine.setdefault(machine, set()).add(name)
        else:
            self._index.open_runs[name] = run

    def _unfile_ended(self, name: str) -> None:
        run = self._index.ended_runs.pop(name, None)
        if run is None:
            return
        names = self._index.ended_by_machine[run.spec.machine]
        names.discard(name)
        if not names:
            del self._index.ended_by_machine[run.spec.machine]

    def _ledger_changed(self, name: str, *_: object) -> None:
        for node in self._index.machines.get(name, ()):
            self.on_node(node, self.node(node), self.node(node))

    def _policy_changed(self, before: PolicyObject | None, after: PolicyObject | None) -> None:
        if self.policy is after:
            self._written_policy = None  # the watch has caught up; nobody need compare any more
        self._rules_changed(before.policy if before else None, after.policy if after else None)
        joins = self.policy_status.joins
        if joins is not UNSET and joins.gate != self.gate:
            self._count()

    def _rules_changed(self, before: _Ruling | None, after: _Ruling | None) -> None:
        if before is not None and after is not None and before.spec == after.spec:
            return  # a status write, most often our own
        self._playbooks = None
        self.rebuild()
        self.on_rules()

    def rebuild(self) -> None:
        """Count and file every node anew: pools, policy or identity rules have changed."""
        self.rulings += 1
        self._count()
        nodes = self.caches.nodes.views()
        self._index.machines.clear()
        self._index.shared.clear()
        self._index.machine_by_node.clear()
        for node in nodes.values():
            self._file_machine(node)

    def _count(self) -> None:
        joins = self.policy_status.joins
        self.gate = joins.gate if joins is not UNSET else ""
        nodes, taints = self.caches.nodes.views(), self.policy_spec.serving_taints
        self.census.rebuild(nodes.values(), self.pools.values(), taints, self.gate)


_Ruling = Playbook | ResourcePool | RemediationPolicy


def _known_out(ledger: ManagedNode, now: datetime) -> bool:
    adopt = ledger.spec.adopt
    try:
        until = read_instant(adopt.until) if adopt is not UNSET else None
    except ValueError:
        return False  # an end that nobody can read: the machine counts
    return until is not None and until > now


def _version(text: str) -> int:
    return int(text) if text.isdigit() else 0
