"""The detached world: the standard fleet, its workload and its hardware, on a test bed that stands.

``create`` puts them on a control plane that was just started; the rest talks to the hardware
process of one that runs, from any other process.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import remediator
from remediator.errors import PermanentError
from remediator.fleet.layout import (
    standard_fleet,
)
from remediator.testbed import exporter_control, processes
from remediator.testbed.fleet import (
    apply_fleet,
)
from remediator.testbed.launcher import ControlPlane
from remediator.testbed.workloads import deploy_workload

HARDWARE: Final = "hardware"
REPAIR_NAMESPACE: Final = "remediator-repair"
CONTROL_S_MAX: Final = 150.0  # a node has 60 s to go and 60 s to come back


def create(control_plane: ControlPlane, *, workload: bool, tell: Callable[[str], None]) -> None:
    """Create the fleet, start its hardware, and fill its training pool if asked.

    Raises:
        RemediatorError: the server refused something, or it did not settle in time.
    """
    specs = standard_fleet()
    api = control_plane.admin()
    try:
        tell(
            f"creating {len(specs)} nodes, {sum(bool(spec.gpus) for spec in specs)} of them with 8 GPUs each"
        )
        apply_fleet(api, specs)
        tell("starting their hardware: GPU exporters, and what reboots a machine")
        port = control_plane.reserve_port()
        control_plane.start_beside(HARDWARE, _command(control_plane, port), port=port)
        if workload:
            tell(f"{deploy_workload(api)} pods run; the training pool is full")
    finally:
        api.close()


def _command(control_plane: ControlPlane, port: int) -> list[str]:
    root = Path(remediator.__file__).resolve().parents[1]
    return [
        # A checkout that is not installed is found, too.
        *("/usr/bin/env", f"PYTHONPATH={root}", sys.executable, "-m", "remediator.testbed.world_process"),
        *("--kubeconfig", str(control_plane.kubeconfig), "--port", str(port)),
        *("--repair-namespace", REPAIR_NAMESPACE),
    ]


def base_url(directory: Path) -> str:
    """Address of the hardware process in this folder.

    Raises:
        PermanentError: none was started there, or it has ended.
    """
    state = processes.read_state(directory) or processes.State()
    alive = any(one.name == HARDWARE and processes.is_alive(one) for one in state.processes)
    if HARDWARE not in state.beside or not alive:
        raise PermanentError(
            f"no hardware runs in {directory}: start it with `remediator testbed up` (without --no-fleet)"
        )
    return f"http://127.0.0.1:{state.beside[HARDWARE]}"


def exporter_address(directory: Path) -> str:
    """What the policy's ``spec.exporter.address`` must be: ``{node}`` stands for a node's name.

    Raises:
        PermanentError: no hardware runs in this folder.
    """
    return f"{base_url(directory)}/nodes/{{node}}/metrics"


def ask(directory: Path, operation: str, node: str, **arguments: object) -> None:
    """Have the hardware do something to one node, and wait until it is done.

    Args:
        directory: of the test bed.
        operation: a key of ``OPERATIONS`` (exporter_control) or ``NODE_OPERATIONS`` (world_control).
        node: its name.
        arguments: of the operation.

    Raises:
        PermanentError: no hardware runs there, or it refused, with its own words.
        TransientError: it gave no answer.
    """
    exporter_control.control(base_url(directory), operation, node, timeout_s=CONTROL_S_MAX, **arguments)
