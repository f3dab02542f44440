"""Builds the bodies of our writes. Pure: values in, bytes out.

The one place that knows how an action looks on the wire.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from remediator.errors import ContractError, PermanentError
from remediator.model.action import (
    EVENT_PERIOD_S,
    CreateJob,
    DeleteRun,
    EvictPod,
    PatchNode,
    PublishEvent,
    SavePolicy,
    SetCondition,
)
from remediator.model.instant import write_instant
from remediator.model.keys import ANNOTATION_TERM, API_VERSION, GROUP
from remediator.model.ledger import ManagedNode
from remediator.model.policy import PolicyStatus
from remediator.model.remediation import Remediation

JOB_TTL_S: Final = 86_400
NOTE_BYTES_MAX: Final = 1_024
EVENT_NAMESPACE: Final = "default"  # Events about cluster-scoped objects are accepted nowhere else
REPORTING_CONTROLLER: Final = f"{GROUP}/controller"
REPORTING_INSTANCE_MAX: Final = 128


def node_patch(action: PatchNode, term: int) -> bytes:
    """Build the merge patch of a Node, with the precondition and our term added.

    Raises:
        ContractError: the patch brings its own uid or resourceVersion, or no version is known.
    """
    if not action.resource_version:
        raise ContractError(f"patch of node {action.name}: no resourceVersion as precondition")
    metadata = _mapping(action.patch.get("metadata", {}), "metadata")
    for key in ("resourceVersion", "uid"):
        if key in metadata:
            raise ContractError(f"patch of node {action.name}: metadata.{key} is the writer's to set")
    annotations = {**_mapping(metadata.get("annotations", {}), "annotations"), ANNOTATION_TERM: str(term)}
    metadata = {**metadata, "resourceVersion": action.resource_version, "annotations": annotations}
    return msgspec.json.encode({**action.patch, "metadata": metadata})


def node_condition(action: SetCondition, term: int) -> bytes:
    """Build the strategic merge patch of a Node's status that sets one condition."""
    at = write_instant(action.at.replace(microsecond=0))
    condition = {
        "type": action.type,
        "status": action.status,
        "reason": action.reason,
        "message": action.message,
        "lastHeartbeatTime": at,
    }
    if action.turned:
        condition["lastTransitionTime"] = at
    metadata = {
        "resourceVersion": action.resource_version,
        "annotations": {ANNOTATION_TERM: str(term)},
    }
    return msgspec.json.encode({"metadata": metadata, "status": {"conditions": [condition]}})


def _mapping(value: object, what: str) -> dict[str, object]:
    if not isinstance(value, Mapping):
        raise ContractError(f"patch: {what} is {type(value).__name__}, not a mapping")
    return dict(value)


def eviction(action: EvictPod, term: int) -> bytes:
    """Build the Eviction of exactly this pod, not of a later one with its name."""
    return msgspec.json.encode(
        {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {
                "name": action.name,
                "namespace": action.namespace,
                "annotations": {ANNOTATION_TERM: str(term)},
            },
            "deleteOptions": {"preconditions": {"uid": action.uid}},
        }
    )


def job(action: CreateJob, pod_template: bytes, term: int) -> bytes:
    """Build the repair Job from a PodTemplate object as the server returned it.

    What the template says about image, volumes and accounts stays; where and how often the pod
    runs is ours. A variable of ours replaces one of the same name.

    Raises:
        PermanentError: the object carries no usable pod template.
    """
    where = f"PodTemplate {action.namespace}/{action.template}"
    try:
        found: Any = msgspec.json.decode(pod_template)
        template = found["template"]
        pod_metadata = template.get("metadata") or {}
        pod_spec = template["spec"]
        containers = [_with_env(each, action.env) for each in pod_spec["containers"]]
        initial = [_with_env(each, action.env) for each in pod_spec.get("initContainers") or ()]
        pod_labels = {**(pod_metadata.get("labels") or {}), **action.labels}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise PermanentError(f"{where}: no usable pod template: {error!r} (see its template.spec)") from error
    if not containers:
        raise PermanentError(f"{where}: no container (add one to template.spec.containers)")
    spec = {
        **pod_spec,
        "containers": containers,
        "restartPolicy": "Never",
        "nodeName": action.node,
        # The node is quarantined and cordoned: that must not keep its own repair away.
        "tolerations": [{"operator": "Exists"}],
    }
    if initial:
        spec["initContainers"] = initial
    return msgspec.json.encode(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "name": action.name,
                "namespace": action.namespace,
                "labels": action.labels,
                "annotations": {ANNOTATION_TERM: str(term)},
            },
            "spec": {
                "backoffLimit": 0,
                "activeDeadlineSeconds": action.deadline_s,
                "ttlSecondsAfterFinished": JOB_TTL_S,
                "template": {"metadata": {**pod_metadata, "labels": pod_labels}, "spec": spec},
            },
        }
    )


def _with_env(container: dict[str, Any], env: Mapping[str, str]) -> dict[str, Any]:
    kept = [each for each in container.get("env") or () if each["name"] not in env]
    return {**container, "env": [*kept, *({"name": name, "value": env[name]} for name in sorted(env))]}


def new_object(record: Remediation | ManagedNode) -> bytes:
    """Build the object to create: no status, which the server would drop, and no server's metadata."""
    metadata = msgspec.structs.replace(
        record.metadata,
        uid="",
        resource_version="",
        generation=0,
        creation_timestamp="",
        deletion_timestamp="",
    )
    body: dict[str, object] = {
        "apiVersion": record.api_version,
        "kind": record.kind,
        "metadata": metadata,
        "spec": record.spec,
    }
    return msgspec.json.encode(body)


def status_patch(before: Struct | UnsetType, status: Struct, resource_version: str) -> bytes:
    """Build the merge patch that turns status ``before``, UNSET where there is none, into ``status``.

    A field that vanished becomes null; a list is sent whole. Fields of the stored status that
    neither value knows are left alone.

    Raises:
        ContractError: no resourceVersion as precondition.
    """
    if not resource_version:
        raise ContractError("status patch without a resourceVersion as precondition")
    known = msgspec.to_builtins(before) if before is not UNSET else {}
    difference = merge_difference(known, msgspec.to_builtins(status))
    return msgspec.json.encode({"metadata": {"resourceVersion": resource_version}, "status": difference})


def merge_difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Compute the JSON merge patch (RFC 7386) from ``before`` to ``after``; neither contains null."""
    patch: dict[str, Any] = dict.fromkeys((key for key in before if key not in after), None)
    for key, value in after.items():
        old = before.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            if inner := merge_difference(old, value):
                patch[key] = inner
        elif key not in before or old != value:
            patch[key] = value
    return patch


_POLICY_STATUS_KEYS: Final = frozenset(PolicyStatus.__struct_encode_fields__)


def policy_status_put(action: SavePolicy) -> bytes:
    """Build the whole RemediationPolicy with a new status.

    Everything outside of the status, and unknown keys inside, stay byte for byte as last seen; the
    resourceVersion among them is the precondition.

    Raises:
        ContractError: ``raw`` is no object with a resourceVersion.
    """
    try:
        whole = msgspec.json.decode(action.raw, type=dict[str, Raw])
        metadata = msgspec.json.decode(whole.get("metadata", b"{}"), type=dict[str, Raw])
        before = msgspec.json.decode(whole.get("status", b"{}"), type=dict[str, Raw] | None) or {}
    except ValueError as error:
        raise ContractError(f"RemediationPolicy as last seen does not decode: {error}") from error
    if bytes(metadata.get("resourceVersion", Raw(b'""'))) == b'""':
        raise ContractError("RemediationPolicy as last seen has no resourceVersion as precondition")
    unknown = {key: value for key, value in before.items() if key not in _POLICY_STATUS_KEYS}
    whole["status"] = Raw(msgspec.json.encode({**unknown, **msgspec.to_builtins(action.status)}))
    return msgspec.json.encode(whole)


def delete_options(action: DeleteRun) -> bytes:
    """Build the body of a delete that hits only the object as it was last seen."""
    return msgspec.json.encode(
        {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": action.uid, "resourceVersion": action.resource_version},
        }
    )


def event(action: PublishEvent, instance: str) -> bytes:
    """Build an events.k8s.io/v1 Event regarding a Node, and related to its run where there is one."""
    body: dict[str, object] = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": event_name(action), "namespace": EVENT_NAMESPACE},
        "eventTime": action.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": REPORTING_CONTROLLER,
        "reportingInstance": instance[:REPORTING_INSTANCE_MAX],
        "type": action.type,
        "reason": action.reason,
        "action": action.action,
        "note": bounded(action.note, NOTE_BYTES_MAX),
        "regarding": {"apiVersion": "v1", "kind": "Node", "name": action.node, "uid": action.node_uid},
    }
    if action.run:
        related = {"apiVersion": API_VERSION, "kind": "Remediation", "name": action.run}
        body["related"] = {**related, "uid": action.run_uid} if action.run_uid else related
    return msgspec.json.encode(body)


def event_name(action: PublishEvent) -> str:
    """Name an Event by machine, reason and quarter of an hour: whoever sends it again creates nothing."""
    period = int(action.at.timestamp()) // EVENT_PERIOD_S
    digest = hashlib.sha256(f"{action.machine}\n{action.reason}\n{period}".encode()).hexdigest()[:16]
    return f"{action.node[:200].rstrip('-.')}.{digest}"


def bounded(text: str, bytes_max: int) -> str:
    """Cut at a character's border so that at most ``bytes_max`` bytes of UTF-8 remain."""
    data = text.encode()
    return text if len(data) <= bytes_max else data[:bytes_max].decode(errors="ignore")
