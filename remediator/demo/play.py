"""Plays the story on a simulated cluster, with the limits on, or with every one of them out of the way."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from remediator.app.simulation import Simulation, enforcing, shipped_objects
from remediator.chaos.incidents import Incidents
from remediator.chaos.schedule import Event
from remediator.demo.news import News
from remediator.demo.story import ENDS_S, Moment, story
from remediator.demo.tally import Score, Tally
from remediator.fleet.dcgm_fields import TELLING
from remediator.fleet.layout import BUFFER, standard_fleet
from remediator.fleet.node_objects import LABEL_POOL
from remediator.fleet.workloads import Workload, workload_objects
from remediator.model.keys import TAINT_QUARANTINE
from remediator.sim.loop import run_virtual, virtual_clock

SETTLE_S: Final = 30.0
TICK_S: Final = 5.0

#: What holds the controller back in production, as a cluster of this size would set it.
LIMITS: Final[dict[str, Any]] = {
    "breaker": {"count": 3, "percent": 10, "within": "5m", "quiet": "10m"},
    "rate": {"count": 8, "per": "1h", "burst": 3},
    "holdAfterVeto": "24h",
}
#: The same controller with nothing that holds it back.
NO_LIMITS: Final[dict[str, Any]] = {
    "maxUnavailable": {"percent": 100, "atLeast": 64},
    "poolMaxUnavailable": {"percent": 100, "atLeast": 64},
    "maxConcurrent": 256,
    "poolMaxConcurrent": 256,
    "maxRepairs": 256,
    "rate": {"count": 10_000, "per": "1m", "burst": 1_000},
    "breaker": {"count": 10_000, "percent": 100, "within": "1m", "quiet": "1s"},
    "holdAfterVeto": "24h",
}


class Told(NamedTuple):
    """One line of the story; ``title`` is set where a chapter begins."""

    at_s: float
    who: str
    text: str
    title: str = ""


class Watcher:
    """Is shown what happens; overridden by whoever shows it to people."""

    def tell(self, line: Told) -> None:
        """Something has happened."""

    def look(self, simulation: Simulation, at_s: float) -> None:
        """Time has passed."""


def play(seed: int, *, limits: bool, watcher: Watcher) -> Score:
    """Play the whole story, and count what was done."""
    return run_virtual(_play(seed, limits, watcher))


async def _play(seed: int, limits: bool, watcher: Watcher) -> Score:
    clock, tally, news = virtual_clock(), Tally(), News()
    began_s = clock.monotonic()

    def take(line: bytes) -> None:
        for item in news.of(tally.take(line)):
            watcher.tell(Told(clock.monotonic() - began_s, item.who, item.text))

    simulation = Simulation(clock, seed=seed, specs=standard_fleet(), objects=_objects(limits), audit=take)
    simulation.cluster.apply(workload_objects(Workload()))
    simulation.cluster.machines.exporters.show_only(TELLING)
    await simulation.start()
    incidents = Incidents(simulation.cluster, opt_out="")
    left = list(story())
    while (now_s := clock.monotonic() - began_s) < SETTLE_S + ENDS_S:
        while left and left[0].at_s + SETTLE_S <= now_s:
            moment = left.pop(0)
            watcher.tell(Told(now_s, moment.who, _said(moment, simulation), moment.title))
            _happen(moment, incidents, simulation)
        watcher.look(simulation, now_s)
        await clock.sleep(TICK_S)
    await simulation.close()
    return tally.score()


def _happen(moment: Moment, incidents: Incidents, simulation: Simulation) -> None:
    for event in moment.events:
        incidents.happen(event)
    for name in _spares(simulation) if moment.spares else ():
        incidents.happen(Event(at_s=moment.at_s, kind=moment.spares or "Cordon", node=name))


def _said(moment: Moment, simulation: Simulation) -> str:
    """Its text; of a node that should be untouched, whether it is."""
    if not moment.untouched:
        return moment.text
    runs = [run for run in simulation.all("remediations") if run["spec"]["node"]["name"] == moment.untouched]
    return f"{moment.text}: no run, no taint" if not runs else f"has a run: {runs[0]['metadata']['name']}"


def _spares(simulation: Simulation) -> list[str]:
    """The nodes that are in the buffer and not fenced."""
    return [
        node["metadata"]["name"]
        for node in nodes_of(simulation)
        if (node["metadata"].get("labels") or {}).get(LABEL_POOL) == BUFFER
        and all(taint["key"] != TAINT_QUARANTINE for taint in node["spec"].get("taints") or ())
    ]


def nodes_of(simulation: Simulation) -> list[dict[str, Any]]:
    """All Nodes as they are now, by name."""
    found = simulation.cluster.get("/api/v1/nodes")
    return list(found["items"]) if found is not None else []


def _objects(limits: bool) -> Iterable[dict[str, Any]]:
    """What is applied: everything in Enforce; without limits also none in the playbooks."""
    for item in enforcing(shipped_objects()):
        spec = item.get("spec", {})
        if item["kind"] == "RemediationPolicy":
            spec = spec | (LIMITS if limits else NO_LIMITS)
        elif item["kind"] == "Playbook" and not limits:
            spec = {key: value for key, value in spec.items() if key != "limits"}
        yield item | ({"spec": spec} if spec else {})
