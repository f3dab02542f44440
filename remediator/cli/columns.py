"""Lays words out in columns of at most 120 characters. Pure: values in, lines out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from textwrap import wrap
from typing import Final

WIDTH: Final = 120
GAP: Final = 2
LABEL_WIDTH: Final = 10
ROWS_MAX: Final = 40


def clip(text: str, width: int = WIDTH) -> str:
    """One line of at most ``width`` characters; what is cut off is marked by ``...``."""
    line = " ".join(text.split("\n")).rstrip()
    return line if len(line) <= width else f"{line[: width - 3].rstrip()}..."


def table(
    header: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = (), indent: int = 0
) -> list[str]:
    """Rows below their header, every column as wide as it has to be.

    Args:
        header: empty names are allowed.
        rows: as many cells each as the header has; more than 40 rows are counted, not shown.
        right: indexes of columns that are set to the right.
        indent: blanks before each line.
    """
    every = [[*row] for row in rows]
    shown = [list(header), *every[:ROWS_MAX]]
    widths = [max(len(row[index]) for row in shown) for index in range(len(header))]
    lines = [clip(" " * indent + _row(row, widths, right)) for row in shown]
    if len(every) > ROWS_MAX:
        lines.append(" " * indent + f"and {len(every) - ROWS_MAX} more")
    return lines


def _row(cells: Sequence[str], widths: Sequence[int], right: Sequence[int]) -> str:
    placed = (
        cell.rjust(width) if index in right else cell.ljust(width)
        for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return (" " * GAP).join(placed).rstrip()


def labelled(label: str, lines: Iterable[str], width: int = LABEL_WIDTH, *, whole: int = WIDTH) -> list[str]:
    """``LABEL`` once, its lines beside it, long ones wrapped below themselves.

    Args:
        width: of the label's column.
        whole: of the longest line, label included; less where the lines go beside a label once more.
    """
    found: list[str] = []
    for line in lines:
        for part in wrap(line, whole - width, break_long_words=True, break_on_hyphens=False) or [""]:
            head = label if not found else ""
            found.append(f"{head.ljust(width)}{part}".rstrip())
    return found
