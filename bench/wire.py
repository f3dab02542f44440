"""The least that can talk to an API server: one aiohttp session, bytes in and out.

Used by the harness and by the bare baseline, so that neither shares a line with the product.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import aiohttp

from remediator.errors import PermanentError
from remediator.testbed import kubeconfig
from remediator.testbed.health import context

MERGE_PATCH: Final = "application/merge-patch+json"
STRATEGIC_PATCH: Final = "application/strategic-merge-patch+json"
TIMEOUT_S: Final = 10.0
LINE_BYTES_MAX: Final = 4 << 20


class RawApi:
    """One identity at one API server. An async context manager."""

    def __init__(self, path: Path) -> None:
        access = kubeconfig.read(path)
        trust = context(access.authority)
        if access.pair:
            access.pair.load_into(trust)
        self._server = access.server
        self._trust = trust
        self._headers = {"Accept": "application/json", "User-Agent": "bench"}
        if access.token:
            self._headers["Authorization"] = f"Bearer {access.token}"
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._trust, keepalive_timeout=60),
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            read_bufsize=LINE_BYTES_MAX,
            trust_env=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        assert self._session is not None, "enter it first"
        return self._session

    async def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        content_type: str = "application/json",
        audit_id: str = "",
    ) -> bytes:
        """Send one request and return the body of a good answer.

        Raises:
            PermanentError: any other answer, with its status.
        """
        headers = {"Content-Type": content_type} if body is not None else {}
        if audit_id:
            headers["Audit-ID"] = audit_id
        async with self.session.request(method, self._server + path, data=body, headers=headers) as response:
            content = await response.read()
        if response.status >= 300:
            text = content[:512].decode(errors="replace")
            raise PermanentError(f"{method} {path}: {response.status} {text}", status=response.status)
        return content

    async def watch(self, path: str) -> AsyncIterator[bytes]:
        """Yield the lines of a watch until the server ends it."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT_S)
        async with self.session.get(self._server + path, timeout=timeout) as response:
            if response.status != 200:
                raise PermanentError(f"GET {path}: {response.status}")
            async for line in response.content:
                yield line
