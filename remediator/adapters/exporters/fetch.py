"""Fetches metrics pages over HTTP. Bounded in time and size; says nothing about what they hold."""

from __future__ import annotations

import asyncio
import ssl
from typing import Final, Self

import aiohttp

from remediator.errors import PageError

_CHUNK_BYTES: Final = 256 * 1024
_HEADERS: Final = {
    "Accept": "text/plain;version=0.0.4;q=1,*/*;q=0.1",
    # Unpacking costs more than the wire saves, and a packed page has no size that can be bounded early.
    "Accept-Encoding": "identity",
}


class HttpPages:
    """``ports.Pages`` over one aiohttp session. Use as an async context manager, or call ``close``.

    Proxy settings and ``.netrc`` of the environment are ignored: exporters are cluster addresses.

    Args:
        connections_max: fetches in flight at once; more wait, and their time-out runs meanwhile.
        keepalive_s: how long an idle connection is kept; longer than the scrape period, or 0 to
            close each one (ten thousand targets need as many file descriptors otherwise).
        user_agent: value of the header.
        tls: for https addresses whose certificates the system's store does not know.
    """

    def __init__(
        self, *, connections_max: int, keepalive_s: float, user_agent: str, tls: ssl.SSLContext | None = None
    ) -> None:
        self._connections_max = connections_max
        self._keepalive_s = keepalive_s
        self._headers = {**_HEADERS, "User-Agent": user_agent}
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._open()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def fetch(self, url: str, *, timeout_s: float, bytes_max: int) -> bytes:
        """Return the page, whole: what would be cut off may be the GPU that matters.

        ``timeout_s`` covers all: the wait for a connection, the connect, the headers, the last
        byte. A server that sends one byte a second gains nothing by it.

        Raises:
            PageError: time-out, refused, reset, a bad address, any status but 200, or more than
                ``bytes_max`` bytes.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._fetch(url, bytes_max)
        except TimeoutError as error:
            raise PageError("TimedOut", f"{url}: no complete page within {timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            text = str(error) or type(error).__name__
            raise PageError("Unreachable", f"{url}: {text[:256]}") from error

    async def _fetch(self, url: str, bytes_max: int) -> bytes:
        async with self._open().get(url, allow_redirects=False) as response:
            if response.status != 200:
                where = response.headers.get("Location", "")[:128]
                said = f"HTTP {response.status}{where and f' to {where} (not followed)'}"
                raise PageError("HttpStatus", f"{url}: {said}")
            encoding = response.headers.get("Content-Encoding", "identity")
            if encoding.lower() != "identity":
                said = f"Content-Encoding {encoding[:32]!r}; only identity is asked for"
                raise PageError("NotMetrics", f"{url}: {said}")
            parts: list[bytes] = []
            size = 0
            async for part in response.content.iter_any():
                parts.append(part)
                size += len(part)
                if size > bytes_max:
                    response.close()  # the rest may never end
                    raise PageError("TooLarge", f"{url}: page of more than {bytes_max} bytes")
            return b"".join(parts)

    def _open(self) -> aiohttp.ClientSession:
        # IMPORTANT: made here and not in the constructor, because a session belongs to the loop
        # that runs when it is made.
        if self._session is None:
            keeps = self._keepalive_s > 0
            connector = aiohttp.TCPConnector(
                limit=self._connections_max,
                keepalive_timeout=self._keepalive_s if keeps else None,
                force_close=not keeps,
                ssl=self._tls if self._tls is not None else True,
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                headers=self._headers,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
                auto_decompress=False,
                trust_env=False,
                read_bufsize=_CHUNK_BYTES,
            )
        return self._session
