"""Which kinds are served, and in what each differs from the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from remediator.sim.refusal import Json
from remediator.sim.schema import Schema

_META_FIELDS: Final = {"metadata.name": ("metadata", "name"), "metadata.namespace": ("metadata", "namespace")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind that is served.

    ``status``: writes of the object leave ``status`` alone, and writes of the subresource only change it.
    ``born_with_status``: except that a creation may bring one. ``generation``: counts changes of spec.
    ``blind_updates``: an update without resourceVersion is taken. ``fields``: what it can be selected by
    beside name and namespace, and ``indexed`` which of these are used often. ``subresources`` beside status.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    status: bool = True
    born_with_status: bool = False
    generation: bool = False
    blind_updates: bool = True
    custom: bool = False
    schema: Schema | None = None
    fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    indexed: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    short_names: tuple[str, ...] = ()
    columns: tuple[Json, ...] = ()

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """As refusals write it: ``nodes``, ``jobs.batch``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def selectable(self) -> dict[str, tuple[str, ...]]:
        return {**_META_FIELDS, **self.fields}


def _kind(api: str, plural: str, kind: str, **more: Any) -> Kind:
    group, _, version = api.rpartition("/")
    return Kind(group=group, version=version, plural=plural, kind=kind, **more)


_EVENT_FIELDS: Final = {
    "type": ("type",),
    "reason": ("reason",),
    "regarding.kind": ("regarding", "kind"),
    "regarding.name": ("regarding", "name"),
    "regarding.namespace": ("regarding", "namespace"),
    "regarding.uid": ("regarding", "uid"),
}

BUILT_IN: Final = (
    _kind(
        "apiextensions.k8s.io/v1", "customresourcedefinitions", "CustomResourceDefinition",
        namespaced=False, generation=True, short_names=("crd",),
    ),
    _kind(
        "v1", "nodes", "Node",
        namespaced=False, born_with_status=True, short_names=("no",),
        fields={"spec.unschedulable": ("spec", "unschedulable")},
    ),
    _kind(
        "v1", "pods", "Pod",
        subresources=("eviction", "binding"), short_names=("po",), indexed=("spec.nodeName",),
        fields={
            "spec.nodeName": ("spec", "nodeName"),
            "spec.schedulerName": ("spec", "schedulerName"),
            "status.phase": ("status", "phase"),
        },
    ),
    _kind("v1", "namespaces", "Namespace", namespaced=False, short_names=("ns",)),
    _kind("v1", "configmaps", "ConfigMap", status=False, short_names=("cm",)),
    _kind("v1", "serviceaccounts", "ServiceAccount", status=False, short_names=("sa",)),
    _kind("v1", "podtemplates", "PodTemplate", status=False),
    _kind("v1", "persistentvolumeclaims", "PersistentVolumeClaim", short_names=("pvc",)),
    _kind(
        "events.k8s.io/v1", "events", "Event",
        status=False, fields=_EVENT_FIELDS, indexed=("regarding.name",),
    ),
    _kind("coordination.k8s.io/v1", "leases", "Lease", status=False),
    _kind("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget", generation=True, short_names=("pdb",)),
    _kind("scheduling.k8s.io/v1", "priorityclasses", "PriorityClass", namespaced=False, status=False),
    _kind("batch/v1", "jobs", "Job", generation=True),
    _kind("apps/v1", "deployments", "Deployment", generation=True, short_names=("deploy",)),
    _kind("apps/v1", "replicasets", "ReplicaSet", generation=True, short_names=("rs",)),
    _kind("apps/v1", "statefulsets", "StatefulSet", generation=True, short_names=("sts",)),
    _kind("apps/v1", "daemonsets", "DaemonSet", generation=True, short_names=("ds",)),
)  # fmt: skip


def custom_kinds(definition: Json) -> Iterable[Kind]:
    """What a CustomResourceDefinition adds: one kind for each version that it serves."""
    spec = definition["spec"]
    names = spec["names"]
    for version in spec["versions"]:
        if not version.get("served"):
            continue
        yield Kind(
            group=spec["group"],
            version=version["name"],
            plural=names["plural"],
            kind=names["kind"],
            namespaced=spec["scope"] == "Namespaced",
            status="status" in (version.get("subresources") or {}),
            generation=True,
            blind_updates=False,
            custom=True,
            schema=Schema(version["schema"]["openAPIV3Schema"]),
            fields={
                each["jsonPath"].lstrip("."): tuple(each["jsonPath"].lstrip(".").split("."))
                for each in version.get("selectableFields") or ()
            },
            short_names=tuple(names.get("shortNames") or ()),
            columns=tuple(version.get("additionalPrinterColumns") or ()),
        )
