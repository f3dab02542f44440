"""``remediator demo``: the product in a minute, on a simulated fleet or on a real control plane."""

from __future__ import annotations

import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from remediator.cli.exits import RUNTIME_ERROR, Stop, simulator_packages

if TYPE_CHECKING:
    from remediator.demo.play import Watcher

SPEED: float = 180.0


@click.command()
@click.option("--seed", type=click.IntRange(0, 1_000_000), default=1, show_default=True, help="Same story.")
@click.option(
    "--speed",
    type=click.FloatRange(1, 100_000),
    default=SPEED,
    show_default=True,
    help="Seconds of the story in a second; the machine may be slower.",
)
@click.option("--no-tty", is_flag=True, help="One plain line for each thing, also on a terminal.")
@click.option(
    "--record",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="Write an asciicast of it, for `asciinema play FILE`.",
)
@click.option("--real", is_flag=True, help="Three incidents on a real control plane; builds it with Go once.")
@click.option(
    "--keep", is_flag=True, help="With --real: leave the cluster running until Ctrl-C, and say how to look."
)
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="With --real: an empty folder for its files, which stay. Default: a temporary one.",
)
def demo(
    seed: int, speed: float, no_tty: bool, record: Path | None, real: bool, keep: bool, directory: Path | None
) -> None:
    """Show what remediator does for a fleet of 64 GPU nodes, and what would happen without its limits.

    Six incidents, told as they happen: a lost GPU, a soft fault, a person's No, a dead rack, no spare, and a
    release of exporters that lies. The score is counted from audit records alone. Needs nothing but Python.
    Exits with 1 when a rule was broken.

    Example: remediator demo
    """
    if real:
        from remediator.cli.demo_real import play_real

        play_real(keep=keep, directory=directory)
        return
    if keep or directory is not None:
        raise click.UsageError("--keep and --directory need --real: the simulated cluster has no files")
    _play_simulated(seed, speed, no_tty, record)


def _play_simulated(seed: int, speed: float, no_tty: bool, record: Path | None) -> None:
    with simulator_packages():
        from remediator.chaos.campaign import hush
        from remediator.demo.play import Watcher, play
        from remediator.demo.scoreboard import scoreboard
    hush()
    with ExitStack() as opened:
        watcher = _watcher(opened, speed, no_tty, record)
        with_limits = play(seed, limits=True, watcher=watcher)
    click.echo("\nThe same story and the same seed once more, with every limit out of the way ...")
    without = play(seed, limits=False, watcher=Watcher())
    click.echo("\nCounted in the audit log, not by the controller:\n")
    for line in scoreboard(with_limits, without):
        click.echo(line)
    if with_limits.broken:
        raise Stop(f"broken with its limits on: {', '.join(with_limits.broken)}", RUNTIME_ERROR)


def _watcher(opened: ExitStack, speed: float, no_tty: bool, record: Path | None) -> Watcher:
    from rich.console import Console
    from rich.live import Live

    from remediator.adapters.clock import SystemClock
    from remediator.demo.screen import LINES_MAX, Lines, Pace, Picture, Recorder

    clock = SystemClock()
    out = sys.stdout
    if record is not None:
        recorder = Recorder(sys.stdout, record, clock, height=LINES_MAX + 6)
        opened.callback(recorder.close)
        out = recorder
    inner: Watcher
    if no_tty or not sys.stdout.isatty():
        inner = Lines(lambda line: click.echo(line, file=out))
    else:
        live = opened.enter_context(Live(console=Console(file=out), auto_refresh=False, transient=False))
        inner = Picture(live)
    never = threading.Event()
    return Pace(inner, speed=speed, now=clock.monotonic, rest=never.wait)
