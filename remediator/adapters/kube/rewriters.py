"""Who took our taint from a Node: read from the one watch line in which it went, and from nowhere else.

``managedFields`` is half of a Node's bytes and is never kept; it is decoded at that moment only.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from remediator.model.keys import TAINT_QUARANTINE
from remediator.model.views import NodeView, Rewrite

OWN_MANAGER: Final = "remediator"


class _Spec(Struct):
    taints: Raw = msgspec.field(default=Raw(b""), name="f:taints")


class _Fields(Struct):
    spec: _Spec | None = msgspec.field(default=None, name="f:spec")


class _Entry(Struct, rename="camel"):
    manager: str = ""
    subresource: str = ""
    fields: _Fields | None = msgspec.field(default=None, name="fieldsV1")


class _Meta(Struct, rename="camel"):
    managed_fields: list[_Entry] | None = None


class _Node(Struct):
    metadata: _Meta


class _Line(Struct):
    object: _Node


_lines: Final = msgspec.json.Decoder(_Line)


def note_rewrite(before: NodeView, after: NodeView, line: bytes) -> NodeView:
    """Say in ``after`` who took our taint away, for as long as it stays away.

    The owner of ``spec.taints`` after that write is who wrote the list without it. Where the list
    went as a whole nobody owns it, and nobody is named.

    Args:
        before: the Node as the cache had it.
        after: the Node as this line shows it.
        line: of a live watch; a list tells of no single write.
    """
    if before.taints == after.taints and before.rewrite is None:
        return after  # nearly every line: a heartbeat
    if before.uid != after.uid or after.taint(TAINT_QUARANTINE) is not None:
        return after
    if before.taint(TAINT_QUARANTINE) is None:
        return replace(after, rewrite=before.rewrite) if before.rewrite is not None else after
    manager = _owner_of_taints(line)
    if not manager or manager == OWN_MANAGER:
        return after
    return replace(after, rewrite=Rewrite(manager=manager, version=after.resource_version))


def _owner_of_taints(line: bytes) -> str:
    try:
        found = _lines.decode(line).object.metadata.managed_fields or ()
    except msgspec.MsgspecError:
        return ""  # the view itself was read from it; who wrote it stays unknown
    owners = {
        each.manager
        for each in found
        if not each.subresource and each.fields is not None and each.fields.spec is not None
        and bytes(each.fields.spec.taints)
    }  # fmt: skip
    return owners.pop() if len(owners) == 1 else ""
