"""What is wrong with exporter pages: the fix of each trouble, and a pool's condition about them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

from remediator.errors import PageTroubleKind
from remediator.model.meta import Condition
from remediator.model.signal import PageTrouble
from remediator.model.words import how_many, shortened

EXPORTER_PAGES: Final = "ExporterPages"
_KINDS_SHOWN: Final = 4
_SPEC: Final = "RemediationPolicy/cluster spec.exporter"

FIXES: Final[Mapping[PageTroubleKind, str]] = MappingProxyType(
    {
        "Unreachable": "does the exporter run there, and does a NetworkPolicy let the controller in?",
        "TimedOut": f"look at the exporter's load; timeout in {_SPEC} may be as long as its period",
        "HttpStatus": f"address, port and path of {_SPEC} must lead to the page itself",
        "NotMetrics": f"address, port and path of {_SPEC} lead to something else",
        "TooLarge": f"does {_SPEC} lead to one node's exporter, and not to a collector?",
        "NotFetched": f"does {_SPEC} select the node, and an exporter pod run on it?",
        "OtherNode": f"address of {_SPEC} must lead to each node's own exporter",
        "NoGpus": "is it the DCGM exporter, and does nvidia-smi on the node list GPUs?",
        "BadLines": "the rest of the page counts; look at the exporter's version and at proxies before it",
    }
)


def spoken_trouble(trouble: PageTrouble) -> str:
    """The trouble and its fix, in one line."""
    return f"{trouble.text} ({FIXES[trouble.kind]})"


def pages_condition(
    troubles: Mapping[str, PageTrouble] | None, *, expected: int, uncovered: str
) -> Condition | None:
    """Say whether the pages of a pool's nodes are read, or None where no playbook needs one.

    Args:
        troubles: by node name; a page of which a part is skipped is in it too. None where no
            exporter is configured.
        expected: how many nodes of the pool should have a page.
        uncovered: why nothing may be done on what the pool's pages say, or empty.
    """
    if expected == 0:
        return None
    if troubles is None:
        return _condition("Unknown", "NotConfigured", f"playbooks read exporter pages: write {_SPEC}")
    if not troubles:
        return _condition("True", "AllRead", "")
    said = [*([f"nothing is done on what pages say: {uncovered}"] if uncovered else []), *_by_kind(troubles)]
    whole = all(trouble.kind == "BadLines" for trouble in troubles.values())
    if whole:
        return _condition("True", "LinesSkipped", "; ".join(said))
    return _condition("False", "CoverageLow" if uncovered else "NotAllRead", "; ".join(said))


def _by_kind(troubles: Mapping[str, PageTrouble]) -> list[str]:
    """One line a kind, that of most nodes first: how many, which, one of them in full, the fix."""
    nodes: dict[PageTroubleKind, list[str]] = {}
    for node in sorted(troubles):
        nodes.setdefault(troubles[node].kind, []).append(node)
    kinds = sorted(nodes, key=lambda kind: (kind == "BadLines", -len(nodes[kind]), kind))
    lines = []
    for kind in kinds[:_KINDS_SHOWN]:
        example = spoken_trouble(troubles[nodes[kind][0]])
        lines.append(f"{len(nodes[kind])} {kind}, {shortened(nodes[kind])}: {example}")
    more = len(kinds) - _KINDS_SHOWN
    if more > 0:
        lines.append(f"and {how_many(more, 'kind')} of trouble more")
    return lines


def _condition(status: Literal["True", "False", "Unknown"], reason: str, message: str) -> Condition:
    return Condition(type=EXPORTER_PAGES, status=status, reason=reason, message=message[:1_024])
