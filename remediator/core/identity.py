"""Which machine a Node is. Pure; what is remembered of a machine is the ledger's affair."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Final, Literal

from msgspec import Struct

from remediator.model.policy import IdentitySpec
from remediator.model.views import NodeView

NAME_MAX: Final = 50

# What boards report whose maker, or refurbisher, never wrote one; thousands share each of these.
BOGUS: Final = frozenset(
    {
        "00000000-0000-0000-0000-000000000000",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
        "fefefefe-fefe-fefe-fefe-fefefefefefe",
        "03000200-0400-0500-0006-000700080009",
        "00020003-0004-0005-0006-000700080009",
        "12345678-1234-5678-90ab-cddeefaabbcc",
        "11111111-2222-3333-4444-555555555555",
        "4c4c4544-0000-2010-8020-80c04f202020",
        "deadbeef-dead-beef-dead-beefdeadbeef",
        "not settable",
        "not present",
        "not specified",
        "not applicable",
        "to be filled by o.e.m.",
        "default string",
        "system serial number",
        "0123456789",
        "none",
        "null",
        "unknown",
        "n/a",
        "0",
    }
)


class Identity(Struct, frozen=True, gc=False):
    """A machine's identity and where it was read. ``weak``: it dies with the Node object."""

    text: str
    source: Literal["label", "annotation", "systemUUID", "providerID", "uid"]

    @property
    def weak(self) -> bool:
        return self.source == "uid"


def identify(node: NodeView, spec: IdentitySpec) -> Identity:
    """Find the identity: asset tag, system UUID, provider's ID, and only then the Node's uid.

    Args:
        node: its annotations must include those that ``spec`` names.
        spec: labels, then annotations; the first that is present and no placeholder wins.
    """
    for key in spec.labels:
        if _usable(node.labels.get(key, "")):
            return Identity(node.labels[key].strip(), "label")
    for key in spec.annotations:
        if _usable(node.annotations.get(key, "")):
            return Identity(node.annotations[key].strip(), "annotation")
    if _usable(node.system_uuid):
        # Firmware and kernels do not agree on the case of these.
        return Identity(node.system_uuid.strip().lower(), "systemUUID")
    if _usable(node.provider_id):
        return Identity(node.provider_id.strip(), "providerID")
    return Identity(node.uid, "uid")


def machine_object_name(text: str) -> str:
    """Name of the objects of a machine: lower case, any other character '-', at most 50.

    If that changed anything, '-' and six hex digits of the sha256 of ``text`` follow, so that two
    machines never share a name.
    """
    name = re.sub(r"[^a-z0-9-]", "-", text.lower())[:NAME_MAX].strip("-")
    if name == text and name:
        return name
    return f"{name or 'machine'}-{sha256(text.encode()).hexdigest()[:6]}"


def machine_name(node: NodeView, spec: IdentitySpec) -> str:
    """Name of the objects of the machine behind ``node``."""
    return machine_object_name(identify(node, spec).text)


def conflicts(nodes: Iterable[NodeView], spec: IdentitySpec) -> Mapping[str, tuple[str, ...]]:
    """Machines that two live Nodes claim to be: by identity text the names of those Nodes, sorted.

    A Node that is being deleted does not count: its successor may be here already.
    """
    found: dict[str, list[str]] = {}
    for node in nodes:
        if not node.deleting:
            found.setdefault(identify(node, spec).text, []).append(node.name)
    return {text: tuple(sorted(names)) for text, names in found.items() if len(names) > 1}


def _usable(text: str) -> bool:
    return bool(text.strip()) and text.strip().lower() not in BOGUS
