"""Reads on demand what no cache holds: pods of a node, Events, a Job, the policy as it is now.

Always from the server itself, always bounded, never retried here: who asks decides about that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from sys import intern
from typing import Final, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct

from remediator.adapters.kube.bodies import EVENT_NAMESPACE
from remediator.adapters.kube.errors import check_read, read_verdict
from remediator.adapters.kube.heartbeat import LEASES, read_heartbeat
from remediator.adapters.kube.listing import ReflectorSettings, consistent_list
from remediator.adapters.kube.projection import job_decoder, pdb_decoder, pod_decoder
from remediator.adapters.kube.records import POLICIES, RUNS
from remediator.adapters.kube.wire import ObjectDecoder
from remediator.errors import PermanentError
from remediator.model.instant import read_instant
from remediator.model.keys import POLICY_NAME, TOLERATES_PREEMPTION
from remediator.model.meta import LabelRequirement, LabelSelector, ObjectMeta
from remediator.model.policy import RemediationPolicy
from remediator.model.views import EventView, JobView, LeaseView, PdbView, PodView
from remediator.ports import Clock, Lane, PodListing, PolicyObject, Response, Transport

PODS: Final = "/api/v1/pods"
EVENTS: Final = f"/apis/events.k8s.io/v1/namespaces/{EVENT_NAMESPACE}/events"
CLASSES: Final = "/apis/scheduling.k8s.io/v1/priorityclasses"
PDB_NAMESPACES_MAX: Final = 32
CLASSES_MAX: Final = 32
CLASS_KEPT_S: Final = 60.0
EVENT_LINE_CHARS_MAX: Final = 512
GET_TIMEOUT_S: Final = 10.0
UNREADABLE_NAMED_MAX: Final = 3
# 500 an item page: more than 10,000 pods or Events of one node, or exporter pods, are no real answer.
BOUNDS: Final = ReflectorSettings(pages_max=40)

_NEVER: Final = datetime.min.replace(tzinfo=UTC)

T = TypeVar("T")


class KubeReader:
    """``ports.Reader`` from an API server.

    Args:
        transport: the seam; reads go through ``Lane.NORMAL``, Events through ``Lane.BULK``.
        clock: lets others run between the slices of a long list.
        gpu_resource, pod_annotations: as of ``projection.pod_decoder``.
    """

    def __init__(
        self, transport: Transport, *, clock: Clock, gpu_resource: str, pod_annotations: frozenset[str]
    ) -> None:
        self._transport = transport
        self._clock = clock
        self._pdbs = pdb_decoder()
        self._jobs = job_decoder()
        self._events = ObjectDecoder(_Event, _event_view)
        self._addresses = ObjectDecoder(_AddressPod, lambda pod: pod)
        self._policies = policy_decoder()
        self._class = ObjectDecoder(_PriorityClass, _tolerates_preemption)
        self._classes: dict[str, tuple[float, bool]] = {}  # until when it is believed, and what
        self.keep(gpu_resource=gpu_resource, pod_annotations=pod_annotations)

    def keep(self, *, gpu_resource: str, pod_annotations: frozenset[str]) -> None:
        """Change what is kept of a pod; holds from the next read on."""
        self._pods = pod_decoder(gpu_resource=gpu_resource, annotations=pod_annotations)

    async def pods_of(self, node: str) -> PodListing:
        """List every pod bound to ``node`` as of one moment, and the budgets that may protect them.

        Returns:
            Pods and PodDisruptionBudgets by namespace and name. Budgets of the namespaces whose
            pods could be evicted only, of at most 32: they name who blocks, the server decides.
            Of at most 32 of the pods' PriorityClasses those that tolerate being preempted only for a while.

        Raises:
            TransientError: a list failed or expired.
            PermanentError: 403; or a pod that cannot be read, since unknown is not empty.
        """
        listing = await consistent_list(
            self._transport,
            PODS,
            self._pods,
            clock=self._clock,
            query={"fieldSelector": f"spec.nodeName={node}"},
            settings=BOUNDS,
        )
        if listing.undecodable:
            raise PermanentError(f"pods of node {node}: {_unreadable(listing.undecodable)}")
        pods = tuple(listing.views[key] for key in sorted(listing.views))
        pdbs: list[PdbView] = []
        for namespace in _evictable_namespaces(pods)[:PDB_NAMESPACES_MAX]:
            pdbs += await self._pdbs_of(namespace)
        return PodListing(pods=pods, pdbs=tuple(pdbs), tolerant=await self._tolerant(pods))

    async def _tolerant(self, pods: Iterable[PodView]) -> frozenset[str]:
        """Which PriorityClasses of these pods carry the mark of the scheduler-plugins; read once a minute."""
        now, names = self._clock.monotonic(), sorted({pod.priority_class for pod in pods} - {""})
        found = set()
        for name in names[:CLASSES_MAX]:
            until, tolerates = self._classes.get(name, (now, False))
            if until <= now:
                tolerates = await self._one(f"{CLASSES}/{name}", self._class) or False
                self._classes[name] = (now + CLASS_KEPT_S, tolerates)
            if tolerates:
                found.add(name)
        self._classes = {name: kept for name, kept in self._classes.items() if kept[0] > now}
        return frozenset(found)

    async def _pdbs_of(self, namespace: str) -> list[PdbView]:
        path = f"/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets"
        listing = await consistent_list(self._transport, path, self._pdbs, clock=self._clock, settings=BOUNDS)
        return [listing.views[key] for key in sorted(listing.views)]

    async def events_of(self, node: str, uid: str, *, newest: int) -> tuple[EventView, ...]:
        """List the newest Events that regard the Node.

        Returns:
            At most ``newest``, oldest first; a line is ``TIME TYPE REASON NOTE xCOUNT`` and at most
            512 characters long, without a count where there was one only.

        Raises:
            TransientError, PermanentError: they could not be read.

        Source: kubelet and node-problem-detector put the node's name where its uid belongs
        (``nodeRef`` in pkg/kubelet/kubelet.go), so Events are found by name and then sorted out.
        """
        listing = await consistent_list(
            self._transport,
            EVENTS,
            self._events,
            clock=self._clock,
            query={"fieldSelector": f"regarding.kind=Node,regarding.name={node}"},
            settings=BOUNDS,
            lane=Lane.BULK,
        )
        ours = [each for each in listing.views.values() if each.regarding_uid in ("", node, uid)]
        ours.sort(key=lambda each: (each.at or _NEVER, each.line))
        return tuple(EventView(each.at, each.line) for each in ours[max(0, len(ours) - newest) :])

    async def job(self, namespace: str, name: str) -> JobView | None:
        """Read one Job.

        Returns:
            The Job, or None when the namespace has none of that name.

        Raises:
            TransientError, PermanentError: it could not be read.
        """
        return await self._one(f"/apis/batch/v1/namespaces/{namespace}/jobs/{name}", self._jobs)

    async def pod_addresses(self, namespace: str, selector: LabelSelector) -> Mapping[str, tuple[str, ...]]:
        """Find the running pods that ``selector`` matches.

        Args:
            namespace: where they are; empty: in all namespaces.
            selector: an empty one matches every pod, as everywhere in Kubernetes.

        Returns:
            Sorted addresses by node name. Pods that are being deleted are left out.

        Raises:
            TransientError, PermanentError: they could not be read.
        """
        text = selector_text(selector)
        listing = await consistent_list(
            self._transport,
            f"/api/v1/namespaces/{namespace}/pods" if namespace else PODS,
            self._addresses,
            clock=self._clock,
            query={"labelSelector": text} if text else None,
            settings=BOUNDS,
        )
        found: dict[str, list[str]] = {}
        for pod in listing.views.values():
            if pod.runs and pod.status.pod_ip:
                found.setdefault(pod.spec.node_name, []).append(pod.status.pod_ip)
        return {node: tuple(sorted(found[node])) for node in sorted(found)}

    async def heartbeat(self, node: str) -> LeaseView | None:
        """Read the Lease by which the node's kubelet says that it lives.

        Returns:
            Its age by the server's clock, or None when the node has no Lease.

        Raises:
            TransientError, PermanentError: it could not be read, or carries no time.
        """
        path = f"{LEASES}/{node}"
        response = await self._transport.request("GET", path, timeout_s=GET_TIMEOUT_S, lane=Lane.URGENT)
        if _is_absent(response):
            return None
        return read_heartbeat(response, check_read(response, f"GET {path}"))

    async def run_exists(self, name: str) -> bool:
        """Is there a Remediation of that name?

        Raises:
            TransientError, PermanentError: nobody knows.
        """
        return await self._get(f"{RUNS}/{name}") is not None

    async def policy(self) -> PolicyObject | None:
        """Read the policy as it is now, with its own bytes.

        Raises:
            TransientError: it could not be read.
            PermanentError: 403, no such kind, or an object that does not decode.
        """
        return await self._one(f"{POLICIES}/{POLICY_NAME}", self._policies)

    async def _one(self, path: str, decoder: ObjectDecoder[T]) -> T | None:
        body = await self._get(path)
        if body is None:
            return None
        change = decoder.listed(Raw(body))
        if change.view is None:
            raise PermanentError(f"GET {path}: {change.problem}")
        return change.view

    async def _get(self, path: str) -> bytes | None:
        """The object's bytes, or None when the server says that there is no such object."""
        response = await self._transport.request("GET", path, timeout_s=GET_TIMEOUT_S, lane=Lane.NORMAL)
        if _is_absent(response):
            return None
        return check_read(response, f"GET {path}")


class _PolicyDecoder(ObjectDecoder[PolicyObject]):
    """Decodes to ``PolicyObject``: twice the work per event, for the one object that we PUT."""

    def __init__(self) -> None:
        super().__init__(RemediationPolicy, lambda policy: PolicyObject(policy=policy, raw=b""))
        self._events = None  # the quick way would lose the object's own bytes
        self._kept: msgspec.json.Decoder[RemediationPolicy] = msgspec.json.Decoder(RemediationPolicy)

    def _read(self, body: bytes) -> PolicyObject:
        return PolicyObject(policy=self._kept.decode(body), raw=body)


def policy_decoder() -> ObjectDecoder[PolicyObject]:
    """Make a decoder of RemediationPolicies that keeps each one's own bytes for the PUT."""
    return _PolicyDecoder()


def kind_decoder(kind: type[T]) -> ObjectDecoder[T]:
    """Make a decoder of one of our own kinds: the view is the whole object, a Struct of ``model``."""
    return ObjectDecoder(kind, lambda found: found)


def selector_text(selector: LabelSelector) -> str:
    """Write a selector as the query parameter has it, sorted; empty text matches everything."""
    labels = selector.match_labels if selector.match_labels is not UNSET else {}
    equal = [f"{key}={labels[key]}" for key in sorted(labels)]
    return ",".join(equal + [_requirement_text(each) for each in selector.match_expressions])


def _requirement_text(requirement: LabelRequirement) -> str:
    values = ",".join(sorted(requirement.values))
    match requirement.operator:
        case "In":
            return f"{requirement.key} in ({values})"
        case "NotIn":
            return f"{requirement.key} notin ({values})"
        case "Exists":
            return requirement.key
        case "DoesNotExist":
            return f"!{requirement.key}"


def _is_absent(response: Response) -> bool:
    return response.status == 404 and not read_verdict(response).kind_unknown


def _evictable_namespaces(pods: tuple[PodView, ...]) -> list[str]:
    return sorted(
        {pod.namespace for pod in pods if not (pod.owner_kind == "DaemonSet" or pod.mirror or pod.finished)}
    )


def _unreadable(problems: Mapping[str, str]) -> str:
    named = [f"{key}: {problems[key]}" for key in sorted(problems)[:UNREADABLE_NAMED_MAX]]
    return f"{len(problems)} cannot be read; {'; '.join(named)}"


class _AddressSpec(Struct, rename="camel", gc=False):
    node_name: str = ""


class _AddressStatus(Struct, rename="camel", gc=False):
    phase: str = ""
    pod_ip: str = msgspec.field(default="", name="podIP")


class _AddressMeta(Struct, rename="camel", gc=False):
    name: str = ""
    namespace: str = ""
    resource_version: str = ""
    deletion_timestamp: str | None = None


class _AddressPod(Struct):
    """The few fields by which an exporter's pod is found."""

    metadata: _AddressMeta
    spec: _AddressSpec = msgspec.field(default_factory=_AddressSpec)
    status: _AddressStatus = msgspec.field(default_factory=_AddressStatus)

    @property
    def runs(self) -> bool:
        return (
            self.status.phase == "Running"
            and bool(self.spec.node_name)
            and self.metadata.deletion_timestamp is None
        )


class _Regarding(Struct, gc=False):
    uid: str = ""


class _Series(Struct, rename="camel", gc=False):
    count: int = 0
    last_observed_time: str | None = None


class _PriorityClass(Struct):
    metadata: ObjectMeta


def _tolerates_preemption(each: _PriorityClass) -> bool:
    annotations = each.metadata.annotations
    return annotations is not UNSET and TOLERATES_PREEMPTION in annotations


class _Event(Struct, rename="camel"):
    metadata: ObjectMeta
    type: str = ""
    reason: str = ""
    note: str = ""
    event_time: str | None = None
    series: _Series | None = None
    regarding: _Regarding = msgspec.field(default_factory=_Regarding)
    # What writers of the older core/v1 Events fill in.
    deprecated_count: int = 0
    deprecated_last_timestamp: str | None = None


class _Regarded(EventView, frozen=True, gc=False):
    regarding_uid: str


def _event_view(event: _Event) -> _Regarded:
    series = event.series or _Series()
    at = (
        series.last_observed_time
        or event.deprecated_last_timestamp
        or event.event_time
        or event.metadata.creation_timestamp
    )
    count = max(series.count, event.deprecated_count)
    times = f" x{count}" if count > 1 else ""
    note = " ".join(event.note.split())
    line = f"{at} {event.type} {event.reason} {note}"[: EVENT_LINE_CHARS_MAX - len(times)]
    return _Regarded(at=read_instant(at), line=f"{line}{times}", regarding_uid=intern(event.regarding.uid))
