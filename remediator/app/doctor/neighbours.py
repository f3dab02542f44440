"""Checks of what else runs in the cluster and touches the same nodes. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from msgspec import UNSET, Struct

from remediator.adapters.kube.neighbours import Toleration, Workload
from remediator.app.doctor.finding import Finding, Level, Unseen, unknown
from remediator.core.match import matches
from remediator.model.keys import TAINT_QUARANTINE
from remediator.model.policy import ExporterSpec
from remediator.model.pool import ResourcePool
from remediator.model.words import shortened

AUTOSCALER: Final = "cluster-autoscaler"
_TAINT_FLAGS: Final = ("--status-taint=", "--startup-taint=", "--ignore-taint=")
ROLE_FIX: Final = "bind the ClusterRole remediator-doctor, which may list them"


class Rival(Struct, frozen=True):
    """Something that also takes faulty nodes out, and how it shows."""

    name: str
    shows: Callable[[Workload], bool]
    fix: str


def _image(part: str) -> Callable[[Workload], bool]:
    return lambda found: any(part in image for image in found.images)


def _node_repair(found: Workload) -> bool:
    gated = any("NodeRepair=true" in word for word in found.words)
    return gated and any("karpenter" in image for image in found.images)


RIVALS: Final = (
    Rival("Karpenter's NodeRepair", _node_repair, "turn that feature gate off, or keep it off our pools"),
    Rival("draino", _image("/draino"), "retire it: its conditions belong into playbooks"),
    Rival("descheduler", _image("/descheduler"), "it evicts beside us; let it leave the pools' nodes alone"),
    Rival("kured", _image("/kured"), "its reboots count as out of service; give it a window of its own"),
    Rival("NVSentinel", _image("nvsentinel/fault-quarantine"), "two quarantines of one fault: turn one off"),
)


def daemon_sets(found: tuple[Workload, ...] | Unseen, exporter: ExporterSpec | None) -> Iterator[Finding]:
    """Which DaemonSets lose their place on a quarantined node? The exporter must not: verify reads its pages.

    A cordon bars no DaemonSet. Our taint does, once the pod has to be made anew: by an update, or because
    the Node is a new object.
    """
    if isinstance(found, Unseen):
        yield unknown("daemonsets", found, ROLE_FIX)
        return
    barred = [each for each in found if not tolerates(each.tolerations)]
    pages = [each for each in barred if exporter is not None and _is_exporter(each, exporter)]
    for each in pages:
        said = f"{each} is the exporter and does not tolerate {TAINT_QUARANTINE}: repair may end the page"
        fix = f"give it the toleration {{key: {TAINT_QUARANTINE}, operator: Exists}}"
        yield Finding("daemonsets", Level.FAILURE, said, fix)
    others = [str(each) for each in barred if each not in pages]
    if others:
        said = f"not made anew on a quarantined node: {shortened(others, 3)}"
        yield Finding("daemonsets", Level.NOTE, said, "let those tolerate it that a node under repair needs")
    if not barred:
        yield Finding("daemonsets", Level.OK, f"all {len(found)} DaemonSets tolerate {TAINT_QUARANTINE}")


def tolerates(tolerations: Iterable[Toleration]) -> bool:
    """Does a pod stand our quarantine, whatever value a playbook gives it?"""
    return any(
        each.operator == "Exists" and each.key in ("", TAINT_QUARANTINE) and each.effect in ("", "NoSchedule")
        for each in tolerations
    )


def autoscalers(found: tuple[Workload, ...] | Unseen) -> Iterator[Finding]:
    """Does the Cluster Autoscaler know what our taint means?"""
    if isinstance(found, Unseen):
        yield unknown("autoscaler", found, ROLE_FIX)
        return
    for each in found:
        if any(AUTOSCALER in image for image in each.images):
            yield _autoscaler(each)


def node_pools(
    found: Mapping[str, frozenset[str]] | Unseen, pools: Iterable[ResourcePool]
) -> Iterator[Finding]:
    """Do the taints that Karpenter puts on its nodes look like ours, or like those of a pool?"""
    if isinstance(found, Unseen):
        if not found.missing:
            yield unknown("karpenter", found, ROLE_FIX)
        return
    ours = {taint.key for pool in pools for taint in pool.spec.projection.taints}
    for name, keys in sorted(found.items()):
        if TAINT_QUARANTINE in keys:
            said = f"NodePool {name} puts {TAINT_QUARANTINE} on its nodes, as if we had quarantined them"
            yield Finding("karpenter", Level.FAILURE, said, "take that taint out of the NodePool")
        if keys & ours:
            said = f"NodePool {name} puts {', '.join(sorted(keys & ours))} on its nodes, as our pools do"
            yield Finding("karpenter", Level.NOTE, said)


def _autoscaler(found: Workload) -> Finding:
    flags = [word.split("=") for word in found.words if word.startswith(_TAINT_FLAGS)]
    known = {flag[1] for flag in flags}  # a value may follow the key
    if TAINT_QUARANTINE in known:
        return Finding("autoscaler", Level.OK, f"{found} knows {TAINT_QUARANTINE}")
    said = f"{found} does not know {TAINT_QUARANTINE}, and may take quarantined nodes for the kind to add"
    return Finding("autoscaler", Level.WARNING, said, f"add the argument --status-taint={TAINT_QUARANTINE}")


def rivals(found: tuple[Workload, ...] | Unseen, checks: tuple[str, ...] | Unseen) -> Iterator[Finding]:
    """Who else takes faulty nodes out?"""
    pairs: list[tuple[str, str]] = []
    if not isinstance(found, Unseen):
        pairs += [
            (f"{each} is {rival.name}, which acts on nodes too", rival.fix)
            for each in found
            for rival in RIVALS
            if rival.shows(each)
        ]
    if not isinstance(checks, Unseen) and checks:
        said = f"NodeHealthChecks of medik8s: {shortened(checks, 3)}"
        pairs.append((said, "let their selectors leave the pools' nodes out, or pause them"))
    yield from (Finding("rivals", Level.WARNING, said, fix) for said, fix in pairs)
    for unseen in (found, checks):
        if isinstance(unseen, Unseen) and not unseen.missing:
            yield unknown("rivals", unseen, ROLE_FIX)
            return
    if not pairs:
        yield Finding("rivals", Level.OK, "nothing known runs here that acts on faulty nodes, too")


def _is_exporter(found: Workload, exporter: ExporterSpec) -> bool:
    if exporter.pod_selector is UNSET or exporter.namespace not in ("", found.namespace):
        return False
    return matches(exporter.pod_selector, found.labels)
