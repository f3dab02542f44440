"""Lines that fit a terminal of 120 columns, whatever names people choose."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remediator.cli.columns import ROWS_MAX, WIDTH, clip, labelled, table
from remediator.model.words import how_many, shortened

WORDS = st.text([chr(code) for code in range(32, 127)], max_size=300)


def test_table_sets_columns_under_their_header():
    """Numbers to the right, words to the left, nothing behind the last column."""
    lines = table(("NAME", "N"), [("a", "1"), ("long-name", "10")], right=(1,))

    assert lines == ["NAME        N", "a           1", "long-name  10"]


def test_table_counts_the_rows_that_it_does_not_show():
    """1,000 runs must not scroll the first ones away."""
    lines = table(("N",), [(str(number),) for number in range(ROWS_MAX + 3)])

    assert len(lines) == ROWS_MAX + 2
    assert lines[-1] == "and 3 more"


@given(st.lists(st.tuples(WORDS, WORDS), max_size=5))
def test_table_never_is_wider_than_the_terminal(rows):
    """A wrapped table is no table."""
    assert all(len(line) <= WIDTH for line in table(("A", "B"), rows))


@given(WORDS)
def test_labelled_lines_never_are_wider_than_the_terminal(text):
    """Long reasons go on below themselves; nothing of them is lost."""
    lines = labelled("SEEN", [text])

    assert all(len(line) <= WIDTH for line in lines)
    assert "".join("".join(line[10:].split()) for line in lines) == "".join(text.split())


def test_clip_marks_what_it_cuts():
    """A cut that does not show would be read as the whole."""
    assert clip("x" * 200) == "x" * 117 + "..."
    assert clip("x" * 120) == "x" * 120


def test_shortened_says_how_many_more():
    assert shortened(["a", "b", "c"], 2) == "a, b and 1 more"
    assert shortened(["a"], 2) == "a"
    assert shortened([]) == ""


@pytest.mark.parametrize(("count", "said"), [(0, "0 errors"), (1, "1 error"), (2, "2 errors")])
def test_how_many_knows_the_singular(count, said):
    """Who reads "1 errors" believes the number less."""
    assert how_many(count, "error") == said
