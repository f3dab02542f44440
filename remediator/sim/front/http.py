"""A simulated server behind a socket: each HTTP request becomes one of the simulation's own.

Plain HTTP on loopback. kubectl sends no token over it, so the first part of a path is the key that says who
asks: ``http://127.0.0.1:PORT/KEY`` is the server of one user.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import aclosing
from email.utils import format_datetime
from functools import partial
from typing import Final, Self

import msgspec
from aiohttp import web

from remediator.errors import ContractError, PageError, PermanentError
from remediator.ports import Clock
from remediator.sim.front import core_events, openapi
from remediator.sim.front.tables import as_table, as_table_event, wants_table
from remediator.sim.kinds import Kind
from remediator.sim.refusal import Json, Refused, unknown_path
from remediator.sim.request import Request, User, find_route
from remediator.sim.server import Server
from remediator.sim.world.exporters import SimPages

BODY_BYTES_MAX: Final = 3 << 20  # as the real server's
PAGE_BYTES_MAX: Final = 16 << 20
PAGE_S_MAX: Final = 60.0
IDLE_S: Final = 75.0
SHUTDOWN_S: Final = 1.0
HOST: Final = "127.0.0.1"
PAGES: Final = "/exporters/{node}/metrics"
JSON: Final = "application/json"

_encode = msgspec.json.encode
_decode = msgspec.json.decode
_Form = Callable[[bytes], bytes]


class Front:
    """Serves one simulated server.

    Args:
        server: that answers.
        clock: of the simulation, for ages.
        users: by the key that their paths begin with.
        pages: the exporters' pages, which are served under ``PAGES``.
        posts: what else may be posted where, by whoever has a key; a ValueError is a 400.
        speed: how much faster the loop's time passes than ours.
    """

    def __init__(
        self,
        server: Server,
        *,
        clock: Clock,
        users: Mapping[str, User],
        pages: SimPages,
        posts: Mapping[str, Callable[[bytes], Json]],
        speed: float = 1.0,
    ) -> None:
        self._server = server
        self._clock = clock
        self._users = users
        self._pages = pages
        self._posts = posts
        self._speed = speed
        self._runner: web.AppRunner | None = None

    async def start(self, port: int = 0) -> None:
        """Listen on loopback; 0 lets the system choose.

        Raises:
            PermanentError: the port is taken.
        """
        application = web.Application(client_max_size=BODY_BYTES_MAX)
        application.router.add_get(PAGES, self._page)
        application.router.add_route("*", "/{key}{path:/.*}", self._answer)
        self._runner = web.AppRunner(
            application,
            access_log=None,
            handler_cancellation=True,  # a watch whose client has gone must not wait for the next change
            # Times of the loop, which passes faster than the client's.
            keepalive_timeout=IDLE_S * self._speed,
            shutdown_timeout=SHUTDOWN_S * self._speed,
        )
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, HOST, port).start()
        except OSError as error:
            await self.close()
            raise PermanentError(f"port {port} of {HOST}: {error.strerror}; choose another one") from error

    @property
    def url(self) -> str:
        """
        Raises:
            ContractError: it does not listen.
        """
        if self._runner is None or not self._runner.addresses:
            raise ContractError("the simulated server has no address before its start")
        return f"http://{HOST}:{self._runner.addresses[0][1]}"

    async def close(self) -> None:
        """Stop listening, and end every connection."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # -- one request

    async def _answer(self, http: web.Request) -> web.StreamResponse:
        try:
            user, path = self._users.get(http.match_info["key"]), http.match_info["path"]
            if user is None:
                raise Refused(401, "Unauthorized", "Unauthorized")
            if http.method == "POST" and path in self._posts:
                return _json(200, _encode(self._posts[path](await http.read())))
            if http.method == "GET" and path.startswith(openapi.ROOT):
                return self._openapi(path)
            return await self._resource(http, user, path)
        except Refused as refused:
            return _json(refused.code, _encode(refused.status()))
        except ValueError as error:
            return _json(400, _encode(Refused(400, "BadRequest", str(error)).status()))

    def _openapi(self, path: str) -> web.Response:
        found = openapi.document(path, self._server.kinds)
        if found is None:
            raise unknown_path()
        return _json(200, _encode(found))

    async def _resource(self, http: web.Request, user: User, path: str) -> web.StreamResponse:
        if "protobuf" in http.content_type:
            raise Refused(415, "UnsupportedMediaType", f"{http.content_type} is not understood; send {JSON}")
        query = dict(http.query)
        kept = core_events.where_kept(path, query) if http.method == "GET" else None
        path, query = kept if kept is not None else (path, query)
        asked = Request(
            user=user,
            method=http.method,
            path=path,
            query=query,
            headers={name.lower(): value for name, value in http.headers.items()},
            body=await http.read(),
        )
        whole, line = self._forms(asked, core=kept is not None)
        if _is_watch(asked):
            return await self._watch(http, asked, line)
        answer = self._server.handle(asked)
        body = whole(answer.body) if answer.code < 300 else answer.body
        # A client that reckons by the server's time, as ours does, is right at any speed.
        date = format_datetime(self._clock.now(), usegmt=True)
        return _json(answer.code, body, {**answer.headers, "Date": date})

    def _forms(self, asked: Request, *, core: bool) -> tuple[_Form, _Form]:
        """What becomes of an answer's body, and of a line of a watch."""
        kind = self._table_of(asked)
        if kind is not None:
            now, include = self._clock.now, asked.query.get("includeObject", "Metadata")
            return (
                lambda body: as_table(kind, body, now(), include=include),
                lambda line: as_table_event(kind, line, now(), include=include),
            )
        if core:
            return core_events.core_body, core_events.core_line
        return partial(_with_core_events, asked.path), _as_it_is

    def _table_of(self, asked: Request) -> Kind | None:
        """The kind that is to be shown as a table; None where objects are."""
        if asked.method != "GET" or not wants_table(asked.headers.get("accept", "")):
            return None
        try:
            return find_route(asked, self._server.kind).kind
        except Refused:
            return None  # of the server itself, or nothing: it says so

    async def _watch(self, http: web.Request, asked: Request, form: _Form) -> web.StreamResponse:
        watch = self._server.watch(asked)
        reply = web.StreamResponse(headers={"Content-Type": JSON})
        try:
            await reply.prepare(http)
            async with aclosing(watch.batches()) as batches:
                async for lines in batches:
                    await reply.write(b"".join(form(line) + b"\n" for line in lines))
        except ConnectionError:
            pass  # the client has seen enough
        finally:
            watch.close()
        return reply

    async def _page(self, http: web.Request) -> web.Response:
        url = self._pages.address.format(node=http.match_info["node"])
        try:
            body = await self._pages.fetch(url, timeout_s=PAGE_S_MAX * self._speed, bytes_max=PAGE_BYTES_MAX)
        except PageError as error:
            return web.Response(status=503, text=f"{error}\n")
        except PermanentError as error:
            return web.Response(status=404, text=f"{error}\n")
        return web.Response(body=body, content_type="text/plain")


def _is_watch(asked: Request) -> bool:
    return asked.method == "GET" and asked.query.get("watch") in ("1", "true")


def _as_it_is(body: bytes) -> bytes:
    return body


def _with_core_events(path: str, body: bytes) -> bytes:
    """Discovery of core/v1 with the events that are kept elsewhere; anything else as it is."""
    if path != "/api/v1":
        return body
    listed = _decode(body)
    return _encode({**listed, "resources": [*listed["resources"], core_events.LISTED]})


def _json(code: int, body: bytes, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(status=code, body=body, content_type=JSON, headers=headers)
