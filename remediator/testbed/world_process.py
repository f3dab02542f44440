"""The hardware of a test bed that stands, as a process: exporter pages, kubelets' moods, repair Jobs.

``world.py`` starts it beside the control plane; it ends with that. Its one address on 127.0.0.1
serves the page of every GPU node, and takes faults at ``/control``.
"""

from __future__ import annotations

import argparse
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from remediator.fleet.exporter_state import ExporterStates
from remediator.fleet.layout import (
    standard_fleet,
)
from remediator.testbed.api import Api
from remediator.testbed.exporters import ExporterServer
from remediator.testbed.hardware import Hardware
from remediator.testbed.repair_player import RepairPlayer
from remediator.testbed.waiting import monotonic
from remediator.testbed.world_control import WorldControl


def main(words: Sequence[str] | None = None) -> int:
    """Play the standard fleet's hardware until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m remediator.testbed.world_process", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True, help="an administrator's")
    parser.add_argument("--port", type=int, required=True, help="of 127.0.0.1")
    parser.add_argument("--repair-namespace", required=True, help="where repair Jobs live")
    chosen = parser.parse_args(words)
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        del number, frame
        stop.set()

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    specs = standard_fleet()
    api = Api.from_kubeconfig(chosen.kubeconfig)
    states = ExporterStates([spec.machine for spec in specs if spec.gpus], clock=monotonic)
    hardware = Hardware(api, specs, exporters=states)
    player = RepairPlayer(api, hardware, namespace=chosen.repair_namespace)
    control = WorldControl(api, hardware, states, player)
    with (
        player,
        ExporterServer(states, port=chosen.port, control=control.apply),
    ):
        stop.wait()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
