"""Is a new node fit to be let in? From signals that are there already, three-valued. Pure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final, Literal

from msgspec import UNSET, Struct

from remediator.core.joins.gate import waits_s
from remediator.core.owners import claimed_by_other
from remediator.model.duration import seconds, spoken
from remediator.model.joins import JoinsSpec
from remediator.model.keys import TAINT_QUARANTINE
from remediator.model.pool import ResourcePool
from remediator.model.views import NodeView

PREFLIGHT: Final = "PreflightPassed"
KARPENTER_POOL: Final = "karpenter.sh/nodepool"
# Karpenter puts back a startup taint that went before it has registered the node.
KARPENTER_REGISTERED: Final = "karpenter.sh/registered"


class Verdict(Struct, frozen=True, gc=False):
    """``True``: fit. ``False``: not fit, and it will not become so by itself. ``Unknown``: not yet."""

    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str


class Facts(Struct, frozen=True):
    """What is known of a node besides its Node.

    ``fault``: a confirmed fault, an open run, or a machine that is kept out; empty where there is none.
    ``page``: what is wrong with the exporter's page; None where none is expected or it is fresh.
    ``daemons``: which pods of DaemonSets are missing or not ready; None: nobody has looked yet.
    ``alike``: a member of its pool that serves, whose hardware labels it has to share; None: there is none.
    """

    node: NodeView
    pool: ResourcePool | None
    fault: str = ""
    conflicted: bool = False
    page: str | None = None
    daemons: str | None = ""
    alike: NodeView | None = None


Finding = Verdict | None


def preflight(facts: Facts, joins: JoinsSpec, now: datetime) -> Verdict:
    """Judge one node: what is wrong for good comes before what is not there yet.

    What is still not there by the deadline is wrong for good, until it is there.
    """
    found = [verdict for check in _CHECKS if (verdict := check(facts)) is not None]
    if not found:
        return Verdict("True", "Passed", _evidence(facts))
    wrong = next((each for each in found if each.status == "False"), None)
    if wrong is not None:
        return wrong
    waited_s = waits_s(facts.node, now)
    if waited_s > seconds(joins.deadline):
        late = f"not in after {spoken(waited_s)}, spec.joins.deadline is {joins.deadline}"
        return Verdict("False", "DeadlinePassed", f"{late}: {found[0].reason}: {found[0].message}")
    return found[0]


def worth_a_look(facts: Facts) -> bool:
    """Does everything hold that is known without a look at its pods?"""
    return all(check(facts) is None for check in _CHECKS if check is not _daemons)


def _ready(facts: Facts) -> Finding:
    if facts.node.ready:
        return None
    found = facts.node.condition("Ready")
    said = f"{found.reason}: {found.message}" if found is not None else "no Ready condition"
    return Verdict("Unknown", "NotReady", said[:256])


def _identity(facts: Facts) -> Finding:
    if not facts.conflicted:
        return None
    return Verdict("False", "IdentityConflict", "another live Node carries this machine's identity")


def _foreign(facts: Facts) -> Finding:
    other = claimed_by_other(facts.node)
    return Verdict("Unknown", "OwnedByOther", other) if other is not None else None


def _registered(facts: Facts) -> Finding:
    labels = facts.node.labels
    if KARPENTER_POOL in labels and labels.get(KARPENTER_REGISTERED) != "true":
        return Verdict("Unknown", "NotRegistered", f"Karpenter has not set {KARPENTER_REGISTERED} yet")
    return None


def _faultless(facts: Facts) -> Finding:
    if facts.fault:
        return Verdict("False", "FaultFound", facts.fault)
    if facts.node.taint(TAINT_QUARANTINE) is not None:
        return Verdict("False", "Quarantined", f"carries {TAINT_QUARANTINE}")
    return None


def _gpus(facts: Facts) -> Finding:
    wanted = facts.pool.spec.hardware_class if facts.pool is not None else UNSET
    if wanted is UNSET or facts.node.gpus == wanted.gpus:
        return None
    said = f"{facts.node.gpus} GPUs allocatable, the class has {wanted.gpus}"
    # A device plugin that starts reports fewer for a while; nothing reports too many for a while.
    return Verdict("False" if facts.node.gpus > wanted.gpus else "Unknown", "GpuCount", said)


def _hardware(facts: Facts) -> Finding:
    wanted = facts.pool.spec.hardware_class if facts.pool is not None else UNSET
    if wanted is UNSET:
        return None
    for key in wanted.compared:
        mine = facts.node.labels.get(key)
        if mine is None:
            return Verdict("Unknown", "HardwareUnknown", f"label {key} is not there yet")
        if facts.alike is not None and mine != facts.alike.labels.get(key):
            theirs = f"{facts.alike.name} has {facts.alike.labels.get(key, 'none')}"
            return Verdict("False", "WrongHardware", f"{key} is {mine}, {theirs}")
    return None


def _page(facts: Facts) -> Finding:
    return Verdict("Unknown", "NoFreshPage", facts.page) if facts.page is not None else None


def _daemons(facts: Facts) -> Finding:
    if facts.daemons is None:
        return Verdict("Unknown", "PodsUnknown", "its pods have not been looked at yet")
    return Verdict("Unknown", "DaemonSetsNotReady", facts.daemons) if facts.daemons else None


_CHECKS: Final[tuple[Callable[[Facts], Finding], ...]] = (
    _identity,
    _ready,
    _faultless,
    _foreign,
    _registered,
    _gpus,
    _hardware,
    _page,
    _daemons,
)


def _evidence(facts: Facts) -> str:
    said = ["Ready", "no fault"]
    if facts.pool is not None and facts.pool.spec.hardware_class is not UNSET:
        said.append(f"{facts.node.gpus} GPUs of the class of pool {facts.pool.metadata.name}")
    said.append("pods of DaemonSets ready")
    return ", ".join(said)
