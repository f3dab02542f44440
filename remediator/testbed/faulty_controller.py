"""The controller behind a connection that fails on order, as a process of its own.

It is the shipped controller, built by ``remediator.app``; only its connection is wrapped. The flags
that ``remediator run`` has too mean the same.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Final

from remediator.adapters.clock import SystemClock
from remediator.adapters.telemetry.logs import configure_logs
from remediator.app.controller import run
from remediator.app.settings import Settings, lease_times
from remediator.ports import Transport
from remediator.testbed.overload import Overload
from remediator.testbed.shifted_clock import ShiftedClock
from remediator.testbed.write_faults import Fate, Journal, WriteFaults, die, freeze

BUSY_SHARE: Final = 0.8
BUSY_SEED: Final = 4


def main(words: Sequence[str] | None = None) -> int:
    """Run the controller until it dies, is told to stop, or loses its Lease."""
    parser = argparse.ArgumentParser(
        prog="python -m remediator.testbed.faulty_controller", description=__doc__
    )
    parser.add_argument(
        "--journal",
        type=Path,
        required=True,
        help="where each effective write, or with --busy each request, is told",
    )
    parser.add_argument("--point", default="", help="the write, such as 'PATCH nodes of fence'")
    parser.add_argument("--fate", choices=[fate.value for fate in Fate], default=Fate.KILLED_BEFORE.value)
    parser.add_argument("--busy", type=Path, help="while this file exists, most requests are turned away")
    parser.add_argument(
        "--clock-offset", type=float, default=0.0, help="seconds that its machine's wall clock is ahead"
    )
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--log-format", choices=["json", "text"], default="json")
    parser.add_argument("--lease-seconds", type=float, default=15.0)
    chosen = parser.parse_args(words)
    configure_logs("info", json=chosen.log_format == "json", stream=sys.stderr, clock=SystemClock())
    settings = Settings(
        kubeconfig=chosen.kubeconfig,
        namespace=chosen.namespace,
        identity=f"faulty-{secrets.token_hex(4)}",
        host=chosen.host,
        port=chosen.port,
        **lease_times(chosen.lease_seconds),
    )
    journal = Journal(chosen.journal)

    def tried(refused: bool) -> None:
        journal.note("request", "refused" if refused else "sent")

    def wrap(connection: Transport) -> Transport:
        if chosen.busy:
            return Overload(
                connection, flag=chosen.busy, share=BUSY_SHARE, rng=Random(BUSY_SEED), tried=tried
            )
        return WriteFaults(
            connection, journal=journal, point=chosen.point, fate=Fate(chosen.fate), die=die, freeze=freeze
        )

    return asyncio.run(run(settings, wrap=wrap, machine=ShiftedClock(chosen.clock_offset)))


if __name__ == "__main__":
    raise SystemExit(main())
