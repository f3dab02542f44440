"""``remediator version``."""

from __future__ import annotations

import platform

import click

from remediator import __version__


@click.command()
def version() -> None:
    """Print the version of remediator and of Python."""
    click.echo(f"remediator {__version__} (Python {platform.python_version()})")
