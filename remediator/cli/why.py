"""``remediator why``: every gate between a node and its remediation, with its numbers."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from remediator.cli import exits
from remediator.cli.arguments import NAME
from remediator.cli.connection import carry_out, connected, show

if TYPE_CHECKING:
    from remediator.app.explain import Answer
    from remediator.app.settings import Settings


@click.command()
@click.argument("node", type=NAME)
@click.option("--playbook", type=NAME, help="Judge this playbook, whether its fault is there or not.")
@click.option("--all", "everything", is_flag=True, help="Show matchers that see nothing, too.")
@connected
def why(settings: Settings, node: str, playbook: str | None, everything: bool) -> None:
    """Say why something, or nothing, is done about NODE.

    Exits with 11 when a gate stops what should be done, else with 0.

    Example: remediator why gpu-a-03
    """
    from remediator.cli.why_screen import blocked, render

    answer = carry_out(_answer(settings, node, playbook or ""))
    show(render(answer, everything=everything))
    if blocked(answer):
        sys.exit(exits.BLOCKED)


async def _answer(settings: Settings, node: str, playbook: str) -> Answer:
    from remediator.app.explain import explain
    from remediator.app.snapshot import open_snapshot

    async with open_snapshot(settings) as snapshot:
        return await explain(snapshot, settings, node, playbook=playbook)
