"""What came of many histories: kept, so that an interrupted run goes on, and told to other tools."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

import msgspec
from msgspec import Struct

from remediator import __version__
from remediator.chaos.history import Outcome
from remediator.chaos.schedule import Schedule
from remediator.errors import InputError, Problem

BYTES_MAX: Final = 256 << 20
_FIX: Final = "name a file that `remediator chaos run --results` has written, or a new one"


class Result(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """One history that was played: a line of the file. ``version`` is that of the program."""

    schedule: Schedule
    version: str
    broken: tuple[str, ...] = ()
    digest: str = ""
    findings: tuple[str, ...] = ()


def result_of(outcome: Outcome) -> Result:
    """What is kept of an outcome: the rules that broke, and the first finding of each."""
    findings = [
        f"{each.rule}: {each.findings[0].text} ({each.findings[0].request})"
        for each in outcome.report.verdicts
        if each.findings
    ]
    if outcome.crash:
        findings.append(f"it ended by itself: {outcome.crash}")
    return Result(
        schedule=outcome.schedule,
        version=__version__,
        broken=outcome.broken,
        digest=outcome.digest,
        findings=tuple(findings),
    )


def read_results(path: Path) -> list[Result]:
    """All of a file; none where there is no such file. A last line without an end was being written.

    Raises:
        InputError: it can't be read, or a line of it is no result; names file and line.
    """
    if not path.exists():
        return []
    try:
        size = path.stat().st_size
        if size > BYTES_MAX:
            raise InputError((Problem(str(path), 0, 0, "", f"{size:,} bytes", _FIX),))
        text = path.read_bytes()
    except OSError as error:
        raise InputError((Problem(str(path), 0, 0, "", f"can't be read: {error.strerror}", _FIX),)) from error
    found, decoder = [], msgspec.json.Decoder(Result)
    for number, line in enumerate(text[: text.rfind(b"\n") + 1].splitlines(), 1):
        try:
            found.append(decoder.decode(line))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise InputError((Problem(str(path), number, 0, "", f"no result: {error}", _FIX),)) from error
    return found


def kept(outcomes: Iterable[Outcome], path: Path | None) -> Iterator[Outcome]:
    """The same, each written down as soon as it is there; None: nowhere.

    A last line that was being written when an earlier run was interrupted goes first.
    """
    if path is None:
        yield from outcomes
        return
    if path.exists():
        text = path.read_bytes()
        path.write_bytes(text[: text.rfind(b"\n") + 1])
    with path.open("ab") as file:
        for outcome in outcomes:
            file.write(msgspec.json.encode(result_of(outcome)) + b"\n")
            file.flush()
            yield outcome


def parted(schedules: Iterable[Schedule], known: Iterable[Result]) -> tuple[list[Result], list[Schedule]]:
    """What came of those that this version has played, and those that it has not."""
    played = {msgspec.json.encode(each.schedule): each for each in known if each.version == __version__}
    done, left = [], []
    for schedule in schedules:
        result = played.get(msgspec.json.encode(schedule))
        if result is None:
            left.append(schedule)
        else:
            done.append(result)
    return done, left


def junit(results: Iterable[Result]) -> bytes:
    """All of them as one test suite, in the XML that CI systems read."""
    suite = ElementTree.Element("testsuite", name="remediator chaos")
    count = failed = 0
    for result in results:
        schedule = result.schedule
        name = " ".join((f"seed {schedule.seed}", *schedule.bugs))
        case = ElementTree.SubElement(suite, "testcase", classname=f"chaos.{schedule.controller}", name=name)
        count += 1
        if result.broken:
            failed += 1
            failure = ElementTree.SubElement(case, "failure", message=", ".join(result.broken))
            failure.text = "\n".join(result.findings)
    suite.set("tests", str(count))
    suite.set("failures", str(failed))
    text: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return text + b"\n"
