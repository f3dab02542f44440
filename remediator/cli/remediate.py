"""A person asks for a run: ``remediate`` on any node, ``retry`` and ``return`` on a machine that is out.

What a request passes, and what stops it all the same, is decision 0023; the way back is 0026.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from remediator.cli import exits
from remediator.cli.arguments import HASH, LENGTH, NAME
from remediator.cli.asking import ask_for_run
from remediator.cli.connection import carry_out, connected
from remediator.cli.exits import Stop

if TYPE_CHECKING:
    from remediator.app.out import KeptOut
    from remediator.app.settings import Settings

_WAIT = click.option("--wait", is_flag=True, help="Wait for the run's end; fails when the run does.")
_TIMEOUT = click.option(
    "--timeout", "length", type=LENGTH, default="6h", show_default=True, help="How long to wait at most."
)


@click.command()
@click.argument("node", type=NAME)
@click.option("--playbook", type=NAME, help="Which playbook.")
@click.option("--plan", "plan_hash", type=HASH, help="Start exactly this plan, or none if it is stale.")
@_WAIT
@_TIMEOUT
@connected
def remediate(
    settings: Settings,
    node: str,
    playbook: str | None,
    plan_hash: str | None,
    wait: bool,
    length: timedelta,
) -> None:
    """Ask for a run on NODE, whatever the mode. Holds, pauses, budgets and all other gates stay.

    Exits with 14 when the plan is stale; with --wait 1 when the run fails, 124 at the time-out.

    Example: remediator remediate gpu-a-03 --plan 7f3c9a21
    """
    from remediator.app.snapshot import open_snapshot

    if not playbook and not plan_hash:
        raise click.UsageError("write --playbook NAME, or --plan HASH of `remediator plan`")

    async def work() -> int:
        async with open_snapshot(settings) as snapshot:
            return await ask_for_run(
                snapshot,
                settings,
                node,
                playbook=playbook or "",
                plan_hash=plan_hash or "",
                patience=length if wait else None,
            )

    sys.exit(carry_out(work()))


@click.command()
@click.argument("run", type=NAME)
@_WAIT
@_TIMEOUT
@connected
def retry(settings: Settings, run: str, wait: bool, length: timedelta) -> None:
    """Carry the playbook of RUN out once more, on the machine that RUN keeps out. A node's name does as well.

    It stays quarantined all the while, and no second spare is taken for its place. The repair is done
    although the same was done before.

    Example: remediator retry gpu-a-03-1 --wait
    """
    from remediator.app.lookup import find_run
    from remediator.app.out import kept_out
    from remediator.app.snapshot import open_snapshot
    from remediator.core.fleet import is_open

    async def work() -> int:
        async with open_snapshot(settings) as snapshot:
            found = await find_run(snapshot.transport, snapshot.clock, run)
            name, node = found.metadata.name, found.spec.node.name
            if is_open(found):
                raise Stop(f"{name} is under way on {node}: remediator show {name}", exits.BLOCKED)
            kept = kept_out(snapshot, node)
            if kept.run != name:
                raise Stop(f"it is {kept.run} that keeps {node} out: remediator retry {kept.run}")
            patience = length if wait else None
            return await ask_for_run(snapshot, settings, node, playbook=kept.playbook, patience=patience)

    sys.exit(carry_out(work()))


@click.command("return")
@click.argument("node", type=NAME)
@click.option("--to", "pool", type=NAME, help="The pool to join; default: where the machine is missing.")
@click.option("--playbook", type=NAME, help="Whose verify step to use; default: that of the ended run.")
@_WAIT
@_TIMEOUT
@connected
def return_(
    settings: Settings, node: str, pool: str | None, playbook: str | None, wait: bool, length: timedelta
) -> None:
    """Give NODE, which an ended run keeps out, back to a pool, once its signals have proved it well.

    No reboot is demanded. Until the proof it stays quarantined, and so it does when the proof fails.

    Example: remediator return gpu-a-03 --to buffer --wait
    """
    from remediator.app.out import find_destination, kept_out
    from remediator.app.snapshot import open_snapshot

    async def work() -> int:
        async with open_snapshot(settings) as snapshot:
            kept = kept_out(snapshot, node)
            if not pool and not kept.to:
                raise Stop(f"where {node} belongs is not known; add --to POOL")
            return await ask_for_run(
                snapshot,
                settings,
                node,
                playbook=playbook or _playbook_of(kept),
                return_to=find_destination(snapshot, pool or kept.to),
                patience=length if wait else None,
            )

    sys.exit(carry_out(work()))


def _playbook_of(kept: KeptOut) -> str:
    if not kept.playbook:
        raise Stop(f"there is no record of {kept.run} any more; add --playbook NAME")
    return kept.playbook
