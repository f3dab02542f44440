"""Loads objects from files that people write, strictly, and from dumps of a cluster, tolerantly.

A bad file never yields a part of its objects: either all of them, or one error with every problem.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from remediator.adapters.files import testfile
from remediator.adapters.files import tree as yaml_tree
from remediator.adapters.files.kinds import KIND_BY_NAME, ObjectValue
from remediator.adapters.files.schema import FILE_KINDS, editor_schema
from remediator.adapters.files.tree import Member, Tree
from remediator.adapters.files.walker import near_miss, walk
from remediator.errors import InputError, Problem
from remediator.model.keys import API_VERSION

FILE_BYTES_MAX: Final = 1_048_576
FILES_MAX: Final = 1_000
DUMP_BYTES_MAX: Final = 536_870_912  # 10,000 nodes of 20 KB and their pods

_SUFFIXES: Final = (".yaml", ".yml", ".json")
_NOT_OURS: Final = ("kustomization.yaml", "kustomization.yml")


@dataclass(frozen=True, slots=True)
class LoadedObject:
    """One object and the tree that knows where each of its fields stands."""

    path: str
    kind: str
    value: ObjectValue | testfile.FileValue
    tree: Tree

    @property
    def name(self) -> str:
        return self.value.metadata.name

    def problem(self, field: yaml_tree.Path, message: str, fix: str = "") -> Problem:
        """Make a problem that points at one field of this object."""
        line, column = self.tree.where(field)
        return Problem(self.path, line, column, yaml_tree.spell(field), message, fix)


@dataclass(frozen=True, slots=True)
class Dump:
    """What a dump held: objects of our kinds, and the JSON of everything else, by kind."""

    objects: tuple[ObjectValue, ...]
    others: dict[str, tuple[bytes, ...]]


def load_objects(paths: Iterable[Path]) -> tuple[LoadedObject, ...]:
    """Load every object of these files; a directory stands for the YAML files below it.

    Several documents in a file, and lists (``kind: List``), are taken apart.

    Returns:
        The objects in the order of the files and of the documents in them.

    Raises:
        InputError: anything is wrong; carries every problem of every file.
    """
    files, problems = _expand(paths)
    loaded: list[LoadedObject] = []
    for file in files:
        found, wrong = _load_file(file)
        loaded += found
        problems += wrong
    problems += _twice(loaded)
    if problems:
        raise InputError(tuple(problems))
    return tuple(loaded)


def load_text(text: str, file: str) -> tuple[LoadedObject, ...]:
    """Load every object of one text; ``file`` is what problems call it.

    Raises:
        InputError: anything is wrong with it.
    """
    loaded, problems = _load_text(text, file)
    problems += _twice(loaded)
    if problems:
        raise InputError(tuple(problems))
    return tuple(loaded)


def load_dump(path: Path) -> Dump:
    """Load what ``kubectl get … -o json`` wrote: one object or one List. Unknown fields are ignored.

    Raises:
        InputError: the file cannot be read, or an object of our kinds does not decode.
    """
    problem = _unreadable(path, DUMP_BYTES_MAX)
    if problem is not None:
        raise InputError((problem,))
    try:
        head = msgspec.json.decode(path.read_bytes(), type=_Listed)
    except msgspec.DecodeError as error:
        raise InputError(
            (Problem(str(path), 0, 0, "", f"not JSON of Kubernetes objects: {error}"),)
        ) from error
    items = [bytes(item) for item in head.items] if head.kind.endswith("List") else [path.read_bytes()]
    return _sort_dump(items, str(path), head.kind.removesuffix("List"))


class _Listed(msgspec.Struct):
    kind: str
    items: tuple[msgspec.Raw, ...] = ()


class _Head(msgspec.Struct, rename="camel"):
    api_version: str = ""
    kind: str = ""


def _sort_dump(items: list[bytes], file: str, list_kind: str) -> Dump:
    objects: list[ObjectValue] = []
    others: dict[str, list[bytes]] = {}
    problems: list[Problem] = []
    for index, item in enumerate(items):
        try:
            head = msgspec.json.decode(item, type=_Head)
            kind = head.kind or list_kind  # the items of a typed list may leave their kind out
            if kind in KIND_BY_NAME and head.api_version in ("", API_VERSION):
                objects.append(msgspec.json.decode(item, type=KIND_BY_NAME[kind].type))
            else:
                others.setdefault(kind, []).append(item)
        except msgspec.DecodeError as error:
            problems.append(Problem(file, 0, 0, f"items[{index}]", str(error)))
    if problems:
        raise InputError(tuple(problems))
    return Dump(tuple(objects), {kind: tuple(found) for kind, found in others.items()})


def _expand(paths: Iterable[Path]) -> tuple[list[Path], list[Problem]]:
    files: list[Path] = []
    problems: list[Problem] = []
    for path in paths:
        if path.is_dir():
            inside = (
                each for each in path.rglob("*") if each.suffix in _SUFFIXES and each.name not in _NOT_OURS
            )
            found = sorted(each for each in inside if each.is_file())
            files += found
            if not found:
                problems.append(Problem(str(path), 0, 0, "", "no YAML file in this directory"))
        else:
            files.append(path)
    if len(files) > FILES_MAX:
        text = f"{len(files)} files, at most {FILES_MAX} are read"
        problems.append(Problem(str(files[FILES_MAX]), 0, 0, "", text, "name fewer directories"))
    return files[:FILES_MAX], problems


def _unreadable(path: Path, bytes_max: int) -> Problem | None:
    try:
        size = path.stat().st_size
    except OSError as error:
        return Problem(str(path), 0, 0, "", f"cannot be read: {error.strerror}")
    if size > bytes_max:
        return Problem(str(path), 0, 0, "", f"has {size:,} bytes", f"at most {bytes_max:,}")
    return None


def _load_file(path: Path) -> tuple[list[LoadedObject], list[Problem]]:
    problem = _unreadable(path, FILE_BYTES_MAX)
    if problem is not None:
        return [], [problem]
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        return [], [Problem(str(path), 0, 0, "", f"not UTF-8 at byte {error.start}", "save it as UTF-8")]
    except OSError as error:
        return [], [Problem(str(path), 0, 0, "", f"cannot be read: {error.strerror}")]
    loaded, problems = _load_text(text, str(path))
    if not loaded and not problems:
        problems = [Problem(str(path), 0, 0, "", "holds no object", "remove the file or write one")]
    return loaded, problems


def _load_text(text: str, file: str) -> tuple[list[LoadedObject], list[Problem]]:
    trees, problems = yaml_tree.read_documents(text, file)
    broken = {(each.line, each.column) for each in problems}
    loaded: list[LoadedObject] = []
    for document in trees:
        for tree, at in _items(document):
            # One complaint per place: a value that YAML itself spoiled needs no second one.
            wrong = [each for each in _check(tree, file, at) if (each.line, each.column) not in broken]
            problems += wrong
            if not wrong and not broken:
                found, wrong = _convert(tree, file, at)
                loaded += found
                problems += wrong
    return loaded, sorted(problems, key=lambda each: (each.line, each.column))


def _items(tree: Tree) -> list[tuple[Tree, yaml_tree.Path]]:
    if isinstance(tree.value, dict) and _scalar(tree, "kind") == "List" and "items" in tree.value:
        items = tree.value["items"].tree.value
        if isinstance(items, list):
            return [(each, ("items", index)) for index, each in enumerate(items)]
    return [(tree, ())]


def _scalar(tree: Tree, name: str) -> object:
    member = tree.value.get(name) if isinstance(tree.value, dict) else None
    return member.tree.value if isinstance(member, Member) else None


def _check(tree: Tree, file: str, at: yaml_tree.Path) -> list[Problem]:
    if not isinstance(tree.value, dict):
        return [
            Problem(
                file,
                tree.line,
                tree.column,
                yaml_tree.spell(at),
                "expected an object with apiVersion and kind",
            )
        ]
    kind = _scalar(tree, "kind")
    if isinstance(kind, str) and kind in FILE_KINDS:
        return walk(tree, editor_schema(kind), file, at=at)
    line, column = tree.where(("kind",))
    field = yaml_tree.spell((*at, "kind"))
    if kind is None:
        return [Problem(file, line, column, field, "kind is missing", f"one of {', '.join(FILE_KINDS)}")]
    meant = near_miss(str(kind), FILE_KINDS)
    fix = f"did you mean {meant}?" if meant else f"one of {', '.join(FILE_KINDS)}"
    return [Problem(file, line, column, field, f"unknown kind {kind!r} of {API_VERSION}", fix)]


def _convert(tree: Tree, file: str, at: yaml_tree.Path) -> tuple[list[LoadedObject], list[Problem]]:
    plain = tree.plain()
    assert isinstance(plain, dict)
    plain.pop("status", None)  # a file says what is wanted; what is there, the controller writes
    metadata = plain.get("metadata", {})
    # `kubectl create -o yaml` writes creationTimestamp: null.
    plain["metadata"] = {key: value for key, value in metadata.items() if value is not None}
    kind = str(plain["kind"])
    try:
        value: ObjectValue | testfile.FileValue
        if kind in testfile.TYPES:
            value = msgspec.convert(plain, testfile.TYPES[kind])
        else:
            value = msgspec.convert(plain, KIND_BY_NAME[kind].type)
    except msgspec.ValidationError as error:
        # The walker and the types come from one source, so this is a gap between the two.
        return [], [Problem(file, tree.line, tree.column, yaml_tree.spell(at), str(error))]
    return [LoadedObject(file, kind, value, tree)], []


def _twice(loaded: list[LoadedObject]) -> list[Problem]:
    first: dict[tuple[str, str], LoadedObject] = {}
    problems: list[Problem] = []
    for each in loaded:
        known = first.setdefault((each.kind, each.name), each)
        if known is not each:
            text = f"{each.kind} {each.name!r} stands twice, first in {known.path}:{known.tree.line}"
            problems.append(each.problem(("metadata", "name"), text, "rename one of them"))
    return problems
