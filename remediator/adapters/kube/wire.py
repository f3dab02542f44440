"""Reads list pages and watch lines of any kind into changes, bookmarks and server errors.

Knows JSON and ``metadata`` only; what is kept of an object is its decoder's business. One odd
object never stops the others: it becomes a change without a view.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final, Generic, Literal, Protocol, TypeVar, cast

import msgspec
from msgspec import Raw, Struct

from remediator.errors import TransientError

INITIAL_EVENTS_END: Final = "k8s.io/initial-events-end"
PROBLEM_CHARS_MAX: Final = 256

W = TypeVar("W")
T = TypeVar("T")

ChangeType = Literal["ADDED", "MODIFIED", "DELETED"]
_CHANGES: Final = frozenset(("ADDED", "MODIFIED", "DELETED"))


class GarbledError(TransientError):
    """Bytes that are no valid answer: broken JSON, invalid UTF-8, an object without a name."""


class Change(Struct, Generic[T], frozen=True):
    """One object as a list or a watch showed it.

    ``view`` is None, and ``problem`` says why, where the object does not decode. ``key`` is
    ``namespace/name``, or ``name`` for cluster-scoped kinds. ``version`` is its resourceVersion.
    """

    type: ChangeType
    key: str
    version: int
    view: T | None
    problem: str = ""


class Bookmark(Struct, frozen=True, gc=False):
    """Everything up to ``version`` was sent; ``initial_end``: so was the whole initial state."""

    version: int
    initial_end: bool


class ServerError(Struct, frozen=True, gc=False):
    """An ERROR event: a Status inside a stream that began with HTTP 200."""

    code: int
    reason: str
    message: str
    retry_after_s: float | None = None

    @property
    def expired(self) -> bool:
        return self.code == 410 or self.reason in ("Expired", "Gone")


class RawPage(Struct, Generic[T], frozen=True):
    """One page of a LIST, its items still undecoded."""

    version: int
    continue_token: str
    items: tuple[Raw, ...]


class _ListMeta(Struct, rename="camel"):
    resource_version: str = ""
    continue_: str | None = msgspec.field(default=None, name="continue")


class _List(Struct):
    metadata: _ListMeta
    items: list[Raw] | None = None


class _Meta(Struct, rename="camel"):
    name: str = ""
    namespace: str = ""
    resource_version: str = ""
    annotations: dict[str, str | None] | None = None


class _Object(Struct):
    metadata: _Meta


class _RawEvent(Struct):
    type: str
    object: Raw


class _Details(Struct, rename="camel"):
    retry_after_seconds: int | None = None


class _Status(Struct):
    code: int | None = None
    reason: str | None = None
    message: str | None = None
    details: _Details | None = None


class _Event(Struct, Generic[W]):
    type: str
    object: W


class _HasMeta(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def resource_version(self) -> str: ...


_lists: Final = msgspec.json.Decoder(_List)
_raw_events: Final = msgspec.json.Decoder(_RawEvent)
_objects: Final = msgspec.json.Decoder(_Object)
_statuses: Final = msgspec.json.Decoder(_Status)


class ObjectDecoder(Generic[T]):
    """Decodes one kind: ``wire`` is what msgspec reads, ``view`` what we keep of it.

    Args:
        wire: a Struct with a ``metadata`` that has name, resource_version and perhaps namespace.
        view: pure; a ``ValueError`` (msgspec's errors are such) marks the object undecodable.
    """

    def __init__(self, wire: type[W], view: Callable[[W], T]) -> None:
        self._view = cast("Callable[[object], T]", view)
        self._objects = msgspec.json.Decoder(wire)
        # One pass over the line instead of two; only odd lines take the long way.
        self._events: msgspec.json.Decoder[_Event[W]] | None = msgspec.json.Decoder(_Event[wire])  # type: ignore[valid-type]

    def page(self, body: bytes) -> RawPage[T]:
        """Split one page of a LIST. Items are decoded one by one by ``listed``.

        Item by item costs half as much again as one typed pass over the page, but it needs no
        second path for the page with an odd object, and blocks the loop for a third of the time.

        Raises:
            GarbledError: no list, or one without a resourceVersion.
        """
        try:
            _check_text(body)
            found = _lists.decode(body)
            version = _version(found.metadata.resource_version)
        except ValueError as error:
            raise GarbledError(f"list page of {len(body)} bytes: {_short(error)}") from error
        return RawPage(version, found.metadata.continue_ or "", tuple(found.items or ()))

    def listed(self, raw: Raw) -> Change[T]:
        """Decode one item of a list, as if it had just been added.

        Raises:
            GarbledError: not even name and resourceVersion can be read.
        """
        body = bytes(raw)
        if self._events is not None:
            try:
                return self._usual("ADDED", self._objects.decode(body))
            except ValueError:
                pass  # told apart below: undecodable, or garbled
        return self._decode("ADDED", body)

    def event(self, line: bytes) -> Change[T] | Bookmark | ServerError:
        """Decode one line of a watch.

        Raises:
            GarbledError: no event of a known type, or an object without name or version.
        """
        try:
            _check_text(line)
            return self._change(line) or self._odd(line)
        except ValueError as error:
            raise GarbledError(f"watch line of {len(line)} bytes: {_short(error)}") from error

    def _change(self, line: bytes) -> Change[T] | None:
        """Read the usual line in one pass, or None: it needs a closer look."""
        if self._events is None:
            return None
        try:
            event = self._events.decode(line)
            if event.type not in _CHANGES:
                return None
            return self._usual(cast("ChangeType", event.type), event.object)
        except ValueError:
            return None

    def _usual(self, type_: ChangeType, found: object) -> Change[T]:
        meta = cast("_HasMeta", found.metadata)  # type: ignore[attr-defined]
        return Change(type_, _key(meta), _version(meta.resource_version), self._view(found))

    def _odd(self, line: bytes) -> Change[T] | Bookmark | ServerError:
        event = _raw_events.decode(line)
        body = bytes(event.object)
        if event.type == "BOOKMARK":
            meta = _objects.decode(body).metadata
            ended = (meta.annotations or {}).get(INITIAL_EVENTS_END) == "true"
            return Bookmark(_version(meta.resource_version), ended)
        if event.type == "ERROR":
            status = _statuses.decode(body)
            pause = status.details.retry_after_seconds if status.details else None
            return ServerError(
                status.code or 0, status.reason or "", (status.message or "")[:PROBLEM_CHARS_MAX], pause
            )
        if event.type not in _CHANGES:
            raise GarbledError(f"unknown event type {event.type[:32]!r}")
        return self._decode(cast("ChangeType", event.type), body)

    def _decode(self, type_: ChangeType, body: bytes) -> Change[T]:
        try:
            meta = _objects.decode(body).metadata
            key, version = _key(meta), _version(meta.resource_version)
        except ValueError as error:
            raise GarbledError(f"object of {len(body)} bytes: {_short(error)}") from error
        try:
            return Change(type_, key, version, self._read(body))
        except ValueError as error:
            return Change(type_, key, version, None, _short(error))

    def _read(self, body: bytes) -> T:
        return self._view(self._objects.decode(body))


class RawObject(Struct, Generic[W], frozen=True):
    """An object together with its own bytes, for a PUT that keeps fields which we do not know."""

    object: W
    raw: bytes


class RawKeepingDecoder(ObjectDecoder[RawObject[W]]):
    """Decodes to ``RawObject``: twice the work per event, so only for kinds with few objects."""

    def __init__(self, wire: type[W]) -> None:
        super().__init__(wire, lambda read: RawObject(read, b""))
        self._events = None
        self._kept: msgspec.json.Decoder[W] = msgspec.json.Decoder(wire)

    def _read(self, body: bytes) -> RawObject[W]:
        return RawObject(self._kept.decode(body), body)


def resource_version_of(body: bytes) -> str:
    """Read ``metadata.resourceVersion`` of a returned object, or "" where it has none."""
    try:
        return _objects.decode(body).metadata.resource_version
    except ValueError:
        return ""


def query_with(query: Mapping[str, str] | None, **more: str) -> dict[str, str]:
    """Add parameters to a query that the caller keeps."""
    return {**(query or {}), **more}


def _check_text(data: bytes) -> None:
    # msgspec skips the fields that nobody asked for without looking at their bytes; a line with
    # invalid UTF-8 anywhere was damaged on its way and must not be half believed.
    if not data.isascii():
        data.decode("utf-8")


def _key(meta: _HasMeta) -> str:
    if not meta.name:
        raise ValueError("metadata.name is empty")
    namespace = getattr(meta, "namespace", "")
    return f"{namespace}/{meta.name}" if namespace else meta.name


def _version(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or text == "0":
        raise ValueError(f"resourceVersion {text[:32]!r} is not a positive integer")
    return int(text)


def _short(error: ValueError) -> str:
    return str(error)[:PROBLEM_CHARS_MAX]


async def close_lines(lines: AsyncIterator[bytes]) -> None:
    """End a stream at once, where it can be ended; its connection goes with it."""
    close = getattr(lines, "aclose", None)
    if close is not None:
        await close()
