"""The certificate that our own port shows, read again when its files have been exchanged."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

from remediator.errors import PermanentError
from remediator.ports import Clock

CERTIFICATE: Final = "tls.crt"  # the names that a Secret of type kubernetes.io/tls has
KEY: Final = "tls.key"
REREAD_S: Final = 60.0


class ServingCertificate:
    """A server's TLS context over ``tls.crt`` and ``tls.key`` of one directory.

    Args:
        directory: where the two files are; a mounted Secret.
        clock: for how often they are looked at.

    Raises:
        PermanentError: they can't be used; the message names the directory and both files.
    """

    def __init__(self, directory: Path, *, clock: Clock) -> None:
        self._files = (directory / CERTIFICATE, directory / KEY)
        self._clock = clock
        self._looked_at = clock.monotonic()
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            self._stamp = self._times()
            self.context.load_cert_chain(*self._files)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise PermanentError(
                f"{directory}: no usable {CERTIFICATE} and {KEY} ({error}): mount a Secret of type "
                "kubernetes.io/tls there"
            ) from error

    def refresh(self) -> None:
        """Take exchanged files over for new connections, once a minute. Half of a pair changes nothing."""
        if self._clock.monotonic() - self._looked_at < REREAD_S:
            return
        self._looked_at = self._clock.monotonic()
        try:
            found = self._times()
            if found != self._stamp:
                self.context.load_cert_chain(*self._files)
                self._stamp = found
        except (OSError, ValueError):
            return  # what was good is good until it ends

    def _times(self) -> tuple[tuple[int, int], ...]:
        found = (path.stat() for path in self._files)
        return tuple((each.st_mtime_ns, each.st_ino) for each in found)
