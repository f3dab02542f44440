"""``remediator generate``: writes, or with ``--check`` compares, everything that is made from the model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click

METRICS: Final = "docs/reference/metrics.md"


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 if a file is stale.")
@click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(),
    help="Root of the project's source tree (default: here).",
)
def generate(check: bool, root: Path) -> None:
    """Write CRDs, editor schemas, RBAC, alert rules and reference pages from what they are made of.

    Example: remediator generate --check
    """
    # Imported late: no other command needs the generators.
    from remediator.adapters.files.alerts import prometheus_rule
    from remediator.adapters.files.generated import stale_files, write_files

    if not (root / "remediator" / "model").is_dir():
        raise click.UsageError(f"{root.resolve()} is no source tree of remediator; name one with --root")
    more = {**metrics_page(), **prometheus_rule(root), **chaos_schemas()}
    if not check:
        written = write_files(root, more)
        for path in written:
            click.echo(f"{path} written")
        if not written:
            click.echo("everything is up to date")
        return
    stale = stale_files(root, more)
    for path in stale:
        click.echo(f"{path} is stale", err=True)
    if stale:
        click.echo("run `make generate` and commit the result", err=True)
        raise SystemExit(1)


def chaos_schemas() -> Mapping[str, str]:
    """The editor schemas of scenarios and profiles, by path. Made here, since adapters know neither."""
    from remediator.adapters.files.single import single_schema
    from remediator.chaos.profile import Profile
    from remediator.chaos.scenario import Scenario

    return {
        "schemas/profile.schema.json": single_schema(Profile),
        "schemas/scenario.schema.json": single_schema(Scenario),
    }


def metrics_page() -> Mapping[str, str]:
    """The page about metrics, by its path. Made here, since adapters do not know each other."""
    from remediator.adapters.files.reference import NOTE
    from remediator.adapters.telemetry.table import table_markdown

    title, _, rest = table_markdown().partition("\n")
    return {METRICS: f"{title}\n\n{NOTE}\n{rest}"}
