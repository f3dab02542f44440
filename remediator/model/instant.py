"""Instants as Kubernetes writes them: RFC 3339, UTC, microseconds only where they matter."""

from __future__ import annotations

from datetime import UTC, datetime


def read_instant(text: str) -> datetime | None:
    """Aware UTC time of an RFC 3339 text, or None for the empty text.

    Raises:
        ValueError: the text is not a time, or carries no zone.
    """
    if not text:
        return None
    parsed = datetime.fromisoformat(text)
    if parsed.tzinfo is None:
        raise ValueError(f"a time without zone: {text!r}")
    return parsed.astimezone(UTC)


def write_instant(at: datetime) -> str:
    """``2026-11-22T03:14:07.123456Z``; whole seconds without a fraction."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
