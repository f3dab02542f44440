"""``remediator doctor``: is this installation able to see, to act and to keep its promises?"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from remediator.cli import exits
from remediator.cli.connection import carry_out, connected, show

if TYPE_CHECKING:
    from remediator.app.settings import Settings


@click.command()
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@connected
def doctor(settings: Settings, output: str) -> None:
    """Look at the whole installation, and say what is wrong with it and how to mend it.

    It changes nothing. Exits with 13 when something has failed; what could not be looked at is told, and
    is no failure.

    Example: remediator doctor
    """
    from remediator.app.doctor.examine import examine
    from remediator.app.doctor.finding import Level
    from remediator.cli.doctor_screen import as_json, render

    findings = carry_out(examine(settings))
    show([as_json(findings)] if output == "json" else render(findings))
    if any(each.level is Level.FAILURE for each in findings):
        sys.exit(exits.CHECK_FAILED)
