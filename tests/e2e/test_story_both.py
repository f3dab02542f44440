"""The main job on the simulator and on a real control plane: the controller writes the same on both.

Not only the end is compared. Every write of a Node, an eviction, a Job, a run and a grant is, object by
object and in its order; ``normal`` says what is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from remediator.adapters.audit import AuditRecord
from remediator.app.simulation import PERIOD, Simulation, shipped_objects
from remediator.fleet.workloads import workload_objects
from remediator.sim.loop import run_virtual, virtual_clock
from remediator.sim.world.exporters import ADDRESS
from remediator.testbed.binaries import Binaries
from remediator.testbed.stage import GROUP, USER, Stage
from tests.e2e.crash_scene import STORIES, CrashScene, Story
from tests.e2e.normal import written
from tests.e2e.small_world import BAD, open_fleet, workload

KINDS = {"RemediationPolicy": "remediationpolicies", "ResourcePool": "resourcepools", "Playbook": "playbooks"}
BASELINE_S, RUN_S, AFTER_S = 120.0, 1_800.0, 30.0


@pytest.fixture(scope="module")
def scene(control_plane_binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrashScene]:
    """Three nodes that work, and a spare, on a real control plane."""
    directory = tmp_path_factory.mktemp("both") / "stage"
    with Stage(directory, control_plane_binaries, workload=workload(), specs=open_fleet()) as stage:
        yield CrashScene(stage)


def as_there(stage: Stage) -> list[dict[str, Any]]:
    """What is shipped, with policy, pools and playbooks as they stand on the real server."""
    found = []
    for item in shipped_objects():
        plural = KINDS.get(item["kind"])
        spec = stage.api.get(f"{GROUP}/{plural}/{item['metadata']['name']}")["spec"] if plural else {}
        if item["kind"] == "RemediationPolicy":
            spec["exporter"] |= {"address": ADDRESS, "period": PERIOD}
        found.append(item | ({"spec": spec} if plural else {}))
    return found


def simulated(story: Story, objects: list[dict[str, Any]]) -> dict[str, list[str]]:
    """What the controller writes from the fault on."""
    records: list[AuditRecord] = []
    decoder = msgspec.json.Decoder(AuditRecord)

    async def main() -> None:
        clock = virtual_clock()
        simulation = Simulation(
            clock,
            seed=7,
            specs=open_fleet(),
            objects=objects,
            audit=lambda line: records.append(decoder.decode(line)),
        )
        simulation.cluster.apply(workload_objects(workload()))
        await simulation.start()

        def baselined() -> object:
            return simulation.all("remediationpolicies")[0].get("status", {}).get("baselined")

        def returned() -> bool:
            runs = simulation.all("remediations")
            return any(each.get("status", {}).get("state") == "Returned" for each in runs)

        await simulation.wait_for("a first round of pages", baselined, within_s=BASELINE_S)
        await clock.sleep(AFTER_S)
        records.clear()
        story.inject(simulation.cluster.machines.exporters)
        await simulation.wait_for("the end of the run", returned, within_s=RUN_S)
        await clock.sleep(AFTER_S)
        await simulation.close()

    run_virtual(main())
    return written(records, USER)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", sorted(STORIES))
def test_controller_writes_the_same_on_both(scene: CrashScene, name: str) -> None:
    story, stage = STORIES[name], scene.world.stage
    mark = stage.audit.mark()
    scene.play(story)
    real = written(stage.audit.since(mark), USER)
    ours = simulated(story, as_there(stage))

    assert len(real[f"nodes {BAD}"]) == 3, "fenced, taken out, given back"
    assert ours.keys() == real.keys()
    for about, lines in real.items():
        assert ours[about] == lines, about
