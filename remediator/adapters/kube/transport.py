"""The seam to one real API server: requests and watch streams over the official client's sessions.

Uses ``kubernetes.aio`` for configuration, log-in and TLS only. Never retries (but for one try
with a new token after a 401), never follows redirects, and knows no Kubernetes object.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import aiohttp
import msgspec
from kubernetes.aio.client import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from multidict import CIMultiDict
from yarl import URL

from remediator.adapters.kube.caller import Caller
from remediator.adapters.kube.config import Connection, ConnectionSettings, Target, load_connection
from remediator.adapters.kube.errors import NotSentError, describe, read_verdict
from remediator.adapters.kube.limits import Limiter, LimitSettings
from remediator.adapters.kube.server_clock import ServerClock
from remediator.adapters.kube.trust import Trust
from remediator.errors import InputError, PermanentError, Problem, TransientError
from remediator.ports import Clock, Lane, Response

ERROR_BODY_BYTES_MAX = 64 * 1024
READ_BUFFER_BYTES = 1024 * 1024
IDENTITY_PATH = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
# Idle connections are closed by us before servers and load balancers (60 s and up) do it, so
# that a write is not sent into a connection that the other side is just closing.
IDLE_CONNECTION_S = 30.0
# A peer that vanished without a word is noticed after 30 + 3 x 10 s.
KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
CLOSE_ROUNDS_MAX = 20  # turns of the loop for cut connections to notice
_NO_TIMEOUT = aiohttp.ClientTimeout(total=None)


@dataclass(frozen=True, slots=True)
class TransportSettings:
    """Bounds of one connection.

    ``body_bytes_max`` is after decompression; a page of 500 nodes of 50 KB is 25 MB.
    ``connections`` is the pool of each lane; ``watches_max`` bounds open streams.
    """

    connection: ConnectionSettings = field(default_factory=ConnectionSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    body_bytes_max: int = 64 * 1024 * 1024
    line_bytes_max: int = 8 * 1024 * 1024
    identity_timeout_s: float = 10.0
    connections: Mapping[Lane, int] = field(
        default_factory=lambda: {Lane.LEASE: 4, Lane.URGENT: 64, Lane.NORMAL: 32, Lane.BULK: 16}
    )
    watches_max: int = 1024


class _Sessions(RESTClientObject):
    """The client's sessions with our connector; both factories are its documented override points."""

    def __init__(self, configuration: Configuration) -> None:
        super().__init__(configuration)
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def open(self, connections: int) -> aiohttp.ClientSession:
        self.maxsize = connections
        session = self._create_pool_manager()
        # IMPORTANT: aiohttp sends a PUT or DELETE a second time when a reused connection breaks.
        # If the first one was committed, the second answers 409 and an applied write would be
        # reported as refused. It has no public switch; the contract tests count the requests.
        session._retry_connection = False
        return session

    def _create_connector(self) -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(
            limit=self.maxsize,
            keepalive_timeout=IDLE_CONNECTION_S,
            socket_factory=self._socket,
        )

    def _socket(self, address: Any) -> socket.socket:
        family, kind, protocol, _, _ = address
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE.items():
            if (option := getattr(socket, name, None)) is not None:  # not on every platform
                made.setsockopt(socket.IPPROTO_TCP, option, value)
        self._sockets.add(made)
        return made

    def break_off(self) -> bool:
        """Cut every connection that is still there. Return whether there was one.

        After a time-out aiohttp closes a TLS connection politely, and asyncio waits up to half a
        minute for a server that hangs to say goodbye; at our own end nobody waits for that.
        """
        left = [each for each in self._sockets if each.fileno() != -1]
        for each in left:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        return bool(left)


class KubeTransport:
    """``ports.Transport`` to a real API server. Built by ``open_transport`` only."""

    def __init__(
        self, connection: Connection, *, settings: TransportSettings, clock: ServerClock, caller: Caller
    ) -> None:
        self._target = connection.target
        self._credentials = connection.credentials
        self._configuration = connection.configuration
        self._settings = settings
        self._limiter = Limiter(settings.limits, clock=clock)
        self._base = str(connection.configuration.host).rstrip("/")
        self._clock = clock
        self._caller = caller
        self._sessions, self._trust = _open_tls(connection, clock)
        # One pool per lane and one for watches: a lease renewal or a quarantine never waits for
        # a connection that a list or a watch holds.
        self._pools = {lane: self._sessions.open(size) for lane, size in settings.connections.items()}
        self._watches = self._sessions.open(settings.watches_max)

    def describe(self) -> Target:
        """Say which server this is and how we log in. Holds no secret."""
        return self._target

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float,
        lane: Lane,
    ) -> Response:
        """Send one request; see ``ports.Transport``. ``timeout_s`` includes waiting for a turn.

        Raises:
            NotSentError: a ``TransientError`` where the server certainly saw nothing.
        """
        what = f"{method} {path}"
        queued = True
        try:
            async with asyncio.timeout(timeout_s):
                await self._limiter.acquire(lane)
                queued = False
                return await self._exchange(self._pools[lane], method, path, query, headers, body)
        except TimeoutError as error:
            if queued:
                raise NotSentError(f"{what}: no turn within {timeout_s:g} s ({lane.value} lane)") from error
            raise TransientError(f"{what}: no complete reply within {timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._translate(error, what) from error

    async def _exchange(
        self,
        pool: aiohttp.ClientSession,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
        body: bytes | None,
    ) -> Response:
        renewed = False
        # Drawn once: both tries are one request, of which the server processed one at most.
        asked = self._introduced(headers)
        while True:
            sent = self._clock.monotonic()
            reply = await self._send(pool, method, path, query, asked, body)
            self._clock.hear(reply.headers.get("Date", ""), sent, self._clock.monotonic())
            content = await _read_body(reply, self._settings.body_bytes_max, f"{method} {path}")
            if reply.status != 401 or renewed or not await self._credentials.renew():
                return Response(reply.status, _lower(reply), content)
            # A 401 comes before any processing, so this is the one write that may be repeated.
            renewed = True

    def _introduced(self, headers: Mapping[str, str] | None) -> CIMultiDict[str]:
        """Add who asks; what the request itself says of that counts more."""
        introduced = CIMultiDict(self._caller.headers())
        introduced.update(headers or {})
        return introduced

    async def _send(
        self,
        pool: aiohttp.ClientSession,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        headers: Mapping[str, str],
        body: bytes | None = None,
        timeout: aiohttp.ClientTimeout = _NO_TIMEOUT,
    ) -> aiohttp.ClientResponse:
        # gzip would cost more CPU here than it saves on any link above 3 Gbit/s.
        merged = CIMultiDict({"Accept": "application/json", "Accept-Encoding": "identity"})
        if body is not None:
            merged["Content-Type"] = "application/json"
        merged.update(headers)
        if (authorization := await self._credentials.authorization()) is not None:
            merged["Authorization"] = authorization
        text = f"{self._base}{path}" + (f"?{urlencode(query)}" if query else "")
        url = URL(text, encoded=True)

        async def send(trusted: ssl.SSLContext) -> aiohttp.ClientResponse:
            return await pool.request(
                method,
                url,
                data=body,
                headers=merged,
                timeout=timeout,
                allow_redirects=False,
                proxy=self._configuration.proxy,
                proxy_headers=self._configuration.proxy_headers,
                server_hostname=self._configuration.tls_server_name,
                ssl=trusted,
            )

        trusted = self._trust.context()
        try:
            return await send(trusted)
        except aiohttp.ClientConnectorCertificateError:
            # Nothing was sent. The authority may have been replaced, and its file with it; another
            # request may have read it already.
            if not self._trust.renew() and self._trust.context() is trusted:
                raise
            return await send(self._trust.context())

    async def stream(
        self,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        connect_timeout_s: float,
        idle_timeout_s: float,
    ) -> AsyncGenerator[bytes, None]:
        """Yield the lines of a watch; see ``ports.Transport``. Close it with ``aclosing``.

        Lines are raw bytes, empty ones are left out, and one longer than ``line_bytes_max`` or
        cut off by the end of the body is a ``TransientError``. Passes no rate limit.
        """
        what = f"WATCH {path}"
        idle = aiohttp.ClientTimeout(total=None, sock_read=idle_timeout_s)
        try:
            async with asyncio.timeout(connect_timeout_s):
                reply = await self._open_stream(path, query, headers, idle, what)
        except TimeoutError as error:
            raise TransientError(f"{what}: no answer within {connect_timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._translate(error, what) from error
        try:
            async with aclosing(_lines(reply.content, self._settings.line_bytes_max, what)) as lines:
                async for line in lines:
                    yield line
        except TimeoutError as error:
            raise TransientError(f"{what}: silent for {idle_timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._translate(error, what) from error
        finally:
            _drop(reply)

    async def _open_stream(
        self,
        path: str,
        query: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
        idle: aiohttp.ClientTimeout,
        what: str,
    ) -> aiohttp.ClientResponse:
        """Return a reply with status 200 whose body was not read yet."""
        renewed = False
        asked = self._introduced(headers)
        while True:
            reply = await self._send(self._watches, "GET", path, query, asked, timeout=idle)
            if reply.status == 200:
                return reply
            body = await _read_body(reply, ERROR_BODY_BYTES_MAX, what)
            if reply.status == 401 and not renewed and await self._credentials.renew():
                renewed = True
                continue
            verdict = read_verdict(Response(reply.status, _lower(reply), body))
            if reply.status == 429 or reply.status >= 500:
                raise TransientError(describe(verdict, what), retry_after_s=verdict.retry_after_s)
            raise PermanentError(describe(verdict, what), status=reply.status)

    async def check_identity(self) -> str:
        """Ask the server who we are and return the user name, or "" where it does not say.

        Raises:
            TransientError: the server is away or not ready.
            PermanentError: it does not verify, or takes us for nobody.
        """
        body = b'{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}'
        reply = await self.request(
            "POST", IDENTITY_PATH, body=body, timeout_s=self._settings.identity_timeout_s, lane=Lane.URGENT
        )
        what = f"{self._target.server} as {self._target.auth} from {self._target.source}"
        if reply.status == 401:
            raise PermanentError(describe(read_verdict(reply), what), status=401)
        if reply.status == 429 or reply.status >= 500:
            raise TransientError(describe(read_verdict(reply), what))
        user = _user_name(reply.body) if reply.status == 201 else ""
        if user == "system:anonymous":
            fix = "the server did not see our credentials; check the user of the context"
            raise PermanentError(f"{what}: we are system:anonymous ({fix})", status=401)
        return user

    def _translate(self, error: Exception, what: str) -> TransientError | PermanentError:
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            reason = getattr(error.certificate_error, "verify_message", "") or error.certificate_error
            authority = self._configuration.ssl_ca_cert or "the system's certificates"
            return PermanentError(
                f"{self._target.server}: its certificate does not verify against {authority}: {reason} "
                f"(correct certificate-authority or the server's name in {self._target.source})"
            )
        text = f"{what}: {self._target.server}: {str(error) or type(error).__name__}"
        if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
            return NotSentError(text)
        return TransientError(text)

    async def close(self) -> None:
        """End waits and close all connections. Idempotent."""
        await self._limiter.close()
        for session in (*self._pools.values(), self._watches):
            await session.close()
        for _ in range(CLOSE_ROUNDS_MAX):
            if not self._sessions.break_off():
                return
            await self._clock.sleep(0)


@asynccontextmanager
async def open_transport(
    settings: TransportSettings, clock: ServerClock, caller: Caller
) -> AsyncIterator[KubeTransport]:
    """Read the configuration, connect, prove who we are, and close everything at the end.

    Every request says what ``caller`` says of itself, the first one too, and every answer tells
    ``clock`` the server's time: once this yields, the clock is the server's.

    Raises:
        InputError: a kubeconfig or a file it names is missing or wrong.
        TransientError: the server, or the log-in, is away; try again.
        PermanentError: the certificate does not verify, or the credentials are not accepted.
    """
    connection = await load_connection(settings.connection, clock=clock)
    transport = KubeTransport(connection, settings=settings, clock=clock, caller=caller)
    try:
        await transport.check_identity()
        yield transport
    finally:
        await transport.close()


def _open_tls(connection: Connection, clock: Clock) -> tuple[_Sessions, Trust]:
    configuration = connection.configuration
    # trust_env makes aiohttp read netrc and proxy settings at every request: three times the cost.
    configuration.client_session_kwargs = {
        "trust_env": False,
        "read_bufsize": READ_BUFFER_BYTES,
        "cookie_jar": aiohttp.DummyCookieJar(),
    }
    try:
        made = _Sessions(configuration)
        return made, Trust(configuration, lambda: RESTClientObject(configuration).ssl_context, clock=clock)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        files = ", ".join(
            str(name)
            for name in (configuration.ssl_ca_cert, configuration.cert_file, configuration.key_file)
            if name
        )
        reason = error.reason if isinstance(error, ssl.SSLError) and error.reason else error
        message = f"TLS files {files}: {reason}"
        fix = "they must be PEM, readable, and certificate and key must belong together"
        raise InputError((Problem(connection.target.source, 0, 0, "", message, fix),)) from error


def _lower(reply: aiohttp.ClientResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in reply.headers.items()}


async def _read_body(reply: aiohttp.ClientResponse, bytes_max: int, what: str) -> bytes:
    """Read the whole body; the connection goes back to its pool, or is broken off on any error."""
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in reply.content.iter_any():
            size += len(chunk)
            if size > bytes_max:
                raise TransientError(f"{what}: reply of HTTP {reply.status} is larger than {bytes_max} bytes")
            chunks.append(chunk)
    finally:
        _drop(reply)
    return b"".join(chunks)


def _drop(reply: aiohttp.ClientResponse) -> None:
    """Break off a connection whose body was not read to the end; does nothing to another one."""
    # A TLS goodbye would keep the socket open until the server answers it, up to half a minute.
    connection = reply.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()
    reply.close()


async def _lines(content: aiohttp.StreamReader, bytes_max: int, what: str) -> AsyncGenerator[bytes, None]:
    """Split on newlines; holds at most one line and the reader's own bounded buffer."""
    pending: list[bytes] = []
    size = 0
    async for chunk in content.iter_any():
        *complete, rest = chunk.split(b"\n")
        for line in complete:
            whole = b"".join((*pending, line)) if pending else line
            pending.clear()
            size = 0
            if len(whole) > bytes_max:
                raise TransientError(f"{what}: a line is longer than {bytes_max} bytes")
            if whole:
                yield whole
        if rest:
            pending.append(rest)
            size += len(rest)
        if size > bytes_max:
            raise TransientError(f"{what}: a line is longer than {bytes_max} bytes")
    if pending:
        raise TransientError(f"{what}: ended in the middle of a line, after {size} bytes of it")


class _User(msgspec.Struct, frozen=True):
    username: str = ""


class _ReviewStatus(msgspec.Struct, frozen=True, rename="camel"):
    user_info: _User = _User()


class _Review(msgspec.Struct, frozen=True):
    status: _ReviewStatus = _ReviewStatus()


def _user_name(body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=_Review).status.user_info.username
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
