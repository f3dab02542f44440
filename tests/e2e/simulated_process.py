"""One story on the simulator in a process of its own: prints the digest of its audit log.

A file of its own, because only a new process has another hash seed.
"""

from __future__ import annotations

import hashlib
import sys
from io import StringIO

from remediator.adapters.telemetry.logs import configure_logs
from remediator.app.simulation import Simulation, enforcing, shipped_objects
from remediator.fleet.layout import build_fleet
from remediator.fleet.workloads import Workload, workload_objects
from remediator.sim.loop import run_virtual, virtual_clock


async def story(seed: int) -> str:
    """Two faults at once, and a leader that is killed between them."""
    digest, clock = hashlib.sha256(), virtual_clock()
    configure_logs("warning", json=True, stream=StringIO(), clock=clock)
    simulation = Simulation(
        clock, seed=seed, specs=build_fleet(3, 8), objects=enforcing(shipped_objects()), audit=digest.update
    )
    simulation.cluster.apply(workload_objects(Workload(trainers=14, gang=4)))
    first = await simulation.start()
    await clock.sleep(60)
    exporters = simulation.cluster.machines.exporters
    exporters.inject_xid("gpu-a-01", 5, 79)
    exporters.set_gauge("gpu-b-02", 1, "DCGM_FI_DEV_ROW_REMAP_PENDING", 1)
    await clock.sleep(6)
    await first.kill()
    second = await simulation.start()
    await clock.sleep(3_600)
    states = sorted(run["status"]["state"] for run in simulation.all("remediations"))
    await second.stop()
    await simulation.close()
    return f"{' '.join(states)} {digest.hexdigest()}"


if __name__ == "__main__":
    sys.stdout.write(run_virtual(story(int(sys.argv[1]))))
