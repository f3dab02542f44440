"""What every command that talks to a cluster shares: its options, its loop, and how lines are printed."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from remediator.app.settings import Settings, own_namespace
from remediator.cli.arguments import NAME
from remediator.cli.exits import Stop

if TYPE_CHECKING:
    from remediator.adapters.kube.transport import KubeTransport
    from remediator.ports import Clock

T = TypeVar("T")

_LOUD: Final = re.compile(r"\b(NEEDS YOU \(\d+\)|STOP|LOW|Held|Blocked|Failed|NO)\b")
_TITLE: Final = re.compile(r"^ *[A-Z][A-Z0-9 #]+\b")


def connected(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a connection; it gets them as ``settings``."""

    @click.option(
        "--kubeconfig",
        type=click.Path(path_type=Path),
        help="Path; found like kubectl finds it if absent.",
    )
    @click.option("--context", help="Context of the kubeconfig.")
    @click.option(
        "--namespace",
        type=NAME,
        help="Where the controller's Lease is. Default: POD_NAMESPACE, or remediator.",
    )
    @wraps(command)
    def wrapped(
        *words: object, kubeconfig: Path | None, context: str | None, namespace: str | None, **options: object
    ) -> None:
        settings = Settings(
            kubeconfig=kubeconfig, context=context, namespace=namespace or own_namespace(os.environ)
        )
        command(*words, settings=settings, **options)

    return wrapped


@asynccontextmanager
async def open_cluster(settings: Settings) -> AsyncIterator[tuple[KubeTransport, Clock]]:
    """A connection to a server that knows our kinds, and the time; for commands that need no snapshot."""
    from remediator.adapters.clock import SystemClock
    from remediator.adapters.kube.server_clock import ServerClock
    from remediator.app.connection import open_connection
    from remediator.app.controller import require_installed

    clock = ServerClock(SystemClock())
    async with open_connection(settings, clock) as transport:
        await require_installed(transport)
        yield transport, clock


def carry_out(work: Coroutine[Any, Any, T]) -> T:
    """Run one command's work to its end. Log lines go to stderr, and only those about errors."""
    import asyncio

    from remediator.adapters.clock import SystemClock
    from remediator.adapters.telemetry.logs import configure_logs

    configure_logs("error", json=False, stream=sys.stderr, clock=SystemClock())
    try:
        return asyncio.run(_until_interrupted(work))
    except asyncio.CancelledError as error:
        raise KeyboardInterrupt from error


async def _until_interrupted(work: Coroutine[Any, Any, T]) -> T:
    """Cancel ``work`` on the first Ctrl-C; the second one ends the process at once.

    The cancelling is a callback of the loop. asyncio's own handler cancels in the middle of whatever
    callback runs, and one that was about to report an answer then logs an error with a traceback.
    """
    import asyncio

    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def interrupt() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        task.cancel()

    loop.add_signal_handler(signal.SIGINT, interrupt)
    return await work


def show(lines: Iterable[str]) -> None:
    """Print lines; on a terminal that wants it, titles and what calls for attention stand out."""
    painted = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    click.echo("\n".join(paint(line) if painted else line for line in lines))


def paint(line: str) -> str:
    """Mark up one line for a terminal. Colour never says what the words do not."""
    titled = _TITLE.sub(lambda found: click.style(found.group(), bold=True), line, count=1)
    return _LOUD.sub(lambda found: click.style(found.group(), fg="red", bold=True), titled)


def confirmed(question: str, yes: bool) -> None:
    """Go on only with ``--yes``, or with a person's yes on a terminal.

    Raises:
        Stop: neither.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise Stop(f"{question} Nothing was done: no terminal to ask on; add --yes", 2)
    # The loop does not turn while a person thinks, so its own handler would see their Ctrl-C only when
    # this is over, and cancel the tidying up. Until then it is not woken, and the question ends at once.
    handler, wakened = signal.signal(signal.SIGINT, signal.default_int_handler), signal.set_wakeup_fd(-1)
    try:
        if not click.confirm(question, err=True):
            raise Stop("nothing was done")
    except click.Abort:
        click.echo(err=True)  # the cursor stands behind the question
        raise
    finally:
        signal.signal(signal.SIGINT, handler)
        signal.set_wakeup_fd(wakened)
