"""``remediator joins``: who waits at the join gate, why, and when they will be let in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from remediator.cli.connection import carry_out, connected, show

if TYPE_CHECKING:
    from remediator.app.settings import Settings

WATCH_EVERY_S = 2.0


@click.command()
@click.option("-w", "--watch", is_flag=True, help="Show it again every two seconds, until interrupted.")
@connected
def joins(settings: Settings, *, watch: bool) -> None:
    """Show the nodes that wait to be let in: place, what is missing, and when it will be their turn.

    It reads objects, and the pods and pages of nodes that wait. It changes nothing.

    Example: remediator joins --watch
    """
    carry_out(_joins(settings, watch=watch))


async def _joins(settings: Settings, *, watch: bool) -> None:
    from remediator.adapters.clock import SystemClock

    clock = SystemClock()
    while True:
        lines = await _look(settings)
        if watch:
            click.clear()
        show(lines)
        if not watch:
            return
        await clock.sleep(WATCH_EVERY_S)


async def _look(settings: Settings) -> list[str]:
    from remediator.app.snapshot import open_snapshot
    from remediator.cli.joins_screen import OFF, render
    from remediator.core.joins.decide import decide_joins
    from remediator.runtime.newcomers import Newcomers

    async with open_snapshot(settings) as snapshot:
        newcomers = Newcomers(
            world=snapshot.world,
            diagnoses=snapshot.diagnoses,
            reader=snapshot.reader,
            clock=snapshot.clock,
        )
        newcomers.reindex()
        await snapshot.read_pages(tuple(node.name for node in newcomers.waiting()))
        await newcomers.look_at_pods()
        await newcomers.judge()
        view = newcomers.view(snapshot.scout.view())
        if view is None:
            return [OFF, *newcomers.faults]
        return render(view, decide_joins(view), snapshot.world.policy_spec)
