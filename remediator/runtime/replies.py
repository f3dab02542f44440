"""Versions that our writes lead to in the watch: that of the reply, or the one after a conflict."""

from __future__ import annotations

import msgspec


class _Meta(msgspec.Struct, rename="camel"):
    resource_version: str = ""


class _Object(msgspec.Struct):
    metadata: _Meta


def resource_version(body: bytes) -> str:
    """resourceVersion of a returned object; empty text when there is no body."""
    return msgspec.json.decode(body, type=_Object).metadata.resource_version if body else ""


def version_after(version: str) -> str:
    """The lowest version that somebody else's write can have."""
    return str(int(version) + 1)
