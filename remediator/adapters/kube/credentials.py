"""Where the ``Authorization`` header comes from, and how it is renewed.

Knows tokens, token files and exec plugins. Sends nothing to the API server.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

import msgspec

from remediator.adapters.kube.errors import NotSentError
from remediator.errors import PermanentError
from remediator.ports import Clock

TOKEN_BYTES_MAX = 64 * 1024
TOKEN_REREAD_S = 60.0
PLUGIN_BYTES_MAX = 1024 * 1024
PLUGIN_EARLY_S = 60.0  # run the plugin again this long before its token expires
PLUGIN_PAUSE_S = 10.0  # and never more often than this, whatever the server says


class Credentials(Protocol):
    """One source of the ``Authorization`` header."""

    async def authorization(self) -> str | None:
        """Return the header's value, or None where TLS alone, or nothing, proves who we are."""

    async def renew(self) -> bool:
        """Read the source again after a 401. Return whether the value changed."""


class FixedCredentials:
    """A value that never changes: a token written in the kubeconfig, a password, or none."""

    def __init__(self, value: str | None) -> None:
        self._value = value

    async def authorization(self) -> str | None:
        return self._value

    async def renew(self) -> bool:
        return False


class TokenFile:
    """A token in a file that somebody else rotates, such as a projected service account token."""

    def __init__(self, path: Path, *, clock: Clock, reread_s: float = TOKEN_REREAD_S) -> None:
        self._path = path
        self._clock = clock
        self._reread_s = reread_s
        self._token = self._read()
        self._read_at = clock.monotonic()

    async def authorization(self) -> str | None:
        if self._clock.monotonic() - self._read_at >= self._reread_s:
            await self.renew()
        return f"Bearer {self._token}"

    async def renew(self) -> bool:
        before = self._token
        self._read_at = self._clock.monotonic()
        # A file that is gone for a moment must not take away a token that may still be good.
        with suppress(PermanentError):
            self._token = self._read()
        return self._token != before

    def _read(self) -> str:
        try:
            with self._path.open("rb") as file:
                token = file.read(TOKEN_BYTES_MAX).decode("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            fix = "check the volume and its mode"
            raise PermanentError(f"token file {self._path}: {error} ({fix})") from error
        if not token:
            raise PermanentError(f"token file {self._path}: empty (check who writes it)")
        return token


class ExecStatus(msgspec.Struct, frozen=True, rename="camel"):
    """``status`` of an ``ExecCredential``."""

    token: str | None = None
    client_certificate_data: str | None = None
    client_key_data: str | None = None
    expiration_timestamp: datetime | None = None


class ExecCredential(msgspec.Struct, frozen=True, rename="camel"):
    """The reply of an exec plugin, as far as we read it."""

    api_version: str
    status: ExecStatus


@dataclass(frozen=True, slots=True)
class Plugin:
    """How to run one exec plugin. ``environment`` is complete, not an addition."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    api_version: str
    timeout_s: float

    async def run(self) -> ExecStatus:
        """Run it once.

        Raises:
            NotSentError: it failed, ended with another code than 0, took longer than
                ``timeout_s`` or wrote no valid reply; it may work later.
            PermanentError: it is not installed, or speaks another version.
        """
        name = self.argv[0]
        try:
            transport, output = await asyncio.get_running_loop().subprocess_exec(
                _Output,
                *self.argv,
                env=dict(self.environment),
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,  # so that its children can be ended with it
            )
        except OSError as error:
            fix = "install it or correct users[].user.exec"
            raise PermanentError(f"exec plugin {name}: {error} ({fix})") from error
        try:
            async with asyncio.timeout(self.timeout_s):
                await output.complete.wait()
        except TimeoutError as error:
            raise NotSentError(f"exec plugin {name}: no answer within {self.timeout_s:g} s") from error
        finally:
            if transport.get_returncode() is None:
                with suppress(ProcessLookupError):
                    os.killpg(transport.get_pid(), signal.SIGKILL)
                await output.exited.wait()
            transport.close()
        if (code := transport.get_returncode()) != 0:
            raise NotSentError(f"exec plugin {name}: exit code {code}: {_one_line(output.stderr)}")
        return self._parse(output.stdout)

    def _parse(self, stdout: bytes) -> ExecStatus:
        name = self.argv[0]
        try:
            credential = msgspec.json.decode(stdout, type=ExecCredential)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise NotSentError(f"exec plugin {name}: not an ExecCredential: {error}") from error
        if credential.api_version != self.api_version:
            spoken, wanted = credential.api_version, self.api_version
            raise PermanentError(f"exec plugin {name}: answers {spoken}, the kubeconfig says {wanted}")
        return credential.status


class _Output(asyncio.SubprocessProtocol):
    """Reads both pipes at once, since a plugin that fills stderr first would block for ever.

    Keeps ``PLUGIN_BYTES_MAX`` of each and drops the rest.
    """

    def __init__(self) -> None:
        self._kept = {1: bytearray(), 2: bytearray()}
        self.exited = asyncio.Event()
        self.complete = asyncio.Event()

    @property
    def stdout(self) -> bytes:
        return bytes(self._kept[1])

    @property
    def stderr(self) -> bytes:
        return bytes(self._kept[2])

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        kept = self._kept[fd]
        kept += data[: max(0, PLUGIN_BYTES_MAX - len(kept))]

    def process_exited(self) -> None:
        self.exited.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # the base class names it
        self.complete.set()  # ended, and both pipes read to their end


def _one_line(text: bytes) -> str:
    return " ".join(text.decode("utf-8", "replace").split())[:300] or "nothing on stderr"


class ExecToken:
    """A token from an exec plugin, renewed shortly before it expires and after a 401."""

    def __init__(self, plugin: Plugin, *, clock: Clock, first: ExecStatus) -> None:
        self._plugin = plugin
        self._clock = clock
        self._status = first
        self._ran_at = clock.monotonic()
        self._lock = asyncio.Lock()

    async def authorization(self) -> str | None:
        expires = self._status.expiration_timestamp
        if expires is not None and self._clock.now() >= expires - timedelta(seconds=PLUGIN_EARLY_S):
            await self.renew()
        return f"Bearer {self._status.token}"

    async def renew(self) -> bool:
        before = self._status.token
        async with self._lock:
            if self._status.token != before:
                return True  # another request ran it while we waited
            if self._clock.monotonic() - self._ran_at < PLUGIN_PAUSE_S:
                return False
            self._ran_at = self._clock.monotonic()
            # The old token may still be good for a minute; if it is not, the server says so.
            with suppress(NotSentError):
                self._status = await self._plugin.run()
        return self._status.token != before
