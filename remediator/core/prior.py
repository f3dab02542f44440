"""What a node looked like before our first write, so that undo restores it and never "cleans". Pure."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from remediator.model.keys import ANNOTATION_PRIOR
from remediator.model.views import NodeView


class Prior(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """``unschedulable``: the cordon is not ours, it stays; the rest is what ``detach`` took away."""

    unschedulable: bool = False
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    taints: tuple[msgspec.Raw, ...] = ()


def parse_prior(text: str) -> Prior | None:
    """Read what ``write_prior`` wrote; None for anything else."""
    if not text:
        return None
    try:
        return msgspec.json.decode(text, type=Prior)
    except msgspec.MsgspecError:
        return None


def read_prior(node: NodeView) -> Prior | None:
    """The prior state that the node itself carries, or None when it carries none that we can read."""
    return parse_prior(node.annotations.get(ANNOTATION_PRIOR, ""))


def write_prior(prior: Prior) -> str:
    return msgspec.json.encode(prior).decode()
