"""New nodes on the simulator: a storm of them, judged by the audit log alone, and what may go wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from remediator.adapters.audit import AuditRecord, Numbered
from remediator.app.simulation import Replica, Simulation, enforcing, shipped_objects
from remediator.chaos.check import Judge, Report
from remediator.chaos.ours import shipped_profile
from remediator.chaos.profile import Joins
from remediator.core.joins.preflight import PREFLIGHT
from remediator.fleet.layout import TRAIN, build_fleet
from remediator.fleet.node_objects import NodeSpec
from remediator.fleet.workloads import Workload, workload_objects
from remediator.model.joins import GATE_KEY
from remediator.model.keys import ANNOTATION_JOINED
from remediator.sim.loop import run_virtual, virtual_clock
from remediator.testbed.stage import USER

BURST = 5
RATE = {"count": 20, "per": "1m", "burst": BURST}
LIMIT = Joins(gate=GATE_KEY, count=20, seconds=60.0, burst=BURST, proof=PREFLIGHT)
RULES = ("S5", "S12", "S18", "S19", "S19b", "S22", "L9")

pytestmark = pytest.mark.timeout(240)

Story = Callable[["Storm"], Coroutine[Any, Any, None]]


class Storm:
    """A small cluster into which new nodes come, two replicas, and every audit record."""

    def __init__(self, *, mode: str = "Enforce", gated: bool = True, racks: int = 8) -> None:
        self.records: list[AuditRecord] = []
        self.opened: list[datetime] = []
        self.clock = virtual_clock()
        profile = shipped_profile()
        assert profile.own is not None
        own = replace(profile.own, keys=(*profile.own.keys, GATE_KEY))
        self.judge = Judge(replace(profile, own=own, joins=LIMIT), calm=True)
        self._decoder = msgspec.json.Decoder(AuditRecord)
        here = build_fleet(2, 8)
        names = {spec.name for spec in here}
        whole = [spec for spec in build_fleet(racks, 8) if spec.pool == TRAIN and spec.name not in names]
        self.new = [dataclasses.replace(spec, gate=GATE_KEY if gated else "") for spec in whole]
        joins = {"mode": mode, "rate": RATE}
        objects = [with_joins(each, joins) for each in enforcing(shipped_objects())]
        self.simulation = Simulation(self.clock, seed=3, specs=here, objects=objects, audit=self._record)
        self.cluster = self.simulation.cluster
        self.machines = self.cluster.machines
        # More than the old nodes have room for: every new one is wanted as soon as it is open.
        self.cluster.apply(workload_objects(Workload(trainers=60, gang=4)))

    def _record(self, line: bytes) -> None:
        record = self._decoder.decode(line)
        self.records.append(record)
        if record.committed and ANNOTATION_JOINED.encode() in bytes(record.request_object):
            self.opened.append(record.staged_at)
        self.judge.see(Numbered(len(self.records), record))

    async def begin(self, replicas: int = 1) -> list[Replica]:
        started = [await self.simulation.start() for _ in range(replicas)]
        await self.clock.sleep(60)
        return started

    def come(self, specs: Sequence[NodeSpec] | None = None) -> None:
        """All of them register at once."""
        for spec in self.new if specs is None else specs:
            self.machines.add(spec)

    def node(self, name: str) -> dict[str, Any]:
        found = self.cluster.get(f"/api/v1/nodes/{name}")
        assert found is not None
        return found

    def is_in(self, name: str) -> bool:
        node = self.node(name)
        gated = any(each["key"] == GATE_KEY for each in node["spec"].get("taints", ()))
        return not gated and ANNOTATION_JOINED in node["metadata"]["annotations"]

    def inside(self) -> list[str]:
        there = {spec.name for spec in self.new if self.cluster.get(f"/api/v1/nodes/{spec.name}")}
        return sorted(name for name in there if self.is_in(name))

    async def until_all_are_in(self, within_s: float = 600.0) -> None:
        await self.simulation.wait_for(
            "all to be in", lambda: len(self.inside()) == len(self.new), within_s=within_s, every_s=1.0
        )

    def proof(self, name: str) -> tuple[str, str]:
        """Status and reason of the condition that says whether it is fit."""
        conditions = self.node(name)["status"]["conditions"]
        return next(((c["status"], c["reason"]) for c in conditions if c["type"] == PREFLIGHT), ("", ""))

    def reasons(self) -> set[str]:
        events = self.cluster.get("/apis/events.k8s.io/v1/events")
        return {each["reason"] for each in (events or {"items": []})["items"]}

    def books(self) -> dict[str, Any]:
        status: dict[str, Any] = self.simulation.all("remediationpolicies")[0]["status"]
        return dict(status["joins"])

    def verdicts(self) -> dict[str, str]:
        report: Report = self.judge.report()
        return {each.rule: each.answer for each in report.verdicts if each.rule in RULES}


def with_joins(item: dict[str, Any], joins: dict[str, Any]) -> dict[str, Any]:
    if item["kind"] != "RemediationPolicy":
        return item
    return item | {"spec": item["spec"] | {"joins": joins}}


HELD = dict.fromkeys(("S5", "S12", "S18", "S19b", "S22", "L9"), "held")


def play(story: Story, **more: Any) -> None:
    async def whole() -> None:
        storm = Storm(**more)
        await story(storm)
        await storm.simulation.close()

    run_virtual(whole())


def test_a_storm_is_let_in_at_the_rate_and_uses_all_of_it() -> None:
    """Thirty-six nodes at twenty a minute after five at once: no more, and no less than 99 in a hundred."""

    async def story(storm: Storm) -> None:
        await storm.begin()
        storm.come()
        await storm.until_all_are_in()
        took_s = (storm.opened[-1] - storm.opened[0]).total_seconds()

        ideal_s = (len(storm.new) - BURST) * 3.0
        assert len(storm.new) == 36
        assert ideal_s <= took_s + 0.5
        assert took_s <= ideal_s * 1.01
        assert storm.verdicts() == HELD | {"S19": "held"}
        assert storm.books().get("releasing") is None
        assert "LetIn" in storm.reasons()

    play(story)


def test_nodes_without_the_gate_get_it_and_their_exposure_is_told() -> None:
    """Whatever was bound in between stays; the Event names the remedy."""

    async def story(storm: Storm) -> None:
        await storm.begin()
        storm.come()
        await storm.until_all_are_in()

        assert storm.verdicts() == HELD | {"S19": "held"}
        assert "JoinGateMissing" in storm.reasons()

    play(story, gated=False)


@pytest.mark.parametrize("after_s", [0.3, 7.1, 21.0])
def test_a_leader_that_dies_in_the_middle_lets_nobody_in_twice_or_too_early(after_s: float) -> None:
    """Its successor goes on with the books, and gives up the tokens of the gap."""

    async def story(storm: Storm) -> None:
        replicas = await storm.begin(2)
        storm.come()
        await storm.clock.sleep(after_s)
        leader = next(each for each in replicas if each.leading)
        await leader.kill()
        await storm.until_all_are_in()

        assert storm.verdicts() == HELD | {"S19": "held"}

    play(story)


def test_audit_writes_to_no_node_and_says_whom_it_would_let_in() -> None:
    """At the same rate as Enforce, so that a week of Audit shows what the limit would have done."""

    async def story(storm: Storm) -> None:
        await storm.begin()
        before = len(storm.records)
        storm.come()
        await storm.clock.sleep(300)
        ours = [each for each in storm.records[before:] if each.username == USER and each.committed]

        assert {each.object_ref.resource for each in ours} & {"nodes"} == set()
        assert storm.inside() == []
        assert "WouldLetIn" in storm.reasons()
        assert sum(slot["count"] for slot in storm.books()["letIn"]) == len(storm.new)

    play(story, mode="Audit", gated=False)


def test_a_node_that_is_not_fit_stays_shut_and_stops_nobody() -> None:
    """A GPU that has fallen off the bus is found before the first job, and the others go past it."""

    async def story(storm: Storm) -> None:
        await storm.begin()
        storm.come()
        bad = storm.new[0].name
        storm.machines.lose_gpu(bad, 0)
        others = [spec.name for spec in storm.new[1:]]
        await storm.simulation.wait_for(
            "the others to be in", lambda: set(others) <= set(storm.inside()), within_s=300
        )
        assert not storm.is_in(bad)
        assert storm.proof(bad)[0] != "True"
        await storm.clock.sleep(1_900)
        assert not storm.is_in(bad)
        assert storm.proof(bad)[0] == "False"
        assert "PreflightFailed" in storm.reasons()

    play(story)


def test_a_node_that_is_created_anew_passes_the_gate_anew() -> None:
    """The mark is of one Node: its successor under the name has proved nothing yet."""

    async def story(storm: Storm) -> None:
        await storm.begin()
        storm.come(storm.new[:1])
        name = storm.new[0].name
        await storm.simulation.wait_for("it to be in", lambda: storm.is_in(name), within_s=60)
        first = storm.node(name)["metadata"]["uid"]
        storm.machines.recreate_node(name)
        await storm.simulation.wait_for("the next one to be in", lambda: storm.is_in(name), within_s=60)

        node = storm.node(name)
        assert node["metadata"]["uid"] != first
        assert node["metadata"]["annotations"][ANNOTATION_JOINED].startswith(node["metadata"]["uid"])

    play(story)


def test_a_reboot_neither_shuts_nor_opens_the_gate_again() -> None:
    """Nor does a person's taint of the same key: it is left to the person."""

    async def story(storm: Storm) -> None:
        await storm.begin()
        storm.come(storm.new[:1])
        name = storm.new[0].name
        await storm.simulation.wait_for("it to be in", lambda: storm.is_in(name), within_s=60)
        storm.machines.reboot(name)
        await storm.clock.sleep(300)
        assert storm.is_in(name)
        taints = [*storm.node(name)["spec"]["taints"], {"key": GATE_KEY, "effect": "NoSchedule"}]
        storm.cluster.admin.send("PATCH", f"/api/v1/nodes/{name}", {"spec": {"taints": taints}})
        await storm.clock.sleep(120)
        assert not storm.is_in(name)

    play(story)


def test_nodes_that_were_there_before_are_never_gated() -> None:
    """Nor does the switch to Enforce gate those that came in Audit."""

    async def story(storm: Storm) -> None:
        await storm.begin()
        storm.come(storm.new[:3])
        await storm.clock.sleep(30)
        path = "/apis/remediator.dev/v1alpha1/remediationpolicies/cluster"
        storm.cluster.admin.send("PATCH", path, {"spec": {"joins": {"mode": "Enforce"}}})
        await storm.clock.sleep(120)
        storm.come(storm.new[3:5])
        await storm.simulation.wait_for(
            "the new ones", lambda: {spec.name for spec in storm.new[3:5]} <= set(storm.inside()), within_s=60
        )

        assert not set(storm.inside()) & {spec.name for spec in storm.new[:3]}

    play(story, mode="Audit", gated=False)
