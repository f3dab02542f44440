"""``remediator plan``: what a run would do, line by line, with what it costs. Writes nothing."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from remediator.cli import exits
from remediator.cli.arguments import NAME
from remediator.cli.connection import carry_out, connected, show

if TYPE_CHECKING:
    from remediator.app.explain import Answer
    from remediator.app.settings import Settings
    from remediator.cli.plan_facts import Leaving


@click.command()
@click.argument("node", type=NAME)
@click.option("--playbook", type=NAME, help="Plan this one; default: the one whose fault the node has.")
@click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Form."
)
@click.option("--detailed-exitcode", is_flag=True, help="Exit with 10 when there is something to do.")
@connected
def plan(settings: Settings, node: str, playbook: str | None, output: str, detailed_exitcode: bool) -> None:
    """Show what a run on NODE would do, and what it would cost.

    The hash is the one that a run carries: `remediate --plan HASH` starts this plan or none.

    Example: remediator plan gpu-a-03 --playbook gpu-off-bus
    """
    from remediator.cli.plan_facts import spares
    from remediator.cli.plan_screen import FORMAT_VERSION, as_json, render
    from remediator.cli.why_screen import headline

    answer, leaving = carry_out(_plan(settings, node, playbook or ""))
    if not answer.judged:
        if output == "json":
            nothing = {"format_version": FORMAT_VERSION, "hash": None, "node": {"name": node}}
            click.echo(json.dumps({**nothing, "reason": headline(answer)}, indent=2))
        else:
            show(
                [f"nothing to plan for {node}. {headline(answer)}", "--playbook NAME plans one all the same"]
            )
        return
    judged = answer.judged[0]
    if output == "json":
        click.echo(json.dumps(as_json(answer, judged, leaving, spares(judged.case)), indent=2))
    else:
        show(render(answer, judged, leaving, spares(judged.case)))
    if detailed_exitcode:
        sys.exit(exits.CHANGES_PLANNED)


async def _plan(settings: Settings, node: str, playbook: str) -> tuple[Answer, Leaving]:
    from remediator.app.explain import explain
    from remediator.app.snapshot import open_snapshot
    from remediator.cli import plan_facts

    async with open_snapshot(settings) as snapshot:
        answer = await explain(snapshot, settings, node, playbook=playbook)
        if not answer.judged or "drain" not in answer.judged[0].playbook.actions:
            return answer, plan_facts.Leaving()
        chosen = answer.judged[0].playbook
        listing = await snapshot.reader.pods_of(node)
        soft = chosen.spec.severity == "Soft"
        return answer, plan_facts.leaving(answer.node, listing, chosen, answer.view.policy, soft=soft)
