"""What each playbook action writes, and what that needs: one literal table.

The plan's text, the RBAC manifests and the reference page are derived from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from msgspec import Struct


class Rule(Struct, frozen=True, gc=False):
    """One RBAC rule. ``namespace`` empty: cluster-wide; else a placeholder of deploy/."""

    group: str
    resource: str
    verbs: tuple[str, ...]
    namespace: str = ""


class ActionRow(Struct, frozen=True, gc=False):
    """``harms``: it takes capacity or pods away, so it needs a grant. ``undo``: how a veto reverts it."""

    writes: str
    rules: tuple[Rule, ...]
    harms: bool
    destroys: bool
    undo: str
    verify: str


_PATCH_NODES: Final = Rule("", "nodes", ("patch",))

ACTIONS: Final[Mapping[str, ActionRow]] = MappingProxyType(
    {
        "collect": ActionRow(
            "nothing but the record",
            (Rule("events.k8s.io", "events", ("list",)),),
            harms=False,
            destroys=False,
            undo="-",
            verify="evidence in the record",
        ),
        "quarantine": ActionRow(
            "Node: our taint, cordon, annotations run, prior, because",
            (_PATCH_NODES,),
            harms=True,
            destroys=False,
            undo="yes: prior is restored",
            verify="taint and cordon seen in the watch",
        ),
        "swap": ActionRow(
            "spare Node: membership label and projection of the pool",
            (_PATCH_NODES,),
            harms=False,
            destroys=False,
            undo="no: the spare stays (SurplusInPool)",
            verify="member, Ready, not cordoned, seen in the watch",
        ),
        "drain": ActionRow(
            "Eviction of each pod that must leave; where the kubelet is silent none, and with proof that the "
            "machine is off the taint node.kubernetes.io/out-of-service",
            (
                Rule("", "pods/eviction", ("create",)),
                Rule("policy", "poddisruptionbudgets", ("list",)),
                _PATCH_NODES,
            ),
            harms=True,
            destroys=True,
            undo="NO",
            verify="no pod that must leave, by a consistent LIST begun after our taint",
        ),
        "detach": ActionRow(
            "Node: membership label and projection of its pool removed, the Repair pool's added",
            (_PATCH_NODES,),
            harms=True,
            destroys=False,
            undo="yes: the projection is restored",
            verify="not a member, seen in the watch",
        ),
        "repair": ActionRow(
            "Job in the repair namespace, or nothing for a hand-off",
            (
                Rule("", "podtemplates", ("get",), "repair"),
                Rule("batch", "jobs", ("create", "get", "list", "watch"), "repair"),
            ),
            harms=True,
            destroys=True,
            undo="NO",
            verify="changed bootID",
        ),
        "verify": ActionRow(
            "nothing", (), harms=False, destroys=False, undo="-", verify="fresh good signals for quietFor"
        ),
        "return": ActionRow(
            "Node: our taint, cordon and annotations removed, membership and projection of the buffer",
            (_PATCH_NODES,),
            harms=False,
            destroys=False,
            undo="yes",
            verify="a spare, seen in the watch",
        ),
        "report": ActionRow(
            "nothing but the record and an Event",
            (),
            harms=False,
            destroys=False,
            undo="-",
            verify="-",
        ),
    }
)


def harmful(actions: tuple[str, ...]) -> bool:
    """Does any of these need the fleet's grant?"""
    return any(ACTIONS[action].harms for action in actions)
