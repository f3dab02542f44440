"""``remediator sim``: a whole cluster in this process, for kubectl, in our time or faster."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from remediator.cli.connection import carry_out, connected, open_cluster
from remediator.cli.exits import RUNTIME_ERROR, WRONG_USAGE, Stop, simulator_packages
from remediator.errors import PermanentError

if TYPE_CHECKING:
    from remediator.app.served import Wanted
    from remediator.app.settings import Settings


@click.group()
def sim() -> None:
    """Serve a simulated cluster on loopback, and let things happen in it."""


@sim.command()
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("sim"),
    show_default=True,
    help="Folder for kubeconfig, log of the controller and audit log.",
)
@click.option(
    "--racks", type=click.IntRange(1, 500), default=8, show_default=True, help="Racks of GPU nodes."
)
@click.option("--per-rack", type=click.IntRange(3, 64), default=8, show_default=True, help="Nodes in a rack.")
@click.option(
    "--replicas",
    type=click.IntRange(0, 3),
    default=1,
    show_default=True,
    help="Of the controller, in this process; 0: bring your own, as context `controller`.",
)
@click.option("--enforce", is_flag=True, help="Pools and playbooks in Enforce; as shipped they are in Audit.")
@click.option("--workload/--no-workload", default=True, show_default=True, help="Pods that fill the pools.")
@click.option(
    "--speed",
    type=click.FloatRange(0.1, 1_000),
    default=1.0,
    show_default=True,
    help="Times as fast as life.",
)
@click.option("--seed", type=click.IntRange(0, 1_000_000), default=1, show_default=True, help="Of all dice.")
@click.option("--port", type=click.IntRange(0, 65_535), default=0, help="0: a free one.")
def serve(
    directory: Path, racks: int, per_rack: int, replicas: int, enforce: bool, workload: bool, speed: float,
    seed: int, port: int,
) -> None:  # fmt: skip
    """Serve a cluster with a fleet of GPU nodes, their workload and remediator, until Ctrl-C.

    The unmodified kubectl works against it: get, get -w, describe, label, taint, cordon, drain, delete,
    patch, apply and wait. Needs nothing but Python.

    Example: remediator sim serve --enforce --speed 10
    """
    with simulator_packages():
        from remediator.app.served import Wanted
        from remediator.sim.loop import run_scaled
    wanted = Wanted(
        directory=directory, racks=racks, per_rack=per_rack, replicas=replicas, enforce=enforce,
        workload=workload, speed=speed, seed=seed, port=port,
    )  # fmt: skip
    run_scaled(_serve(wanted), speed)


@sim.command()
@click.argument("kind")
@click.argument("node", default="")
@click.option("--value", type=float, default=0.0, help="Code, share or seconds, by kind.")
@click.option("--detail", default="", help="TYPE=STATUS, a part, a trouble, by kind.")
@connected
def happen(settings: Settings, kind: str, node: str, value: float, detail: str) -> None:
    """Let something happen in the served cluster: KIND is an event of docs/chaos.md, NODE to whom.

    Example: remediator sim happen Xid gpu-a-02 --value 79
    """
    event = {"kind": kind, "node": node, "value": value, "detail": detail}
    if not carry_out(_happen(settings, event)):
        raise Stop(f"{kind} could not happen: there is no Node {node} now", RUNTIME_ERROR)
    click.echo(f"{kind} {node} {detail}".strip())


async def _happen(settings: Settings, event: dict[str, object]) -> bool:
    import msgspec

    from remediator.app.served import EVENTS
    from remediator.ports import Lane

    async with open_cluster(settings) as (transport, _):
        reply = await transport.request(
            "POST", EVENTS, body=msgspec.json.encode(event), timeout_s=10.0, lane=Lane.NORMAL
        )
    said = msgspec.json.decode(reply.body)
    if reply.status == 404:
        raise Stop("this is no simulated cluster; take the kubeconfig of `remediator sim serve`", WRONG_USAGE)
    if reply.status >= 400:
        raise Stop(f"refused: {said.get('message')}", WRONG_USAGE)
    return bool(said["happened"])


async def _serve(wanted: Wanted) -> None:
    from remediator.adapters.clock import SystemClock
    from remediator.adapters.telemetry.logs import configure_logs
    from remediator.app.served import serve as serve_cluster
    from remediator.chaos.outside import happen
    from remediator.sim.loop import virtual_clock

    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    clock = virtual_clock(start=SystemClock().now())
    with ExitStack() as stack:
        try:
            wanted.directory.mkdir(parents=True, exist_ok=True)
            log = stack.enter_context((wanted.directory / "controller.log").open("w", encoding="utf-8"))
            audit = stack.enter_context((wanted.directory / "audit.log").open("wb"))
        except OSError as error:
            said = f"{wanted.directory}: {error.strerror}; choose another --directory"
            raise PermanentError(said) from error
        configure_logs("info", json=True, stream=log, clock=clock)
        await serve_cluster(
            wanted,
            clock=clock,
            happen=happen,
            audit=_lines(audit),
            tell=lambda line: click.echo(line),
            stop=stop,
        )


def _lines(file: IO[bytes]) -> Callable[[bytes], None]:
    def write(line: bytes) -> None:
        file.write(line + b"\n")

    return write
