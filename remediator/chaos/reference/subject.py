"""The reference controller as a subject, with the bugs that are switched on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache, partial
from importlib.resources import files
from typing import Any, Final

from msgspec.structs import replace
from ruamel.yaml import YAML

from remediator.app.lifeline import Life, Lifeline, Machine, Wrap, as_it_is
from remediator.chaos.draw import AROUND, Words
from remediator.chaos.profile import load_profile
from remediator.chaos.reference.api import REPAIR, REPAIRS
from remediator.chaos.reference.bugs import Bug
from remediator.chaos.reference.controller import MOST, Controller
from remediator.chaos.reference.repair import state_of
from remediator.chaos.subject import Candidate, Process, Subject
from remediator.fleet.node_objects import NodeSpec
from remediator.sim.audit import Sink
from remediator.sim.loop import VirtualClock
from remediator.sim.request import User
from remediator.sim.transport import SimTransport
from remediator.sim.world.cluster import Cluster

WORDS: Final = Words(
    breaks=("Condition",) * 14 + ("Silent",) * 2,
    others=AROUND,
    conditions=("KernelDeadlock=True",) * 4 + ("KernelDeadlock=False", "KernelDeadlock=Unknown"),
    resources=("repairs", "books"),
    events=(8, 20),
    faults=(3, 9),
    calm_s=2_400.0,
)


@cache
def _objects() -> tuple[dict[str, Any], ...]:
    text = (files("remediator.chaos.reference") / "kinds.yaml").read_text(encoding="utf-8")
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "reference"}}
    return (namespace, *YAML(typ="safe", pure=True).load_all(text))


class _Process(Life):
    def __init__(self, controller: Controller, lifeline: Lifeline, machine: Machine) -> None:
        super().__init__(controller.run(), lifeline, machine)
        self._controller = controller

    @property
    def leading(self) -> bool:
        return self.alive and self._controller.leading

    def terminate(self) -> None:
        self._controller.stop()


class Reference(Subject):
    """See ``Open`` for the arguments; ``bugs`` are switched on, and ``most`` nodes may be fenced at once."""

    def __init__(
        self, clock: VirtualClock, *, seed: int, specs: Iterable[NodeSpec], audit: Sink,
        bugs: frozenset[Bug] = frozenset(), most: int = MOST,
    ) -> None:  # fmt: skip
        self._clock = clock
        self._seed = seed
        self._bugs = bugs
        self._most = most
        self._user = User(load_profile("reference").user, ("system:serviceaccounts", "system:authenticated"))
        self.cluster = Cluster(clock, seed=seed, specs=specs, repair_label=REPAIR, audit=audit)
        self.cluster.apply(list(_objects()))
        self.cluster.machines.register()
        self.processes: list[Process] = []

    async def start(self, wrap: Wrap = as_it_is) -> Process:
        number, machine = len(self.processes), Machine(self._clock)
        way = SimTransport(
            self.cluster.server, self._user, clock=self._clock, seed=self._seed * 1_000 + number + 1
        )
        lifeline = Lifeline(wrap(way), machine)
        controller = Controller(lifeline, machine, name=f"replica-{number}", bugs=self._bugs, most=self._most)
        process = _Process(controller, lifeline, machine)
        self.processes.append(process)
        return process

    def work(self) -> Iterator[str]:
        found = self.cluster.get(REPAIRS) or {"items": []}
        for repair in found["items"]:
            yield f"work {repair['spec']['node']}: {state_of(repair)}"


def reference(*bugs: Bug, raised: int = 0) -> Candidate:
    """The reference controller with these bugs and limits raised by so many; without bugs it is right."""
    profile = load_profile("reference")
    budgets = tuple(replace(each, most=each.most + raised) for each in profile.budgets)
    subject = partial(Reference, bugs=frozenset(bugs), most=MOST + raised)
    return Candidate(replace(profile, budgets=budgets), subject, WORDS)
