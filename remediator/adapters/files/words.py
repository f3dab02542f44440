"""The words of schemas and reference pages: docstrings made short, and patterns said plainly."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from remediator.model.duration import PATTERN

# A DNS subdomain, as the API server wants names.
NAME_PATTERN: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"

# What a pattern asks for, in words. A pattern without a row shows itself.
PATTERN_WORDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        PATTERN: "write a duration such as 90s, 15m, 2h30m or 14d",
        r"^[a-z]([-a-z0-9]*[a-z0-9])?$": "lower-case letters, digits and '-'; begin with a letter",
        r"^[a-z]([-a-z0-9.]*[a-z0-9])?$": "lower-case letters, digits, '-' and '.'; begin with a letter",
        r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$": "lower-case letters, digits, '-' and '.'",
        r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$": "lower-case letters, digits and '-'",
        NAME_PATTERN: "lower-case letters, digits, '-' and '.'",
        r"^DCGM_[A-Z0-9_]+$": "write the exporter's field name, DCGM_FI_DEV_…",
    }
)


def short(docstring: str) -> str:
    """First paragraph on one line, with plain quotes around names."""
    return whole(docstring).split("\n\n", 1)[0]


def whole(docstring: str) -> str:
    """All paragraphs, each on one line, with plain quotes around names."""
    text = inspect.cleandoc(docstring).replace("``", "`")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
