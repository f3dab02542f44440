"""Whom we believe to be the API server: a TLS context that follows the files it is made of.

Knows certificate files and contexts. Sends nothing, and decides nothing about a reply.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from kubernetes.aio.client import Configuration

from remediator.ports import Clock

REREAD_S: Final = 60.0
BYTES_MAX: Final = 1024 * 1024  # of one file; a bundle of every public authority has a quarter of it


class Trust:
    """The TLS context for new connections, made anew once a file behind it has changed.

    Connections that are open keep the one that they began with, and close when they idle or break.
    Files that can't be used, half written perhaps, change nothing: what was good may be good still.

    Args:
        make: builds a context from the configuration's files; raises OSError or ValueError.
        reread_s: how often the files are looked at while all goes well.
    """

    def __init__(
        self,
        configuration: Configuration,
        make: Callable[[], ssl.SSLContext],
        *,
        clock: Clock,
        reread_s: float = REREAD_S,
    ) -> None:
        named = (configuration.ssl_ca_cert, configuration.cert_file, configuration.key_file)
        self._paths = tuple(Path(name) for name in named if name)
        self._make = make
        self._clock = clock
        self._reread_s = reread_s
        self._read = self._content()
        self._context = make()
        self._read_at = clock.monotonic()

    def context(self) -> ssl.SSLContext:
        """The context for a connection that is opened now."""
        if self._clock.monotonic() - self._read_at >= self._reread_s:
            self.renew()
        return self._context

    def renew(self) -> bool:
        """Look at the files again, as where nothing verifies any more. Return whether they changed."""
        self._read_at = self._clock.monotonic()
        with suppress(OSError, ValueError):  # ssl.SSLError is an OSError
            found = self._content()
            if found != self._read:
                self._context = self._make()
                self._read = found
                return True
        return False

    def _content(self) -> tuple[bytes, ...]:
        found = []
        for path in self._paths:
            with path.open("rb") as file:
                found.append(file.read(BYTES_MAX))
        return tuple(found)
