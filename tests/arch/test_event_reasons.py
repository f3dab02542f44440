"""Every reason that an Event or a blocked run can carry is explained to whoever is called at night."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/runbooks/operations.md"
CODE = re.compile(r"[A-Z][A-Za-z]+")


def codes_in(tree: ast.AST) -> Iterator[str]:
    """The codes that are given to a decision, to the end of a run, or to an Event."""
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call):
            continue
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        given = {
            "Wait": [each.value for each in call.keywords if each.arg == "blocked"],
            "GiveUp": call.args[1:2],
            "Veto": call.args[:1],
            "_tell": call.args[1:2],
            "tell": [each.value for each in call.keywords if each.arg == "reason"],
            "_end": call.args[2:3],
        }.get(name, [])
        for each in given:
            if isinstance(each, ast.Constant) and isinstance(each.value, str):
                yield each.value


def codes() -> set[str]:
    files = [*(ROOT / "remediator/core").rglob("*.py"), *(ROOT / "remediator/runtime").glob("*.py")]
    found = {code for path in files for code in codes_in(ast.parse(path.read_text("utf-8")))}
    return {code for code in found if CODE.fullmatch(code)}


def test_codes_are_found():
    """A search that finds nothing would make the next test pass."""
    assert codes() >= {"DrainTimedOut", "NoBuffer", "TaintRemoved", "RunStuck", "OrphanSwept", "NodeGone"}


def test_every_code_is_explained():
    """A word that no page explains is a riddle at three in the morning."""
    page = PAGE.read_text("utf-8")

    assert sorted(code for code in codes() if f"`{code}`" not in page) == []
