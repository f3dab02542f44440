"""How an object is born and changed: what the server fills in, keeps, counts and refuses."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from random import Random
from typing import Any, Final
from uuid import UUID

from remediator.sim.kinds import Kind
from remediator.sim.refusal import Json, bad_request, invalid
from remediator.sim.store import Key

NAME_SUFFIX: Final = "bcdfghjklmnpqrstvwxz2456789"  # source: k8s.io/apimachinery/pkg/util/rand
_SYSTEM: Final = (
    "uid", "creationTimestamp", "resourceVersion", "generation", "deletionTimestamp",
    "deletionGracePeriodSeconds", "name", "namespace", "selfLink",
)  # fmt: skip
_TOLERATED_S: Final = 300  # admission plugin DefaultTolerationSeconds
_NOT_READY: Final = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}


def wire_time(when: datetime) -> str:
    """As metav1.Time is written."""
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def read_wire_time(text: str) -> datetime:
    """The time that ``wire_time`` wrote."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


def born(
    obj: Json,
    kind: Kind,
    key: Key,
    *,
    now: datetime,
    rng: Random,
    priorities: Mapping[str, int],
    strict: bool,
) -> Json:
    """The object as it is stored first. ``key`` is its namespace and name.

    Raises:
        Refused: the schema says no (422), or a field is unknown and the request strict (400).
    """
    meta = {name: value for name, value in obj["metadata"].items() if name not in _SYSTEM}
    meta.pop("managedFields", None)
    if not kind.generation and "generation" in obj["metadata"]:  # the real server leaves that alone
        meta["generation"] = obj["metadata"]["generation"]
    namespace, name = key
    meta = {"name": name} | ({"namespace": namespace} if namespace else {}) | meta
    meta["uid"] = str(UUID(int=rng.getrandbits(128), version=4))
    meta["creationTimestamp"] = wire_time(now)
    if kind.generation:
        meta["generation"] = 1
    made = {"kind": kind.kind, "apiVersion": kind.api_version} | obj | {"metadata": meta}
    if kind.status and not kind.born_with_status:
        made.pop("status", None)
    if kind.plural == "pods":
        made = _born_pod(made, priorities)
    elif kind.plural == "nodes":
        made = _born_node(made)
    if not kind.custom:
        made = without_empty(made)
    return checked(made, kind, strict=strict)


def checked(obj: Json, kind: Kind, *, strict: bool) -> Json:
    """What the kind's schema makes of the object; built-in kinds have none.

    Raises:
        Refused: see ``born``.
    """
    if kind.schema is None:
        return obj
    pruned, unknown = kind.schema.pruned(obj)
    if unknown and strict:
        said = ", ".join(f'unknown field "{path}"' for path in unknown)
        raise bad_request(f"strict decoding error: {said}")
    filled = kind.schema.filled(pruned)
    problems = kind.schema.problems(filled)
    if problems:
        raise invalid(f"{kind.kind}.{kind.group}", obj["metadata"]["name"], problems)
    return filled


def changed(old: Json, new: Json, kind: Kind, subresource: str, *, strict: bool) -> Json:
    """``new`` with all that a write of this subresource may not touch taken from ``old``.

    Raises:
        Refused: see ``born``; or the uid is another (422).
    """
    if subresource == "status":
        made = _with_status(old, new, kind)
    else:
        _refuse_other_uid(old, new, kind)
        made = dict(new)
        if kind.status:
            made.pop("status", None)
            if "status" in old:
                made["status"] = old["status"]
        made["metadata"] = _kept_metadata(old["metadata"], new.get("metadata") or {})
    made["kind"], made["apiVersion"] = kind.kind, kind.api_version
    if not kind.custom:
        made = without_empty(made)
    made = checked(made, kind, strict=strict)
    if kind.generation and subresource != "status" and _desired(made) != _desired(old):
        counted = old["metadata"].get("generation", 1) + 1
        made["metadata"] = made["metadata"] | {"generation": counted}
    return made


def _with_status(old: Json, new: Json, kind: Kind) -> Json:
    made = dict(old)
    made.pop("status", None)
    if "status" in new:
        made["status"] = new["status"]
    if not kind.custom:  # a kubelet may label its node while it writes the status
        _refuse_other_uid(old, new, kind)
        made["metadata"] = _kept_metadata(old["metadata"], new.get("metadata") or {})
    return made


def _refuse_other_uid(old: Json, new: Json, kind: Kind) -> None:
    uid = (new.get("metadata") or {}).get("uid") or old["metadata"]["uid"]
    if uid != old["metadata"]["uid"]:
        what = f'Invalid value: "{uid}": field is immutable'
        raise invalid(kind.kind, old["metadata"]["name"], [("metadata.uid", what)])


def _kept_metadata(old: Json, new: Json) -> Json:
    meta = {name: value for name, value in new.items() if name not in _SYSTEM}
    for name in _SYSTEM:
        if name in old:
            meta[name] = old[name]
    for name in ("labels", "annotations", "finalizers", "ownerReferences"):
        if not meta.get(name):
            meta.pop(name, None)
    return meta


def _desired(obj: Json) -> Json:
    return {key: value for key, value in obj.items() if key not in ("metadata", "status")}


def without_empty(obj: Json) -> Json:
    """A built-in object as Go writes it: a list with nothing in it is left out. One level deep."""
    for part in ("spec", "status"):
        found = obj.get(part)
        if found and any(value == [] or value is None for value in found.values()):
            kept = {name: value for name, value in found.items() if value != [] and value is not None}
            obj = obj | {part: kept}
    return obj


def same(old: Json, new: Json) -> bool:
    """Would this write change nothing?"""
    return {**old, "metadata": _unversioned(old)} == {**new, "metadata": _unversioned(new)}


def _unversioned(obj: Json) -> Json:
    return {key: value for key, value in obj["metadata"].items() if key != "resourceVersion"}


def generated_name(prefix: str, rng: Random) -> str:
    """A name by ``generateName``: five characters more."""
    return prefix[:58] + "".join(rng.choices(NAME_SUFFIX, k=5))


def _born_node(node: Json) -> Json:
    # Admission plugin TaintNodesByCondition: nothing lands on a node before it has proved itself.
    spec = node.get("spec") or {}
    taints = list(spec.get("taints") or ())
    if _NOT_READY not in taints:
        taints.append(_NOT_READY)
    return node | {"spec": spec | {"taints": taints}}


def _born_pod(pod: Json, priorities: Mapping[str, int]) -> Json:
    spec: Json = {
        "restartPolicy": "Always",
        "schedulerName": "default-scheduler",
        "terminationGracePeriodSeconds": 30,
    } | pod.get("spec", {})
    if spec.get("priorityClassName"):
        name = spec["priorityClassName"]
        if name not in priorities:
            raise invalid(
                "Pod", pod["metadata"]["name"], [("spec.priorityClassName", f"no PriorityClass {name}")]
            )
        spec["priority"] = priorities[name]
    else:
        spec.setdefault("priority", 0)
    spec["tolerations"] = _tolerating(list(spec.get("tolerations") or ()))
    return pod | {"spec": spec, "status": {"phase": "Pending", "qosClass": qos_class(spec)}}


def _tolerating(tolerations: list[Json]) -> list[Json]:
    for what in ("not-ready", "unreachable"):
        key = f"node.kubernetes.io/{what}"
        if any(
            each.get("key") in (key, None) and each.get("effect") in ("NoExecute", None)
            for each in tolerations
        ):
            continue
        tolerations.append(
            {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": _TOLERATED_S}
        )
    return tolerations


def qos_class(spec: Json) -> str:
    """Guaranteed, Burstable or BestEffort, from the containers' cpu and memory."""
    asked: list[Any] = []
    guaranteed = True
    for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        resources = container.get("resources") or {}
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        for name in ("cpu", "memory"):
            asked += [each for each in (limits.get(name), requests.get(name)) if each is not None]
            guaranteed &= name in limits and requests.get(name, limits[name]) == limits[name]
    if not asked:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"
