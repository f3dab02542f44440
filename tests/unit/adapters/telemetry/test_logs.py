"""What a log line looks like, what is left out of it, and what is not said twice."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import structlog

from remediator.adapters.telemetry.logs import (
    ITEMS_MAX,
    REDACTED,
    REMEMBERED_MAX,
    TEXT_CHARS_MAX,
    configure_logs,
)
from remediator.ports import Outcome

T0 = datetime(2026, 11, 22, 3, 14, 7, tzinfo=UTC)


class StoppedClock:
    """Time moves when the test sets it."""

    def __init__(self) -> None:
        self.passed_s = 0.0

    def now(self) -> datetime:
        return T0 + timedelta(seconds=self.passed_s)

    def monotonic(self) -> float:
        return self.passed_s

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("logging never waits")


class Log:
    """A configured log, and what came out of it."""

    def __init__(self, level: str = "info", *, json_lines: bool = True) -> None:
        self.stream = io.StringIO()
        self.clock = StoppedClock()
        configure_logs(level, json_lines, self.stream, clock=self.clock)

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.text.splitlines()]


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Logging is the process' own; give it back as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_line_is_json_with_the_known_keys_first_and_the_rest_sorted():
    """Lines are read by people in a pager, and compared by tests."""
    log = Log()

    structlog.get_logger("remediator.runtime.x").info("evicting pod", pod="a", node="n1", namespace="ml")

    assert log.text == (
        '{"ts":"2026-11-22T03:14:07Z","level":"info","logger":"remediator.runtime.x","event":"evicting pod",'
        '"namespace":"ml","node":"n1","pod":"a"}\n'
    )


def test_values_of_the_program_are_written_as_their_words():
    """An enum is its value; a set has an order; anything else is its text."""
    log = Log()

    structlog.get_logger("x").info(
        "seen", outcome=Outcome.REFUSED, nodes={"b", "a"}, at=T0, error=ValueError("no")
    )

    line = log.lines[0]
    assert line["outcome"] == "refused"
    assert line["nodes"] == ["a", "b"]
    assert line["error"] == "no"


def test_lines_below_the_level_are_left_out_and_the_level_is_checked():
    """A misspelt level must not mean silence."""
    log = Log("warning")

    structlog.get_logger("x").info("seen")
    structlog.get_logger("x").warning("heard")

    assert [line["event"] for line in log.lines] == ["heard"]
    for bad in ("loud", "notset", ""):
        with pytest.raises(ValueError, match="write debug, info"):
            configure_logs(bad, True, log.stream, clock=log.clock)


def test_loggers_made_before_follow_the_newest_configuration():
    """Modules make their logger when they are imported, before anything is configured."""
    early = structlog.get_logger("early")
    first = Log()
    early.info("one")
    second = Log()

    early.info("two")

    assert [line["event"] for line in first.lines] == ["one"]
    assert [line["event"] for line in second.lines] == ["two"]


@pytest.mark.parametrize(
    ("keys", "secret"),
    [
        ({"token": "abc123def"}, "abc123def"),
        ({"headers": {"Authorization": "x-y-z"}}, "x-y-z"),
        ({"error": "401 for Bearer eyJhbGciOi.J9.sig-nature"}, "eyJhbGciOi"),
        ({"error": "http://user:hunter2@proxy:3128 refused"}, "hunter2"),
        ({"items": [{"deep": {"password": "hunter2"}}]}, "hunter2"),
    ],
    ids=["key", "nested-key", "bearer", "url", "list"],
)
def test_secrets_are_taken_out(keys, secret):
    """Logs go to places that secrets must not go to."""
    log = Log()

    structlog.get_logger("x").info("asked", **keys)

    assert secret not in log.text
    assert REDACTED in log.text


def test_ordinary_words_are_not_taken_for_secrets():
    """Half of the log redacted helps nobody."""
    log = Log()

    structlog.get_logger("x").info("seen", note="basic check of http://10.0.0.1:9400/metrics", key="a/b")

    assert log.lines[0]["note"] == "basic check of http://10.0.0.1:9400/metrics"
    assert log.lines[0]["key"] == "a/b"


def test_text_of_the_cluster_is_bounded_and_cannot_forge_lines():
    """A condition's message is whatever somebody wrote there."""
    log = Log(json_lines=False)

    structlog.get_logger("x").info(
        "seen", text="a\n2026 [error] forged\x1b[2J", long="x" * 10_000, many=["y"] * 999
    )

    assert len(log.text.splitlines()) == 1
    assert "\x1b" not in log.text
    assert log.text.count("x") <= TEXT_CHARS_MAX + 1
    assert log.text.count("'y'") == ITEMS_MAX


def test_text_that_is_no_unicode_does_not_break_the_line():
    """An error while logging would end the pass."""
    log = Log()

    structlog.get_logger("x").info("seen", name="\ud800", number=float("nan"))

    assert log.lines[0]["name"] == "?"
    assert log.lines[0]["number"] is None


def test_exception_brings_its_traceback():
    """The pass boundary logs what it does not know."""
    log = Log()

    try:
        raise ValueError("no such node")
    except ValueError:
        structlog.get_logger("x").exception("pass failed", node="n1")

    assert "ValueError: no such node" in str(log.lines[0]["exception"])
    assert "Traceback" in str(log.lines[0]["exception"])


def test_same_trouble_is_told_once_a_minute_with_its_count():
    """A dead exporter must not write a line every 15 seconds a node."""
    log = Log()
    logger = structlog.get_logger("x")

    for second in range(0, 130, 10):
        log.clock.passed_s = float(second)
        logger.warning("page not read", node="n1", error="timeout", waited_s=second)

    assert [(line["waited_s"], line.get("repeated")) for line in log.lines] == [(0, None), (60, 5), (120, 5)]


@pytest.mark.parametrize("other", [{"node": "n2"}, {"error": "reset"}, {"run": "n1-2"}])
def test_other_trouble_is_told_at_once(other):
    """Another node, run or error is news."""
    log = Log()
    logger = structlog.get_logger("x")

    logger.warning("page not read", **{"node": "n1", "error": "timeout"})
    logger.warning("page not read", **({"node": "n1", "error": "timeout"} | other))

    assert len(log.lines) == 2


def test_lines_without_an_error_repeat_only_when_all_is_alike():
    """What a run does is a record; only exact echoes are left out."""
    log = Log()
    logger = structlog.get_logger("x")

    logger.info("run moved", run="n1-1", state="Draining")
    logger.info("run moved", run="n1-1", state="Detached")
    logger.info("run moved", run="n1-1", state="Detached")

    assert [line["state"] for line in log.lines] == ["Draining", "Detached"]


def test_critical_lines_are_never_left_out():
    """The last line before the end counts, even when it was said before."""
    log = Log()

    for _ in range(3):
        structlog.get_logger("x").critical("contract broken", error="x")

    assert len(log.lines) == 3


def test_memory_of_what_was_told_is_bounded():
    """Errors with ever new texts must not fill the memory."""
    log = Log()
    logger = structlog.get_logger("x")

    for number in range(REMEMBERED_MAX + 1):
        logger.warning("failed", error=f"e{number}")
    logger.warning("failed", error="e0")  # forgotten by now, so told again
    logger.warning("failed", error=f"e{REMEMBERED_MAX}")

    assert len(log.lines) == REMEMBERED_MAX + 2


def test_messages_of_libraries_come_out_in_the_same_shape():
    """A task that died unseen is reported by asyncio through logging."""
    log = Log()

    logging.getLogger("asyncio").error("Task exception was never retrieved: %s", "boom")
    logging.getLogger("aiohttp.access").info("GET /healthz")

    assert [(line["logger"], line["level"], line["event"]) for line in log.lines] == [
        ("asyncio", "error", "Task exception was never retrieved: boom")
    ]


def test_configuring_twice_does_not_write_twice():
    """A second configuration takes over."""
    Log()
    log = Log()

    logging.getLogger("asyncio").error("boom")

    assert len(log.lines) == 1


def test_terminal_lines_are_text_and_uncoloured_where_there_is_no_terminal():
    """Whoever pipes the text into a file gets no escape codes."""
    log = Log(json_lines=False)

    structlog.get_logger("remediator.x").warning("run granted", node="n1")

    assert "run granted" in log.text
    assert "node=n1" in log.text
    assert "2026-11-22T03:14:07Z" in log.text
    assert "\x1b" not in log.text
