"""Reads what others run and have set up in the cluster, on demand and bounded, for the doctor.

It keeps the few fields that are asked about and judges nothing. What is not served is absent, not an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from remediator.adapters.kube.errors import check_read
from remediator.adapters.kube.heartbeat import LEASES
from remediator.adapters.kube.listing import ReflectorSettings, consistent_list
from remediator.adapters.kube.wire import GarbledError, ObjectDecoder
from remediator.errors import PermanentError
from remediator.model.instant import read_instant
from remediator.ports import Clock, Lane, Transport

T = TypeVar("T")

READ_TIMEOUT_S: Final = 10.0
# 500 an item page: nobody has more than 20,000 DaemonSets, Deployments or Nodes.
BOUNDS: Final = ReflectorSettings(pages_max=40)

CRDS: Final = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
ADMISSION: Final = "/apis/admissionregistration.k8s.io/v1"
WORKLOADS: Final[Mapping[str, str]] = {
    "DaemonSet": "/apis/apps/v1/daemonsets",
    "Deployment": "/apis/apps/v1/deployments",
}
NODE_POOLS: Final = "/apis/karpenter.sh/v1/nodepools"
NODE_HEALTH_CHECKS: Final = "/apis/remediation.medik8s.io/v1alpha1/nodehealthchecks"


class Toleration(Struct, frozen=True):
    """As in a pod's spec; an empty key, effect or value is an absent one."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""


class Workload(Struct, frozen=True):
    """A DaemonSet or Deployment: its images, all words of its commands, what its pods tolerate and carry."""

    kind: str
    namespace: str
    name: str
    images: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    labels: Mapping[str, str] = {}

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


class Admission(Struct, frozen=True):
    """A ValidatingAdmissionPolicy with its binding of the same name.

    ``expressions`` are its validations; ``bound`` tells whether a binding names it; ``actions`` and ``param``
    are that binding's; ``warnings`` are what the server's type check says of its expressions.
    """

    expressions: tuple[str, ...]
    failure_policy: str
    bound: bool
    actions: tuple[str, ...] = ()
    param: str = ""
    warnings: tuple[str, ...] = ()


class Beat(Struct, frozen=True):
    """One kubelet's Lease: when it says it wrote, by its own clock, and when the server noted that write."""

    node: str
    said: datetime
    noted: datetime


async def served_groups(transport: Transport) -> frozenset[str]:
    """Names of the API groups that the server serves."""
    found = await _get(transport, "/apis", _Groups)
    return frozenset(each.name for each in found.groups)


async def custom_schema(transport: Transport, name: str) -> Mapping[str, Any]:
    """The structural schema of the stored version of one CustomResourceDefinition.

    Raises:
        PermanentError: it may not be read, or is not there (404).
    """
    found = await _get(transport, f"{CRDS}/{name}", _Crd)
    stored = [each for each in found.spec.versions if each.storage]
    return stored[0].schema.open_api if stored else {}


async def admission(transport: Transport, name: str) -> Admission | None:
    """The policy of that name with its binding; None where there is no such policy."""
    try:
        policy = await _get(transport, f"{ADMISSION}/validatingadmissionpolicies/{name}", _Policy)
    except PermanentError as error:
        if error.status != 404:
            raise
        return None
    try:
        binding = await _get(transport, f"{ADMISSION}/validatingadmissionpolicybindings/{name}", _Binding)
    except PermanentError as error:
        if error.status != 404:
            raise
        binding = _Binding()
    checked = policy.status.type_checking
    return Admission(
        expressions=tuple(each.expression for each in policy.spec.validations),
        failure_policy=policy.spec.failure_policy,
        bound=binding.spec.policy_name == name,
        actions=tuple(binding.spec.validation_actions),
        param=binding.spec.param_ref.name,
        warnings=tuple(each.warning for each in checked.expression_warnings) if checked is not UNSET else (),
    )


async def workloads(transport: Transport, clock: Clock, kind: str) -> tuple[Workload, ...]:
    """Every DaemonSet, or Deployment, of the cluster, by namespace and name."""
    decoder = ObjectDecoder(_Workload, lambda found: _workload(kind, found))
    return await _all(transport, clock, WORKLOADS[kind], decoder)


async def kubelet_beats(transport: Transport, clock: Clock) -> tuple[Beat, ...]:
    """The newest heartbeat of every kubelet whose Lease carries both times, by node name.

    The server notes its own time, in whole seconds, beside the kubelet's write of ``renewTime``.
    """
    decoder = ObjectDecoder(_Lease, _beat)
    return tuple(beat for beat in await _all(transport, clock, LEASES, decoder) if beat is not None)


async def karpenter_taints(transport: Transport, clock: Clock) -> Mapping[str, frozenset[str]]:
    """Taint keys that each Karpenter NodePool puts on its nodes, for good or until they have started."""
    return dict(await _all(transport, clock, NODE_POOLS, ObjectDecoder(_NodePool, _pool_taints)))


async def health_checks(transport: Transport, clock: Clock) -> tuple[str, ...]:
    """Names of the NodeHealthChecks of medik8s."""
    return await _all(
        transport, clock, NODE_HEALTH_CHECKS, ObjectDecoder(_Named, lambda found: found.metadata.name)
    )


async def _all(transport: Transport, clock: Clock, path: str, decoder: ObjectDecoder[T]) -> tuple[T, ...]:
    found = await consistent_list(transport, path, decoder, clock=clock, settings=BOUNDS)
    return tuple(found.views[key] for key in sorted(found.views))


async def _get(transport: Transport, path: str, type_: type[T]) -> T:
    response = await transport.request("GET", path, timeout_s=READ_TIMEOUT_S, lane=Lane.NORMAL)
    body = check_read(response, f"GET {path}")
    try:
        return msgspec.json.decode(body, type=type_)
    except ValueError as error:
        raise GarbledError(f"{path}: {error}") from error


# -- what the server sends, as far as it is read


class _Meta(Struct, rename="camel"):
    name: str = ""
    namespace: str = ""
    resource_version: str = ""


class _Named(Struct):
    metadata: _Meta


class _Group(Struct):
    name: str


class _Groups(Struct):
    groups: list[_Group] = []


class _Schema(Struct):
    open_api: dict[str, Any] = msgspec.field(default_factory=dict, name="openAPIV3Schema")


class _Version(Struct):
    storage: bool = False
    schema: _Schema = msgspec.field(default_factory=_Schema)


class _CrdSpec(Struct):
    versions: list[_Version] = []


class _Crd(Struct):
    spec: _CrdSpec


class _Validation(Struct):
    expression: str = ""


class _PolicySpec(Struct, rename="camel"):
    validations: list[_Validation] = []
    failure_policy: str = "Fail"


class _Warning(Struct):
    warning: str = ""


class _TypeChecking(Struct, rename="camel"):
    expression_warnings: list[_Warning] = []


class _PolicyStatus(Struct, rename="camel"):
    type_checking: _TypeChecking | UnsetType = UNSET


class _Policy(Struct):
    spec: _PolicySpec
    status: _PolicyStatus = msgspec.field(default_factory=_PolicyStatus)


class _ParamRef(Struct):
    name: str = ""


class _BindingSpec(Struct, rename="camel"):
    policy_name: str = ""
    validation_actions: list[str] = []
    param_ref: _ParamRef = msgspec.field(default_factory=_ParamRef)


class _Binding(Struct):
    spec: _BindingSpec = msgspec.field(default_factory=_BindingSpec)


class _Container(Struct):
    image: str = ""
    command: list[str] | None = None
    args: list[str] | None = None


class _PodSpec(Struct, rename="camel"):
    containers: list[_Container] = []
    tolerations: list[Toleration] | None = None


class _PodMeta(Struct):
    labels: dict[str, str] | None = None


class _Template(Struct):
    metadata: _PodMeta = msgspec.field(default_factory=_PodMeta)
    spec: _PodSpec = msgspec.field(default_factory=_PodSpec)


class _WorkloadSpec(Struct):
    template: _Template = msgspec.field(default_factory=_Template)


class _Workload(Struct):
    metadata: _Meta
    spec: _WorkloadSpec


def _workload(kind: str, found: _Workload) -> Workload:
    template = found.spec.template
    containers = template.spec.containers
    return Workload(
        kind=kind,
        namespace=found.metadata.namespace,
        name=found.metadata.name,
        images=tuple(each.image for each in containers),
        words=tuple(word for each in containers for word in (*(each.command or ()), *(each.args or ()))),
        tolerations=tuple(template.spec.tolerations or ()),
        labels=template.metadata.labels or {},
    )


class _Entry(Struct, rename="camel"):
    time: str | None = None
    fields_v1: Raw | UnsetType = msgspec.field(default=UNSET, name="fieldsV1")


class _LeaseMeta(_Meta, rename="camel"):
    managed_fields: list[_Entry] | None = None


class _LeaseSpec(Struct, rename="camel"):
    renew_time: str | None = None


class _Lease(Struct):
    metadata: _LeaseMeta
    spec: _LeaseSpec


def _beat(found: _Lease) -> Beat | None:
    noted = [
        each.time
        for each in found.metadata.managed_fields or ()
        if each.time and each.fields_v1 is not UNSET and b'"f:renewTime"' in bytes(each.fields_v1)
    ]
    said = read_instant(found.spec.renew_time or "")
    at = read_instant(noted[0]) if len(noted) == 1 else None
    return Beat(found.metadata.name, said, at) if said is not None and at is not None else None


class _KeyedTaint(Struct):
    key: str = ""


class _NodeTemplateSpec(Struct, rename="camel"):
    taints: list[_KeyedTaint] | None = None
    startup_taints: list[_KeyedTaint] | None = None


class _NodeTemplate(Struct):
    spec: _NodeTemplateSpec = msgspec.field(default_factory=_NodeTemplateSpec)


class _NodePoolSpec(Struct):
    template: _NodeTemplate = msgspec.field(default_factory=_NodeTemplate)


class _NodePool(Struct):
    metadata: _Meta
    spec: _NodePoolSpec = msgspec.field(default_factory=_NodePoolSpec)


def _pool_taints(found: _NodePool) -> tuple[str, frozenset[str]]:
    spec = found.spec.template.spec
    return found.metadata.name, frozenset(
        each.key for each in (*(spec.taints or ()), *(spec.startup_taints or ()))
    )
