"""Reads YAML into a tree that knows line and column of every key and value.

Only the part of YAML that every reader takes the same way: duplicate keys, merge keys, tags, and
scalars that YAML 1.1 (kubectl) and 1.2 read differently are problems, never a guess.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from remediator.errors import Problem

NODES_MAX: Final = 50_000  # aliases count each time they are used, so that they cannot multiply
DEPTH_MAX: Final = 32
DOCUMENTS_MAX: Final = 1_000

_TAG: Final = "tag:yaml.org,2002:"
_DECIMAL: Final = re.compile(r"-?(0|[1-9][0-9]*)")
_OLD_BOOLEAN: Final = re.compile(r"(?i:yes|no|on|off|y|n)")

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Member:
    """A key's own place and its value."""

    line: int
    column: int
    tree: Tree


@dataclass(frozen=True, slots=True)
class Tree:
    """One value and where it starts; lines and columns count from 1."""

    line: int
    column: int
    value: str | int | float | bool | list[Tree] | dict[str, Member] | None

    def plain(self) -> object:
        """The same value without positions."""
        if isinstance(self.value, list):
            return [each.plain() for each in self.value]
        if isinstance(self.value, dict):
            return {key: member.tree.plain() for key, member in self.value.items()}
        return self.value

    def where(self, path: Path) -> tuple[int, int]:
        """Line and column of ``path``, or of its nearest ancestor that is there: a key's, else a value's."""
        tree, place = self, (self.line, self.column)
        for part in path:
            if isinstance(tree.value, dict) and part in tree.value:
                member = tree.value[str(part)]
                tree, place = member.tree, (member.line, member.column)
            elif isinstance(tree.value, list) and isinstance(part, int) and part < len(tree.value):
                tree = tree.value[part]
                place = (tree.line, tree.column)
            else:
                break
        return place


def spell(path: Path) -> str:
    """Write a path the way people and the API server do: ``spec.steps[2].drain``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif re.fullmatch(r"[A-Za-z0-9_-]+", part):
            text += f".{part}" if text else part
        else:
            text += f'["{part}"]'
    return text


class _Reader:
    """Turns the composed nodes of one file into trees and collects what is wrong."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self._nodes = 0

    def read(self, node: Node, path: Path) -> Tree:
        line, column = node.start_mark.line + 1, node.start_mark.column + 1
        self._nodes += 1
        if self._nodes > NODES_MAX or len(path) > DEPTH_MAX:
            raise _TooLarge(line, column)
        if not isinstance(node, ScalarNode) and node.tag not in (_TAG + "map", _TAG + "seq"):
            self._wrong(line, column, path, f"tag {str(node.tag)!r} is not allowed", "remove the tag")
        if isinstance(node, MappingNode):
            return Tree(line, column, self._mapping(node, path))
        if isinstance(node, SequenceNode):
            items = [self.read(each, (*path, index)) for index, each in enumerate(node.value)]
            return Tree(line, column, items)
        assert isinstance(node, ScalarNode)
        return Tree(line, column, self._scalar(node, path, line, column))

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Member]:
        members: dict[str, Member] = {}
        for key, value in node.value:
            line, column = key.start_mark.line + 1, key.start_mark.column + 1
            if not isinstance(key, ScalarNode) or key.tag == _TAG + "merge":
                self._wrong(
                    line, column, path, "a key must be plain text", "write the fields out, without <<"
                )
                continue
            name = str(key.value)
            if name in members:
                first = members[name]
                self._wrong(
                    line, column, (*path, name), f"key {name!r} stands twice, first in line {first.line}",
                    "keep one of them",
                )  # fmt: skip
                continue
            members[name] = Member(line, column, self.read(value, (*path, name)))
        return members

    def _scalar(
        self, node: ScalarNode, path: Path, line: int, column: int
    ) -> str | int | float | bool | None:
        text = str(node.value)
        match str(node.tag).removeprefix(_TAG):
            case "str" | "timestamp":
                if node.style is None and _OLD_BOOLEAN.fullmatch(text):
                    self._wrong(
                        line, column, path, f"kubectl reads {text} as true or false",
                        f'write "{text}" in quotes, or true or false',
                    )  # fmt: skip
                return text
            case "null":
                return None
            case "bool":
                return text.lower() == "true"
            case "int":
                if _DECIMAL.fullmatch(text) and len(text) <= 18:
                    return int(text)
                self._wrong(
                    line, column, path, f"number {text} is not read alike by all", "write it in decimal"
                )
                return 0
            case "float":
                return self._float(text, path, line, column)
            case tag:
                self._wrong(line, column, path, f"tag {tag!r} is not allowed", "remove the tag")
                return text

    def _float(self, text: str, path: Path, line: int, column: int) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            self._wrong(line, column, path, f"number {text} is not finite", "write a plain number")
            return 0.0
        return number

    def _wrong(self, line: int, column: int, path: Path, message: str, fix: str) -> None:
        self.problems.append(Problem(self.file, line, column, spell(path), message, fix))


class _TooLarge(Exception):
    def __init__(self, line: int, column: int) -> None:
        super().__init__()
        self.line, self.column = line, column


def read_documents(text: str, file: str) -> tuple[list[Tree], list[Problem]]:
    """Read all documents of one file; empty documents are left out.

    Returns:
        The trees in file order, and everything wrong with the YAML itself. After a syntax error the
        documents before it are still there.
    """
    reader = _Reader(file)
    trees: list[Tree] = []
    try:
        for count, node in enumerate(_compose(text)):
            if count >= DOCUMENTS_MAX:
                reader.problems.append(
                    Problem(file, 0, 0, "", f"more than {DOCUMENTS_MAX} documents", "split the file")
                )
                break
            tree = reader.read(node, ())
            if tree.value is not None:
                trees.append(tree)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        words = error.problem or error.context or "cannot be read"
        reader.problems.append(Problem(file, line, column, "", f"not YAML: {words}"))
    except YAMLError as error:  # characters that YAML forbids have no mark
        first = str(error).strip().splitlines()[0]
        reader.problems.append(Problem(file, 0, 0, "", f"not YAML: {first}"))
    except _TooLarge as error:
        words = f"more than {NODES_MAX:,} values or {DEPTH_MAX} levels"
        reader.problems.append(Problem(file, error.line, error.column, "", words, "split the file"))
    return trees, reader.problems


def _compose(text: str) -> Iterator[Node]:
    nodes: Iterator[Node | None] = YAML(typ="safe", pure=True).compose_all(text)
    return (node for node in nodes if node is not None)
