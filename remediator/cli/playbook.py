"""``remediator playbook``: lint, test and show files, print their schema. Works offline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from remediator.cli import exits
from remediator.model.words import how_many

if TYPE_CHECKING:
    from remediator.adapters.files.lint import Lint
    from remediator.adapters.files.loader import LoadedObject
    from remediator.app.rehearsal.rehearse import CaseResult
    from remediator.errors import Problem

_KINDS = (
    "Playbook",
    "Remediation",
    "ResourcePool",
    "RemediationPolicy",
    "ManagedNode",
    "PlaybookTest",
    "Fleet",
)
_PATHS = click.argument(
    "paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path), metavar="FILE|DIR..."
)
_OUTPUT = click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True
)


@click.group()
def playbook() -> None:
    """Work with playbook files, without a cluster."""


@playbook.command()
@_PATHS
@_OUTPUT
@click.option("--strict", is_flag=True, help="Warnings fail too.")
def lint(paths: tuple[Path, ...], output: str, strict: bool) -> None:
    """Check files: form, meaning, and what they do to each other.

    Exits with 13 if anything is wrong. Name everything that will be on the cluster together, so that
    playbooks can be compared.

    Example: remediator playbook lint playbooks/
    """
    # Imported late: `remediator --help` must not wait for a YAML reader.
    from remediator.errors import InputError

    try:
        objects = _load(paths)
    except InputError as error:
        _print_problems(error.problems, output)
        raise SystemExit(exits.CHECK_FAILED) from error
    found = _lint(objects)
    errors = sum(each.severity == "error" for each in found)
    warnings = len(found) - errors
    if output == "json":
        click.echo(json.dumps([_row(each.problem, each.severity, each.rule) for each in found], indent=2))
    else:
        for each in found:
            click.echo(str(each))
        both = f"{how_many(errors, 'error')}, {how_many(warnings, 'warning')}"
        click.echo(f"{how_many(len(objects), 'object')}: {both if found else 'nothing to say'}", err=True)
    if errors or (strict and warnings):
        raise SystemExit(exits.CHECK_FAILED)


@playbook.command()
@click.argument("kind", type=click.Choice(_KINDS, case_sensitive=False), default="Playbook")
def schema(kind: str) -> None:
    """Print the JSON Schema of one kind, for editors.

    Example: remediator playbook schema Playbook > playbook.schema.json
    """
    from remediator.adapters.files.schema import editor_schema

    click.echo(json.dumps(editor_schema(kind), indent=2))


@playbook.command()
@_PATHS
@click.option("--name", help="Only this playbook.")
def show(paths: tuple[Path, ...], name: str | None) -> None:
    """Say in plain lines what playbooks do, defaults included.

    Example: remediator playbook show playbooks/gpu-off-bus.yaml
    """
    from remediator.adapters.files.playbooks import describe
    from remediator.errors import InputError
    from remediator.model.playbook import Playbook

    try:
        objects = _load(paths)
    except InputError as error:
        _print_problems(error.problems, "text")
        raise SystemExit(exits.CHECK_FAILED) from error
    shown = [each.value for each in objects if isinstance(each.value, Playbook) and name in (None, each.name)]
    if not shown:
        raise click.ClickException(
            f"no playbook {name!r} in these files" if name else "no playbook in these files"
        )
    click.echo("\n\n".join(describe(each) for each in shown))


@playbook.command()
@_PATHS
@_OUTPUT
@click.option("--writes", is_flag=True, help="Print every write of every case, to copy into `expect`.")
def test(paths: tuple[Path, ...], output: str, writes: bool) -> None:
    """Play PlaybookTest files: the controller's own decisions, in virtual time, without a cluster.

    Exits with 13 if a file is wrong or an expectation is not met; the line that names it is printed.

    Example: remediator playbook test playbooks/tests/
    """
    from remediator.app.rehearsal.rehearse import rehearse
    from remediator.errors import InputError

    try:
        results = rehearse(paths)
    except InputError as error:
        _print_problems(error.problems, output)
        raise SystemExit(exits.CHECK_FAILED) from error
    failed = sum(not each.passed for each in results)
    if output == "json":
        click.echo(json.dumps([_case_row(each) for each in results], indent=2))
    else:
        for each in results:
            _print_case(each, writes)
        verdict = f"{failed} failed" if failed else "all as expected"
        click.echo(f"{how_many(len(results), 'case')}: {verdict}", err=True)
    if failed:
        raise SystemExit(exits.CHECK_FAILED)


def _print_case(result: CaseResult, writes: bool) -> None:
    click.echo(f"{'ok  ' if result.passed else 'FAIL'} {result.test}: {result.case}")
    for problem in result.problems:
        click.echo(f"  {problem}")
    if writes:
        for line in result.told.books.lines:
            click.echo(f'        - "{line}"')


def _case_row(result: CaseResult) -> dict[str, object]:
    return {
        "test": result.test,
        "case": result.case,
        "passed": result.passed,
        "seconds": round(result.told.elapsed_s),
        "writes": result.told.books.lines,
        "problems": [_row(each, "error", "expect") for each in result.problems],
    }


def _load(paths: tuple[Path, ...]) -> tuple[LoadedObject, ...]:
    from remediator.adapters.files.loader import load_objects

    return load_objects(paths)


def _lint(objects: tuple[LoadedObject, ...]) -> tuple[Lint, ...]:
    from remediator.adapters.files.catalogue import by_code, load_catalogue
    from remediator.adapters.files.gpufields import KNOWN_FIELDS
    from remediator.adapters.files.lint import lint as find
    from remediator.core.conditions import KNOWN

    return find(objects, xids=by_code(load_catalogue()), polarity=KNOWN, metric_fields=KNOWN_FIELDS)


def _print_problems(problems: tuple[Problem, ...], output: str) -> None:
    if output == "json":
        click.echo(json.dumps([_row(each, "error", "form") for each in problems], indent=2))
        return
    for each in problems:
        click.echo(str(each))
    click.echo(how_many(len(problems), "error"), err=True)


def _row(problem: Problem, severity: str, rule: str) -> dict[str, object]:
    return {
        "path": problem.path,
        "line": problem.line,
        "column": problem.column,
        "field": problem.field,
        "severity": severity,
        "rule": rule,
        "message": problem.message,
        "fix": problem.fix,
    }
