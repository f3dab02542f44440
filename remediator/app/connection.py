"""Opens the connection to the API server, as the controller or as a person's command."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

from remediator.adapters.dice import draw_seed
from remediator.adapters.kube.caller import COMMAND, Caller
from remediator.adapters.kube.config import ConnectionSettings
from remediator.adapters.kube.server_clock import ServerClock
from remediator.adapters.kube.transport import KubeTransport, TransportSettings, open_transport
from remediator.app.settings import Settings


@asynccontextmanager
async def open_connection(
    settings: Settings, clock: ServerClock, caller: Caller | None = None
) -> AsyncIterator[KubeTransport]:
    """Connect to the server that the settings name.

    Args:
        settings: of this process.
        clock: for the limits of the connection; every answer tells it the server's time.
        caller: who every request says that we are; None: somebody's command.

    Raises:
        InputError, PermanentError, TransientError: it can't be done; the message names the fix.
    """
    kubeconfig = str(settings.kubeconfig) if settings.kubeconfig else None
    connection = ConnectionSettings(kubeconfig=kubeconfig, context=settings.context)
    caller = caller or Caller(COMMAND, rng=Random(draw_seed()))
    async with open_transport(TransportSettings(connection=connection), clock, caller) as transport:
        yield transport
