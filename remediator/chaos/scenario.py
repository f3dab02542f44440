"""A scenario: a history that somebody has thought of, and what has to come of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import replace

from remediator.adapters.files.single import located, parse_single, read_single
from remediator.adapters.files.tree import Tree
from remediator.chaos.history import Outcome
from remediator.chaos.lint import problems
from remediator.chaos.rules import ENDINGS, RULES
from remediator.chaos.schedule import Schedule, Seconds
from remediator.errors import InputError, Problem

FOLDER: Final = "scenarios"
NODE: Final = re.compile(r"(gpu-[a-z]+-)([0-9]{2})")
_Line = Annotated[str, Meta(min_length=1, max_length=256)]


class Expected(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True
):
    """What has to come of it. ``broken`` are the rules that it is there to break: all others hold.

    ``reboots`` counts those of all machines. Each of ``ends`` has to be part of a line of the ending, and
    none of ``never``: ``node NAME: pool POOL, TAINTS`` and ``work NODE: CLASS: STATE SPARE``. ``fenced`` are
    nodes and the longest time from the first event of theirs to their fence. ``idle`` lets faults and events
    be that could not strike; else each has to.
    """

    broken: Annotated[tuple[str, ...], Meta(max_length=16)] = ()
    reboots: Annotated[int, Meta(ge=0, le=1_000)] | UnsetType = UNSET
    ends: Annotated[tuple[_Line, ...], Meta(max_length=64)] = ()
    never: Annotated[tuple[_Line, ...], Meta(max_length=64)] = ()
    fenced: Annotated[Mapping[str, Seconds], Meta(max_length=64)] = {}
    idle: bool = False


class Scenario(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True
):
    """One file. ``summary`` is one line for people: what happens, and what must not come of it."""

    name: Annotated[str, Meta(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
    summary: _Line
    schedule: Schedule
    expect: Expected = Expected()


def shipped() -> tuple[Scenario, ...]:
    """All that come with the program, by name."""
    folder = files("remediator.chaos") / FOLDER
    found = [each for each in folder.iterdir() if each.name.endswith(".yaml")]
    return tuple(
        _read(each.read_text(encoding="utf-8"), each.name)
        for each in sorted(found, key=lambda each: each.name)
    )


def named(text: str) -> Scenario:
    """A shipped one by its name, or one from a file.

    Raises:
        InputError: there is none, or something in it can't be; names file, line, field and the fix.
    """
    known = {each.name: each for each in shipped()}
    if text in known:
        return known[text]
    path = Path(text)
    if not path.exists():
        fix = f"write a file, or one of {', '.join(known)}"
        raise InputError((Problem(text, 0, 0, "", "no such scenario", fix),))
    return _checked(*read_single(path, Scenario), str(path))


def variants(scenario: Scenario) -> Iterator[Scenario]:
    """The same with something changed that must not matter to what comes of it; each with a name of its own.

    None of one that is there to break a rule: that may hang on its dice.
    """
    if scenario.expect.broken:
        return
    schedule = scenario.schedule
    if any(each.node for each in schedule.events):
        yield _renamed(scenario)
    changed = {
        "other dice": replace(schedule, seed=schedule.seed + 1),
        "a replica less" if schedule.replicas > 1 else "a replica more": replace(
            schedule, replicas=schedule.replicas - 1 if schedule.replicas > 1 else 2
        ),
        "a healthy rack more": replace(schedule, racks=schedule.racks + 1),
        "raised limits": replace(schedule, raised=schedule.raised + 1),
    }
    for what, each in changed.items():
        yield replace(scenario, name=f"{scenario.name}, {what}", schedule=each)


def _renamed(scenario: Scenario) -> Scenario:
    """Each node that works is called like the next one of its rack, in all that happens and is expected."""
    last = scenario.schedule.per_rack - 2  # then one for inference, and the spare

    def other(found: re.Match[str]) -> str:
        slot = int(found[2])
        return f"{found[1]}{slot % last + 1:02}" if slot <= last else found[0]

    text = NODE.sub(other, msgspec.json.encode(scenario).decode())
    return replace(msgspec.json.decode(text, type=Scenario), name=f"{scenario.name}, other names")


def failures(scenario: Scenario, outcome: Outcome) -> list[str]:
    """Everything that is not as it has to be."""
    expect = scenario.expect
    found = [f"{rule} is broken" for rule in outcome.broken if rule not in expect.broken]
    found += [f"{rule} holds, and was to be broken" for rule in expect.broken if rule not in outcome.broken]
    if expect.reboots is not UNSET and outcome.reboots != expect.reboots:
        found.append(f"{outcome.reboots} reboots instead of {expect.reboots}")
    found += [f"no line of the ending has {line!r}" for line in expect.ends if not _has(outcome.ending, line)]
    found += [f"a line of the ending has {line!r}" for line in expect.never if _has(outcome.ending, line)]
    found += filter(None, (_late(outcome, node, most_s) for node, most_s in expect.fenced.items()))
    if not expect.idle:
        found += [f"faults[{number}] never struck" for number in outcome.idle_faults]
        found += [f"events[{number}] could not happen" for number in outcome.idle_events]
    return found


def _late(outcome: Outcome, node: str, most_s: float) -> str | None:
    if node not in outcome.fenced_s:
        return f"{node} was never fenced"
    first_s = min((each.at_s for each in outcome.schedule.events if each.node == node), default=0.0)
    took_s = outcome.fenced_s[node] - first_s
    return f"{node} was fenced after {took_s:.1f} s, {most_s:g} it may take" if took_s > most_s else None


def _has(ending: Sequence[str], text: str) -> bool:
    return any(text in line for line in ending)


def _read(text: str, name: str) -> Scenario:
    return _checked(*parse_single(text, name, Scenario), name)


def _checked(scenario: Scenario, tree: Tree, file: str) -> Scenario:
    found: list[Problem] = []
    for field, wrong, fix in problems(scenario.schedule):
        found.append(located(tree, file, ("schedule", *field), wrong, fix))
    known = {rule.id for rule in (*RULES, *ENDINGS)}
    for number, rule in enumerate(scenario.expect.broken):
        if rule not in known:
            fix = f"write one of {', '.join(sorted(known))}"
            found.append(located(tree, file, ("expect", "broken", number), f"{rule!r} is no rule", fix))
    if found:
        raise InputError(tuple(found))
    return scenario
