"""``remediator show``: the record of one run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from remediator.cli.arguments import NAME
from remediator.cli.connection import carry_out, connected, open_cluster, show

if TYPE_CHECKING:
    from datetime import datetime

    from remediator.app.settings import Settings
    from remediator.model.remediation import Remediation

READ_TIMEOUT_S = 10.0


@click.command("show")
@click.argument("run", type=NAME)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json", "md"]),
    default="text",
    show_default=True,
    help="Form; md is fit for a ticket.",
)
@connected
def show_run(settings: Settings, run: str, output: str) -> None:
    """Show what RUN saw, did and waited for. A node's name means its newest run.

    Example: remediator show gpu-a-03-1 -o md
    """
    from remediator.cli.show_screen import as_markdown, render

    found, body, now = carry_out(_read(settings, run))
    if output == "json":
        click.echo(json.dumps(json.loads(body), indent=2))
    elif output == "md":
        click.echo("\n".join(as_markdown(found, now)))
    else:
        show(render(found, now))


async def _read(settings: Settings, name: str) -> tuple[Remediation, bytes, datetime]:
    """The run, its own bytes, and what time it is."""
    from remediator.adapters.kube.errors import check_read
    from remediator.adapters.kube.records import RUNS
    from remediator.app.lookup import find_run
    from remediator.ports import Lane

    async with open_cluster(settings) as (transport, clock):
        found = await find_run(transport, clock, name)
        path = f"{RUNS}/{found.metadata.name}"
        response = await transport.request("GET", path, timeout_s=READ_TIMEOUT_S, lane=Lane.NORMAL)
        return found, check_read(response, f"GET {path}"), clock.now()
