"""Plays every story of a PlaybookTest file and says which expectations were not met."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

import structlog
from msgspec import UNSET
from msgspec.structs import replace

from remediator.adapters.files.loader import LoadedObject, load_objects
from remediator.adapters.files.testfile import Case, Fleet, Happening, PlaybookTest
from remediator.adapters.files.tree import Path as FieldPath
from remediator.app.rehearsal.opening import Opening, open_fleet
from remediator.app.rehearsal.play import Play, Told
from remediator.app.rehearsal.verdict import judge
from remediator.core.validity import faults_of
from remediator.errors import ContractError, InputError, Problem
from remediator.model.playbook import Playbook

CASE_S_MAX: Final = 30.0  # of real time; a story takes a few hundredths of a second


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One story's outcome. ``problems`` are its unmet expectations; none: it went as expected."""

    test: str
    case: str
    problems: tuple[Problem, ...]
    told: Told

    @property
    def passed(self) -> bool:
        return not self.problems


def rehearse(paths: Iterable[Path]) -> tuple[CaseResult, ...]:
    """Play every case of every PlaybookTest in these files; a directory stands for the files below it.

    Returns:
        One result a case, in the order of the files and of the cases in them.

    Raises:
        InputError: the file, its fleet or its playbooks cannot be used; every problem is in it.
        ContractError: the controller broke one of its own rules; the message names the story.
    """
    named = tuple(paths)
    tests = [each for each in load_objects(named) if isinstance(each.value, PlaybookTest)]
    if not tests:
        where = ", ".join(map(str, named))
        raise InputError((Problem(where, 0, 0, "", "no PlaybookTest in it", "name playbooks/tests/"),))
    return tuple(result for each in tests for result in _rehearse_test(each))


def _rehearse_test(loaded: LoadedObject) -> Iterator[CaseResult]:
    test = loaded.value
    assert isinstance(test, PlaybookTest)
    folder = Path(loaded.path).parent
    playbooks = _playbooks(loaded, test, folder)
    fleet = _fleet(loaded, test, folder)
    openings = [_opening(loaded, fleet, index, case) for index, case in enumerate(test.spec.cases)]
    for index, (case, opening) in enumerate(zip(test.spec.cases, openings, strict=True)):
        mode = test.spec.mode if case.mode is UNSET else case.mode
        used = {name: replace(each, spec=replace(each.spec, mode=mode)) for name, each in playbooks.items()}
        told = _play(f"{loaded.path}, case {case.name!r}", case, opening, used)
        yield CaseResult(test.metadata.name, case.name, _problems(loaded, index, case, told), told)


def _play(where: str, case: Case, opening: Opening, playbooks: Mapping[str, Playbook]) -> Told:
    with _no_logs():
        try:
            return asyncio.run(asyncio.wait_for(_run(case, opening, playbooks), CASE_S_MAX))
        except ContractError as error:
            raise ContractError(f"{where}: {error}") from error


async def _run(case: Case, opening: Opening, playbooks: Mapping[str, Playbook]) -> Told:
    return await Play(case, opening, playbooks).run()


@contextmanager
def _no_logs() -> Iterator[None]:
    """The passes log what they do; a story is told by its writes."""
    before = structlog.get_config()
    structlog.configure(processors=[_drop])
    try:
        yield
    finally:
        structlog.configure(**before)


def _drop(logger: object, name: str, event: object) -> structlog.typing.ProcessorReturnValue:
    del logger, name, event
    raise structlog.DropEvent


def _problems(loaded: LoadedObject, index: int, case: Case, told: Told) -> tuple[Problem, ...]:
    base: FieldPath = ("spec", "cases", index, "expect")
    return tuple(
        loaded.problem((*base, *each.field), f"case {case.name!r}: {each.message}")
        for each in judge(case.expect, told)
    )


# -- reading what a test names


def _playbooks(loaded: LoadedObject, test: PlaybookTest, folder: Path) -> dict[str, Playbook]:
    found: dict[str, Playbook] = {}
    for index, name in enumerate(test.spec.playbooks):
        at: FieldPath = ("spec", "playbooks", index)
        for each in _load(loaded, at, folder / name):
            if isinstance(each.value, Playbook):
                _require_followed(each, each.value)
                found[each.name] = each.value
    for index, wanted in enumerate(test.spec.only):
        if wanted not in found:
            known = ", ".join(sorted(found)) or "no playbook"
            _fail(loaded, ("spec", "only", index), f"no playbook {wanted!r} in these files: {known}")
    if not found:
        _fail(loaded, ("spec", "playbooks"), "no playbook in these files")
    return {name: each for name, each in found.items() if not test.spec.only or name in test.spec.only}


def _require_followed(loaded: LoadedObject, playbook: Playbook) -> None:
    faults = faults_of(playbook.spec)
    if faults:
        raise InputError(tuple(loaded.problem(("spec", "steps"), each) for each in faults))


def _fleet(loaded: LoadedObject, test: PlaybookTest, folder: Path) -> LoadedObject:
    at: FieldPath = ("spec", "fleet")
    fleets = [each for each in _load(loaded, at, folder / test.spec.fleet) if isinstance(each.value, Fleet)]
    if len(fleets) != 1:
        _fail(loaded, at, f"{test.spec.fleet} holds {len(fleets)} objects of kind Fleet", "keep one in it")
    return fleets[0]


def _load(loaded: LoadedObject, at: FieldPath, path: Path) -> tuple[LoadedObject, ...]:
    if not path.is_file():
        _fail(loaded, at, f"there is no file {path}", "paths are relative to this file")
    return load_objects([path])


def _fail(loaded: LoadedObject, at: FieldPath, message: str, fix: str = "") -> NoReturn:
    raise InputError((loaded.problem(at, message, fix),))


def _opening(loaded: LoadedObject, fleet: LoadedObject, index: int, case: Case) -> Opening:
    assert isinstance(fleet.value, Fleet)
    base: FieldPath = ("spec", "cases", index)
    givens, policies = [fleet.value.spec], [_plain(fleet, ("spec", "policy"))]
    if case.given is not UNSET:
        givens.append(case.given)
        policies.append(_plain(loaded, (*base, "given", "policy")))
    try:
        opening = open_fleet(givens, policies)
    except ValueError as error:
        _fail(loaded, (*base, "given"), f"case {case.name!r}: {error}")
    _check_timeline(loaded, base, case, opening)
    return opening


def _plain(loaded: LoadedObject, path: FieldPath) -> object:
    """The value that stands at ``path`` in the file, or None."""
    found: object = loaded.tree.plain()
    for part in path:
        if isinstance(found, dict):
            found = found.get(part)
        elif isinstance(found, list) and isinstance(part, int):
            found = found[part]
    return found


_NODELESS: Final = ("pause", "resume")


def _check_timeline(loaded: LoadedObject, base: FieldPath, case: Case, opening: Opening) -> None:
    """A story about a node that is not there would pass for the wrong reason."""
    problems: list[Problem] = []
    for index, happening in enumerate(case.timeline):
        at: FieldPath = (*base, "timeline", index)
        if not happening.nodes and not _nodeless(happening):
            problems.append(loaded.problem(at, "happens to no node", "add nodes: [NAME]"))
        for place, name in enumerate(happening.nodes):
            if name not in opening.nodes:
                problems.append(
                    loaded.problem((*at, "nodes", place), f"the fleet has no node {name!r}", "see its Fleet")
                )
    if problems:
        raise InputError(tuple(problems))


def _nodeless(happening: Happening) -> bool:
    return any(getattr(happening, name) is not UNSET for name in _NODELESS)
