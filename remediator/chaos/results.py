"""What came of many histories: kept, so that an interrupted run goes on, and told to other tools."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, get_args
from xml.etree import ElementTree

import msgspec
from msgspec import Struct

from remediator import __version__
from remediator.chaos.history import Outcome
from remediator.chaos.rules import ENDINGS, RULES
from remediator.chaos.schedule import EventKind, FaultKind, Schedule
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
    idle_faults: tuple[int, ...] = ()
    idle_events: tuple[int, ...] = ()
    judged: Mapping[str, int] = {}  # rule to how many requests it judged
    ends: Mapping[str, int] = {}  # how work ended, and how often


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
        idle_faults=outcome.idle_faults,
        idle_events=outcome.idle_events,
        judged={each.rule: each.judged for each in outcome.report.verdicts if each.judged},
        ends=Counter(_end_of(line) for line in outcome.ending if line.startswith("work ")),
    )


def _end_of(line: str) -> str:
    """``work NODE: [CLASS:] STATE SPARE``: the state."""
    return (line.rpartition(": ")[2].split() or ["under way"])[0]


def coverage(results: Iterable[Result]) -> list[str]:
    """What has happened in all of these histories together, and what never did: that was not tried."""
    drawn, struck, rules, ends = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for result in results:
        schedule = result.schedule
        for kinds, idle in (
            ([each.kind for each in schedule.faults], result.idle_faults),
            ([each.kind for each in schedule.events], result.idle_events),
        ):
            drawn.update(kinds)
            struck.update(kind for number, kind in enumerate(kinds) if number not in idle)
        rules.update(result.judged)
        ends.update(result.ends)
    known = {"faults": get_args(FaultKind), "events": get_args(EventKind)}
    lines = [
        f"{what} that struck, of those drawn: "
        + ", ".join(f"{kind} {struck[kind]}/{drawn[kind]}" for kind in of)
        for what, of in known.items()
    ]
    asked = [rule.id for rule in (*RULES, *ENDINGS)]
    lines.append("requests judged: " + ", ".join(f"{rule} {rules[rule]:,}" for rule in asked if rules[rule]))
    lines.append("work ended: " + ", ".join(f"{end} {count}" for end, count in ends.most_common()))
    never = [each for of in known.values() for each in of if not struck[each]]
    never += [rule for rule in asked if not rules[rule]]
    lines.append("never: " + (", ".join(never) or "-"))
    return lines


def time_left(done: int, total: int, passed_s: float) -> str:
    """How far a campaign is, in words."""
    left_s = passed_s / done * (total - done)
    return f"{done} of {total}, about {left_s / 60:.0f} min left" if left_s >= 60 else f"{done} of {total}"


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
