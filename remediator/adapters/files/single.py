"""Reads a file that holds one value of one type, and names every error of it by line, column and field."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from remediator.adapters.files.schema import Schema, strict_schema
from remediator.adapters.files.tree import Path as TreePath
from remediator.adapters.files.tree import Tree, read_documents, spell
from remediator.adapters.files.walker import walk
from remediator.errors import InputError, Problem

T = TypeVar("T", bound=msgspec.Struct)
BYTES_MAX: Final = 1 << 20


def read_single(path: Path, type_: type[T]) -> tuple[T, Tree]:
    """Read one file: YAML, or JSON, which is YAML as well.

    Returns:
        The value, and the tree that knows where each part of it stands.

    Raises:
        InputError: it can't be read, or anything in it is wrong; carries every problem.
    """
    try:
        with path.open("rb") as file:
            content = file.read(BYTES_MAX + 1)
        text = content.decode()
    except OSError as error:
        raise _wrong(path, f"can't be read: {error.strerror}", "write the path of a file") from error
    except UnicodeDecodeError as error:
        raise _wrong(path, "is no text", "write YAML in UTF-8") from error
    if len(content) > BYTES_MAX:
        raise _wrong(path, f"is larger than {BYTES_MAX:,} bytes", "this is another kind of file")
    return parse_single(text, str(path), type_)


def parse_single(text: str, name: str, type_: type[T]) -> tuple[T, Tree]:
    """The same for a text; ``name`` is what problems call it."""
    trees, problems = read_documents(text, name)
    if not problems and len(trees) != 1:
        problems = [Problem(name, 0, 0, "", f"holds {len(trees)} documents", "write exactly one")]
    if not problems:
        problems = walk(trees[0], _schema(type_), name)
    if problems:
        raise InputError(tuple(problems))
    try:
        return msgspec.convert(trees[0].plain(), type_), trees[0]
    except msgspec.ValidationError as error:  # a gap between the schema and the type
        raise InputError((Problem(name, trees[0].line, trees[0].column, "", str(error)),)) from error


def located(tree: Tree, file: str, path: TreePath, wrong: str, fix: str) -> Problem:
    """What is wrong at a path of such a file, with its line and column."""
    return Problem(file, *tree.where(path), spell(path), wrong, fix)


def single_schema(type_: type[msgspec.Struct]) -> str:
    """The text of the editor schema of such a file."""
    return json.dumps(_schema(type_), indent=2, ensure_ascii=False) + "\n"


@cache
def _schema(type_: type[msgspec.Struct]) -> Schema:
    return strict_schema(type_, type_.__name__)


def _wrong(path: Path, message: str, fix: str) -> InputError:
    return InputError((Problem(str(path), 0, 0, "", message, fix),))
