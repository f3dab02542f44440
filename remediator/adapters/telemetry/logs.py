"""Logs as events with keys: one JSON object a line, or coloured text on a terminal.

Everything goes through here, the libraries' own messages too. Logs are for us; what users need
to know stands in conditions, Events and metrics.
"""

from __future__ import annotations

import logging
import re
from collections import OrderedDict
from collections.abc import Iterable, MutableMapping
from enum import Enum
from typing import Any, Final, TextIO

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from remediator.model.instant import write_instant
from remediator.ports import Clock

FIRST_KEYS: Final = ("ts", "level", "logger", "event")
TEXT_CHARS_MAX: Final = 4_096
TRACEBACK_CHARS_MAX: Final = 16_384
ITEMS_MAX: Final = 64
REPEAT_AFTER_S: Final = 60.0
REMEMBERED_MAX: Final = 4_096
REDACTED: Final = "[redacted]"

_SECRET_KEY: Final = re.compile(r"token|passw|secret|authorization|credential|private_?key", re.IGNORECASE)
_SECRET_TEXT: Final = re.compile(
    r"(?P<scheme>\b(?:bearer|basic)\s+)[\w.~+/=-]{8,}|(?P<user>://[^/\s:@]*:)[^/\s@]+(?=@)", re.IGNORECASE
)
# Text of the cluster's objects must not move the cursor of whoever reads the log.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SAME_TROUBLE: Final = ("logger", "event", "node", "run", "error")


class Throttled:
    """Lets the same trouble through once a minute, then with ``repeated``: how many were left out.

    The same is: logger, event, node, run and error alike; without an error, all keys alike. Nothing
    critical is ever left out. At most 4,096 kinds are remembered, the longest ago forgotten first.
    """

    def __init__(self, *, clock: Clock, after_s: float = REPEAT_AFTER_S) -> None:
        self._clock = clock
        self._after_s = after_s
        self._told: OrderedDict[tuple[object, ...], tuple[float, int]] = OrderedDict()

    def __call__(self, _logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        """Pass the event on.

        Raises:
            structlog.DropEvent: it was told less than a minute ago.
        """
        if method == "critical":
            return event
        key = _same(event)
        now = self._clock.monotonic()
        told = self._told.get(key)
        if told is not None and now - told[0] < self._after_s:
            self._told[key] = (told[0], told[1] + 1)
            raise structlog.DropEvent
        self._told[key] = (now, 0)
        self._told.move_to_end(key)
        if len(self._told) > REMEMBERED_MAX:
            self._told.popitem(last=False)
        if told is not None and told[1]:
            event["repeated"] = told[1]
        return event


def configure_logs(level: str, json: bool, stream: TextIO, *, clock: Clock) -> None:
    """Send every log line of the process to ``stream``; may be called again.

    Args:
        level: debug, info, warning or error. Libraries are heard from warning on.
        json: one JSON object a line; else text for people, coloured on a terminal.
        stream: one write and one flush a line.
        clock: times of the lines, and of what counts as repeated.

    Raises:
        ValueError: no such level.
    """
    wanted = logging.getLevelNamesMapping().get(level.upper())
    if wanted is None or not wanted:
        raise ValueError(f"log level {level!r}; write debug, info, warning or error")
    structlog.configure(
        processors=_processors(json, stream, clock),
        wrapper_class=structlog.make_filtering_bound_logger(wanted),
        logger_factory=_Factory(stream),
        cache_logger_on_first_use=False,  # module loggers are made before this is called
    )
    root = logging.getLogger()
    for handler in [each for each in root.handlers if isinstance(each, _FromLibraries)]:
        root.removeHandler(handler)
    root.addHandler(_FromLibraries(max(wanted, logging.WARNING)))
    root.setLevel(max(wanted, logging.WARNING))


def _processors(json: bool, stream: TextIO, clock: Clock) -> list[Processor]:
    def stamp(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["ts"] = write_instant(clock.now())
        return event

    render: Processor = (
        _json_line if json else structlog.dev.ConsoleRenderer(colors=stream.isatty(), timestamp_key="ts")
    )
    return [
        structlog.contextvars.merge_contextvars,
        _name,
        structlog.processors.add_log_level,
        structlog.processors.format_exc_info,
        _clean,
        Throttled(clock=clock),
        stamp,
        _sorted,
        render,
    ]


class _Lines:
    """Writes finished lines. ``name`` is the module that logs."""

    def __init__(self, stream: TextIO, name: str) -> None:
        self.name = name
        self._stream = stream

    def msg(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()

    debug = info = warning = error = critical = msg


class _Factory:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, *args: object) -> _Lines:
        return _Lines(self._stream, str(args[0]) if args else "remediator")


class _FromLibraries(logging.Handler):
    """Brings what libraries log into the same stream and shape."""

    def emit(self, record: logging.LogRecord) -> None:
        logger = structlog.get_logger(record.name)
        method = {logging.WARNING: "warning", logging.ERROR: "error"}.get(record.levelno, "critical")
        getattr(logger, method)(record.getMessage(), exc_info=record.exc_info)


def _name(logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    event["logger"] = getattr(logger, "name", "remediator")
    return event


def _same(event: EventDict) -> tuple[object, ...]:
    if event.get("error"):
        return tuple(str(event.get(key, "")) for key in _SAME_TROUBLE)
    return tuple(sorted((key, repr(value)) for key, value in event.items()))


def _clean(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Take out secrets and control characters, and bound what is long. Only a traceback keeps its lines."""
    traceback = event.pop("exception", "")
    cleaned = {key: REDACTED if _SECRET_KEY.search(key) else _cleaned(value) for key, value in event.items()}
    if traceback:
        cleaned["exception"] = _cleaned_text(str(traceback), keep=TRACEBACK_CHARS_MAX, breaks=True)
    return cleaned


def _cleaned(value: object, depth: int = 0) -> object:
    match value:
        case None | bool() | int() | float():
            return value
        case Enum():
            return _cleaned(value.value, depth)
        case str():
            return _cleaned_text(value)
        case MutableMapping() if depth < 3:
            inner = dict(list(value.items())[:ITEMS_MAX])
            named = {str(key): each for key, each in inner.items()}
            return {
                _cleaned_text(key): REDACTED if _SECRET_KEY.search(key) else _cleaned(each, depth + 1)
                for key, each in named.items()
            }
        case set() | frozenset() if depth < 3:
            return [_cleaned(each, depth + 1) for each in sorted(map(str, value))[:ITEMS_MAX]]
        case list() | tuple() if depth < 3:
            return [_cleaned(each, depth + 1) for each in value[:ITEMS_MAX]]
    return _cleaned_text(str(value))


def _cleaned_text(text: str, *, keep: int = TEXT_CHARS_MAX, breaks: bool = False) -> str:
    whole = text.encode("utf-8", "replace").decode()
    if not breaks:
        whole = whole.replace("\n", " ")
    plain = _SECRET_TEXT.sub(_redact, _CONTROL.sub("?", whole))
    return plain if len(plain) <= keep else f"{plain[: keep - 1]}…"


def _redact(found: re.Match[str]) -> str:
    return f"{found['scheme'] or found['user'] or ''}{REDACTED}"


def _sorted(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {key: event[key] for key in _order(event)}


def _order(event: EventDict) -> Iterable[str]:
    return *(key for key in FIRST_KEYS if key in event), *sorted(event.keys() - set(FIRST_KEYS))


def _json_line(_logger: WrappedLogger, _method: str, event: MutableMapping[str, Any]) -> str:
    return msgspec.json.encode(event).decode()
