"""Turns docstrings into the short descriptions of schemas and reference pages."""

from __future__ import annotations

import inspect


def short(docstring: str) -> str:
    """First paragraph on one line, with plain quotes around names."""
    return whole(docstring).split("\n\n", 1)[0]


def whole(docstring: str) -> str:
    """All paragraphs, each on one line, with plain quotes around names."""
    text = inspect.cleandoc(docstring).replace("``", "`")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
