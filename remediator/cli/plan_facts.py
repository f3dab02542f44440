"""What a plan costs: who leaves in which order, and what stands in the way. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from msgspec import UNSET, Struct

from remediator.core.gates import Case
from remediator.core.steps.drain import band_key, gang_of, is_protected, must_leave
from remediator.model.playbook import DrainStep, PlaybookInForce
from remediator.model.policy import PolicySpec
from remediator.model.views import NodeView, PdbView, PodView
from remediator.ports import PodListing


class Band(Struct, frozen=True):
    """Pods that are evicted together: one priority, one QoS class."""

    pods: tuple[str, ...]
    priority: int
    qos: str
    pdbs: tuple[str, ...]  # "ml/infer 2 may go"
    grace_s: int
    notes: tuple[str, ...]


class Leaving(Struct, frozen=True):
    """Everything about the pods of one node. ``known`` False: they were not read."""

    known: bool = False
    bands: tuple[Band, ...] = ()
    daemons: int = 0
    mirrors: int = 0
    finished: int = 0
    critical: int = 0
    gangs: tuple[str, ...] = ()
    gpus: int = 0

    @property
    def count(self) -> int:
        return sum(len(band.pods) for band in self.bands)


class Spares(Struct, frozen=True):
    """The buffer's nodes in the order of choice; ``refused`` as (name, why)."""

    wanted: bool
    chosen: str
    where: str
    next: tuple[tuple[str, str], ...]
    refused: tuple[tuple[str, str], ...]


def leaving(
    node: NodeView, listing: PodListing, playbook: PlaybookInForce, policy: PolicySpec, *, soft: bool
) -> Leaving:
    """Sort the node's pods into bands, as the drain step will."""
    step = _drain_step(playbook)
    # Pods older than the Node belonged to a machine that had this name before.
    pods = [pod for pod in listing.pods if not pod.created_at or pod.created_at >= node.created_at]
    if step is None:
        return Leaving(known=True)
    going = sorted((pod for pod in pods if must_leave(pod, step)), key=band_key)
    waits = frozenset(pod.uid for pod in going if soft and is_protected(pod, policy, listing.tolerant))
    bands = tuple(
        _band(list(group), listing.pdbs, step, policy, waits)
        for _, group in groupby(going, key=lambda pod: band_key(pod)[:2])
    )
    staying = [pod for pod in pods if not must_leave(pod, step)]
    daemons = sum(pod.owner_kind == "DaemonSet" for pod in staying)
    mirrors = sum(pod.mirror and pod.owner_kind != "DaemonSet" for pod in staying)
    finished = sum(pod.finished and not pod.mirror and pod.owner_kind != "DaemonSet" for pod in staying)
    return Leaving(
        known=True,
        bands=bands,
        daemons=daemons,
        mirrors=mirrors,
        finished=finished,
        critical=len(staying) - daemons - mirrors - finished,
        gangs=tuple(sorted({gang_of(pod, policy) for pod in going} - {""})),
        gpus=sum(pod.gpus for pod in going),
    )


def spares(case: Case) -> Spares:
    """The ranking with every refusal."""
    fit = [each for each in case.ranked if not each.refused]
    chosen = case.spare.node.name if case.spare is not None else ""
    return Spares(
        wanted="swap" in case.request.playbook.actions and case.pool is not None,
        chosen=chosen,
        where=case.spare.where if case.spare is not None else "",
        next=tuple((each.node.name, each.where) for each in fit if each.node.name != chosen),
        refused=tuple((each.node.name, each.refused) for each in case.ranked if each.refused),
    )


def _drain_step(playbook: PlaybookInForce) -> DrainStep | None:
    for step in playbook.spec.steps:
        if step.drain is not UNSET:
            return step.drain
    return None


def _band(
    pods: list[PodView], pdbs: Iterable[PdbView], step: DrainStep, policy: PolicySpec, waits: frozenset[str]
) -> Band:
    budgets = sorted({f"{pdb.namespace}/{pdb.name} {_lets(pdb)}" for pod in pods for pdb in pdbs
                      if _selects(pdb, pod)})  # fmt: skip
    notes: set[str] = set()
    for pod in pods:
        notes |= _notes(pod, step, policy)
        notes |= {f"protected: waits {step.protect_deadline}"} if pod.uid in waits else set()
    return Band(
        pods=tuple(pod.key for pod in pods),
        priority=pods[0].priority,
        qos=pods[0].qos,
        pdbs=tuple(budgets),
        grace_s=max(pod.grace_s for pod in pods),
        notes=tuple(sorted(notes)),
    )


def _notes(pod: PodView, step: DrainStep, policy: PolicySpec) -> set[str]:
    found = set()
    if gang_of(pod, policy):
        found.add("gang")
    if not pod.owner_kind:
        found.add("no controller: Held" if step.bare == "Hold" else "no controller: lost")
    if pod.empty_dir:
        found.add("scratch data: Held" if step.empty_dir == "Hold" else "scratch data lost")
    if pod.deleting:
        found.add("terminating")
    return found


def _selects(pdb: PdbView, pod: PodView) -> bool:
    labels = pdb.match_labels.items()
    return pdb.namespace == pod.namespace and bool(labels) and all(pod.labels.get(k) == v for k, v in labels)


def _lets(pdb: PdbView) -> str:
    return f"{pdb.disruptions_allowed} may go" if pdb.disruptions_allowed else "lets none go"
