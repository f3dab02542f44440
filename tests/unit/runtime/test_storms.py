"""Everything goes wrong at once, by seeded dice; then the weather clears and the fleet has to settle."""

from __future__ import annotations

import asyncio
import random

import pytest

from remediator.errors import PermanentError, TransientError
from remediator.model.action import EvictPod
from remediator.ports import Refusal
from tests.unit.core.builders import a_pod
from tests.unit.runtime.api_server import ApiServer
from tests.unit.runtime.fates import Crash, Fails, Fate, Lost, Refused
from tests.unit.runtime.rig import Rig, hard, soft

SEEDS = range(24)
ENDED = ("Returned", "NotGranted", "Cancelled", "NodeGone", "Failed", "HandedOff")
NOES = ("delete", "cancel", "untaint", "uncordon", "hold", "opt-out", "delete-node")


class Weather:
    """Throws dice before each round: what becomes of writes, which watch hangs, who crashes."""

    def __init__(self, rig: Rig, seed: int) -> None:
        self.rig = rig
        self.dice = random.Random(seed)

    def spoil_writes(self) -> None:
        for kind in ("CreateRun", "SavePolicy", "SaveRun", "PatchNode", "EvictPod", "CreateJob"):
            if self.dice.random() < 0.25 and not self.rig.server.fates.get(kind):
                self.rig.server.fate(kind, self.fate())

    def turn_bad(self) -> None:
        self.spoil_writes()
        server, dice = self.rig.server, self.dice
        for kind in ("nodes", "runs", "policies", "ledgers"):
            if dice.random() < 0.15:
                server.lag(kind)
            elif dice.random() < 0.5:
                server.catch_up(kind)
        if dice.random() < 0.1:
            server.read_errors.append(TransientError("reset"))
        if dice.random() < 0.08:
            server.crash_at = len(server.sent) + dice.randrange(1, 4)
            server.commit_before_crash = dice.random() < 0.5

    def fate(self) -> Fate:
        return self.dice.choice(
            (
                Refused(Refusal.CONFLICT),
                Refused(Refusal.OVERLOAD),
                Lost(committed=True),
                Lost(committed=False),
                Fails(PermanentError("403", status=403)),
            )
        )

    def clear(self) -> None:
        server = self.rig.server
        server.fates.clear()
        server.read_errors.clear()
        server.crash_at = 0
        server.catch_up()


async def storm(rig: Rig, seed: int, rounds: int = 30, no: str = "") -> None:
    """Bad rounds, each of which may kill the process, and then good ones to the end.

    In one of them, if asked, a person says no to what happens to gpu-1.
    """
    weather = Weather(rig, seed)
    said_in = weather.dice.randrange(2, rounds // 2)
    for number in range(rounds):
        weather.turn_bad()
        if no and number >= said_in and say(rig, no):
            no = ""
        try:
            await rig.round(weather.dice.choice((0.5, 2.0, 5.0)))
        except Crash:
            rig.again()
    weather.clear()
    rig.again()
    await rig.play(120, seconds=5)


def say(rig: Rig, no: str) -> bool:
    """A person's No; False where there is nothing yet to say it to."""
    mine = [name for name, state in rig.runs().items() if "gpu-1" in name and state not in ENDED]
    if not mine:
        return False
    server, name = rig.server, mine[0]
    marks = {"hold": {"annotations": {"remediator.dev/hold": "until=2030-01-01T00:00:00Z;by=ann"}}}
    marks["opt-out"] = {"labels": {"remediator.dev/opt-out": "true"}}
    if no == "delete":
        server.delete("runs", name)
    elif no == "cancel":
        server.change("runs", name, {"spec": {"cancel": {"by": "ann"}}})
    elif no == "delete-node":
        server.delete("nodes", "gpu-1")
    elif no in marks:
        server.change("nodes", "gpu-1", {"metadata": marks[no]})
    elif not rig.quarantined("gpu-1"):
        return False
    elif no == "untaint":
        taints = server.get("nodes", "gpu-1")["spec"]["taints"]
        kept = [each for each in taints if each["key"] != "remediator.dev/quarantine"]
        server.change("nodes", "gpu-1", {"spec": {"taints": kept}})
    else:
        server.change("nodes", "gpu-1", {"spec": {"unschedulable": None}})
    return True


def check_evictions(server: ApiServer) -> None:
    """Nothing was evicted from a node that was not quarantined at that time."""
    tainted_at: dict[str, int] = {}
    for at, sent in enumerate(server.sent):
        if sent.kind == "PatchNode" and sent.by.step == "fence":
            tainted_at.setdefault(sent.by.run, at)
        if isinstance(sent.action, EvictPod):
            assert tainted_at[sent.by.run] < at


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", SEEDS)
async def test_storm_leaves_no_harm_behind(seed):
    """Two broken machines in all this weather: each is replaced and repaired once, and nothing is left."""
    rig = Rig(playbooks=[(hard if seed % 2 else soft)()], spares=2)
    rig.server.pods["team/c"] = a_pod("c", node="gpu-2")
    rig.break_node("gpu-1", "gpu-2")

    await storm(rig, seed)

    states = sorted(rig.runs().values())
    assert states.count("Returned") == 2, states
    assert set(states) <= {"Returned", "NotGranted"}, states
    assert rig.granted() == []
    assert [name for name in rig.server.names("nodes") if rig.quarantined(name)] == []
    assert {name for name in rig.server.effects if name.startswith("job")} == {
        f"job {name}-reboot-1" for name, state in rig.runs().items() if state == "Returned"
    }
    once = [name for name in rig.server.effects if name[0].islower()]
    assert {rig.server.effects[name] for name in once} == {1}, rig.server.effects
    pools = [
        rig.server.get("nodes", name)["metadata"]["labels"]["example.com/pool"] for name in rig.world.nodes
    ]
    assert (pools.count("train"), pools.count("buffer")) == (5, 2)
    check_evictions(rig.server)
    for machine in ("machine-gpu-1", "machine-gpu-2"):
        assert (rig.ledger(machine).state, len(rig.ledger(machine).strikes)) == ("Probation", 1)


@pytest.mark.asyncio
@pytest.mark.parametrize("no", NOES)
@pytest.mark.parametrize("seed", range(8))
async def test_storm_obeys_a_persons_no(no, seed):
    """Whatever else goes wrong, a No leaves nothing of ours behind and is not asked again."""
    rig = Rig(playbooks=[(hard if seed % 2 else soft)()])
    rig.break_node("gpu-1")

    await storm(rig, seed, no=no)

    open_now = [name for name, state in rig.runs().items() if state not in ENDED]
    assert open_now == []
    assert rig.granted() == []
    if no == "delete-node":
        return
    node = rig.server.get("nodes", "gpu-1")
    ours = {"remediator.dev/run", "remediator.dev/prior", "remediator.dev/because"}
    assert not rig.quarantined("gpu-1")
    assert not ours & set(node["metadata"]["annotations"])
    assert not node["spec"].get("unschedulable")
    assert node["metadata"]["labels"]["example.com/pool"] in ("train", "buffer")
    assert sum(state != "NotGranted" for state in rig.runs().values()) <= 1
    check_evictions(rig.server)


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", [0, 1, 2, 3, 16, 102])
async def test_storm_of_slow_answers_on_the_live_controller(seed):
    """All loops at once, every request and every watch slow by dice: the order of things must not matter."""
    dice = random.Random(seed)
    rig = Rig(playbooks=[(hard if seed % 2 else soft)()], spares=2, nodes=6)
    rig.server.latency_s = lambda: dice.choice((0.002, 0.03, 0.4, 2.5))
    weather = Weather(rig, seed)
    task = asyncio.ensure_future(rig.controller.run())
    rig.lease.elected.set()
    await rig.clock.advance(8)
    rig.break_node("gpu-1", "gpu-2", "gpu-3")  # three machines, two spares
    for _ in range(20):
        weather.spoil_writes()
        await rig.clock.advance(2)
        rig.fresh()
    weather.clear()
    for _ in range(40):
        await rig.clock.advance(10)
        rig.fresh()
    rig.controller.stop()
    await rig.clock.advance(15)

    assert await task is True
    states = sorted(rig.runs().values())
    assert states.count("Returned") == 3, rig.runs()
    assert set(states) <= {"Returned", "NotGranted"}, rig.runs()
    once = [name for name in rig.server.effects if name[0].islower()]
    assert {rig.server.effects[name] for name in once} == {1}, rig.server.effects
    assert [name for name in rig.server.names("nodes") if rig.quarantined(name)] == []
    assert rig.server.jobs.keys() == {
        f"{run}-reboot-1" for run, state in rig.runs().items() if state == "Returned"
    }
    check_evictions(rig.server)
