"""The page of promises names tests that exist: a promise whose test was renamed or deleted is none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/safety.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE)))


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_promise_is_held_by_a_test_that_exists(file: str, test: str):
    """A name in a document proves nothing unless somebody can run it."""
    text = (ROOT / file).read_text(encoding="utf-8")

    assert re.search(rf"^(async )?def {test}\(" if test else r"^(async )?def test_", text, re.M), (file, test)


def test_every_promise_names_a_test():
    """A row without one would be a wish."""
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| Promise")]

    assert len(rows) >= 15
    assert [row for row in rows if "`tests/" not in row] == []
