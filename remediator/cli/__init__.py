"""The command line: one module per command, imported only when it is called."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Final, NoReturn

import click

from remediator import __version__
from remediator.cli import exits
from remediator.cli.exits import Stop
from remediator.errors import InputError, PermanentError, RemediatorError, TransientError

COMMANDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "adopt": "remediator.cli.people:adopt",
        "cancel": "remediator.cli.people:cancel",
        "chaos": "remediator.cli.chaos:chaos",
        "cleanup": "remediator.cli.cleanup:cleanup",
        "demo": "remediator.cli.demo:demo",
        "doctor": "remediator.cli.doctor:doctor",
        "generate": "remediator.cli.generate:generate",
        "hold": "remediator.cli.people:hold",
        "joins": "remediator.cli.joins:joins",
        "pause": "remediator.cli.people:pause",
        "plan": "remediator.cli.plan:plan",
        "playbook": "remediator.cli.playbook:playbook",
        "remediate": "remediator.cli.remediate:remediate",
        "resume": "remediator.cli.people:resume",
        "retry": "remediator.cli.remediate:retry",
        "return": "remediator.cli.remediate:return_",
        "run": "remediator.cli.run:run",
        "show": "remediator.cli.show:show_run",
        "sim": "remediator.cli.sim:sim",
        "status": "remediator.cli.status:status",
        "testbed": "remediator.cli.testbed:testbed",
        "unhold": "remediator.cli.people:unhold",
        "version": "remediator.cli.version:version",
        "why": "remediator.cli.why:why",
    }
)


class Lazy(click.Group):
    """A group whose commands are imported when they are called: `--help` stays fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command = getattr(import_module(module), name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="remediator")
def cli() -> None:
    """Keeps the pools of a GPU cluster full of healthy nodes."""


def main() -> None:
    """Run the command line and turn the program's own errors into messages and exit codes."""
    try:
        # Not standalone: click's own way out knows neither our codes nor an interrupt's 130.
        code = cli.main(prog_name=program_name(sys.argv[0]), standalone_mode=False)
    except Stop as stop:
        _fail(str(stop), stop.code)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted", exits.INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except InputError as error:
        _fail(str(error), exits.WRONG_USAGE)
    except TransientError as error:
        _fail(str(error), exits.UNREACHABLE)
    except PermanentError as error:
        refused = error.status in (None, 401, 403)
        _fail(str(error), exits.UNREACHABLE if refused else exits.RUNTIME_ERROR)
    except RemediatorError as error:
        _fail(str(error), exits.RUNTIME_ERROR)
    sys.exit(code if isinstance(code, int) else exits.OK)


def program_name(argument: str) -> str:
    """What the usage text calls us: kubectl runs plugins as ``kubectl-NAME``."""
    return "kubectl remediator" if argument.endswith("kubectl-remediator") else "remediator"


def _fail(message: str, code: int) -> NoReturn:
    click.echo(f"error: {message}", err=True)
    sys.exit(code)
