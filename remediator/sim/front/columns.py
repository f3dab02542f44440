"""Which columns kubectl shows of a kind, and how each cell is made of an object. Pure.

Names, order and priorities are those of the real server's printers.
Source: kubernetes/kubernetes, pkg/printers/internalversion/printers.go.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final, NamedTuple

from remediator.model.instant import read_instant
from remediator.sim.kinds import Kind
from remediator.sim.refusal import Json

ROLE: Final = "node-role.kubernetes.io/"
NONE: Final = "<none>"
UNKNOWN: Final = "<unknown>"
Cell = str | int | float | bool | None
_MINUTE, _HOUR, _DAY, _YEAR = 60, 3_600, 86_400, 365 * 86_400
_step = re.compile(r"""\.(\w+)|\['([^']+)'\]|\[\?\(@\.(\w+)=="([^"]*)"\)\]""").match


class Column(NamedTuple):
    """One column: a priority above 0 is shown with ``-o wide`` only."""

    name: str
    cell: Callable[[Json, datetime], Cell]
    type: str = "string"
    priority: int = 0
    format: str = ""


def columns_of(kind: Kind) -> tuple[Column, ...]:
    """What a table of this kind has."""
    if kind.custom:
        return (NAME, *map(_custom, kind.columns), *(() if kind.columns else (AGE,)))
    return (NAME, *_BUILT_IN.get(kind.kind, (AGE,))) if kind.kind != "Event" else _EVENT


def spoken_age(seconds: float) -> str:
    """A time span as kubectl writes it: two units at most, the second only while it says something.

    Source: k8s.io/apimachinery/pkg/util/duration, HumanDuration.
    """
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    if whole < 2 * _MINUTE:
        return f"{max(0, whole)}s"
    for most, unit, small in _AGES:
        if whole < most:
            size, letter = unit
            text = f"{whole // size}{letter}"
            rest = whole % size // small[0] if small else 0
            return f"{text}{rest}{small[1]}" if small and rest else text
    return f"{whole // _YEAR}y"


_AGES: Final = (
    (10 * _MINUTE, (_MINUTE, "m"), (1, "s")),
    (3 * _HOUR, (_MINUTE, "m"), None),
    (8 * _HOUR, (_HOUR, "h"), (_MINUTE, "m")),
    (2 * _DAY, (_HOUR, "h"), None),
    (8 * _DAY, (_DAY, "d"), (_HOUR, "h")),
    (2 * _YEAR, (_DAY, "d"), None),
    (8 * _YEAR, (_YEAR, "y"), (_DAY, "d")),
)


def at_path(obj: Any, path: str) -> Any:
    """The value at a JSONPath of the kinds that printer columns have; None where there is none.

    Raises:
        ValueError: the path has something else.
    """
    at = 0
    while at < len(path):
        found = _step(path, at)
        if found is None:
            raise ValueError(f"JSONPath {path!r}: not understood from {path[at:]!r} on")
        at = found.end()
        name, quoted, key, value = found.groups()
        if key is not None:
            obj = next((each for each in obj or () if each.get(key) == value), None)
        else:
            obj = obj.get(name or quoted) if isinstance(obj, dict) else None
    return obj


def age_since(text: Any, now: datetime) -> str:
    """How long ago that was."""
    try:
        at = read_instant(str(text)) if text else None
    except ValueError:
        at = None
    return spoken_age((now - at).total_seconds()) if at is not None else UNKNOWN


def _text(path: str, missing: Cell = NONE) -> Callable[[Json, datetime], Cell]:
    def cell(obj: Json, _: datetime) -> Cell:
        found = at_path(obj, path)
        return missing if found in (None, "") else found

    return cell


def _date(path: str) -> Callable[[Json, datetime], Cell]:
    return lambda obj, now: age_since(at_path(obj, path), now)


def _of(count: str, whole: str, whole_default: int = 0) -> Callable[[Json, datetime], Cell]:
    def cell(obj: Json, _: datetime) -> Cell:
        wanted = at_path(obj, whole)
        return f"{at_path(obj, count) or 0}/{whole_default if wanted is None else wanted}"

    return cell


def _custom(column: Json) -> Column:
    path, type_ = column["jsonPath"], column["type"]
    cell = partial(_custom_cell, path=path, type_=type_)
    return Column(column["name"], cell, type_, column.get("priority", 0), column.get("format", ""))


def _custom_cell(obj: Json, now: datetime, *, path: str, type_: str) -> Cell:
    found = at_path(obj, path)
    if type_ == "date":
        return age_since(found, now) if found else None
    if found is None or isinstance(found, (str, int, float, bool)):
        return found
    return str(found)


def _node_status(node: Json, _: datetime) -> Cell:
    ready = at_path(node, '.status.conditions[?(@.type=="Ready")].status')
    words = {"True": "Ready", "False": "NotReady"}
    status = words.get(ready or "", "Unknown" if ready is None else "NotReady")
    return status + (",SchedulingDisabled" if node["spec"].get("unschedulable") else "")


def _roles(node: Json, _: datetime) -> Cell:
    labels = node["metadata"].get("labels") or {}
    roles = sorted(label.removeprefix(ROLE) for label in labels if label.startswith(ROLE))
    return ",".join(roles) or NONE


def _address(kind: str) -> Callable[[Json, datetime], Cell]:
    return _text(f'.status.addresses[?(@.type=="{kind}")].address')


def _pod_status(pod: Json, _: datetime) -> Cell:
    if pod["metadata"].get("deletionTimestamp"):
        return "Terminating"
    status = pod.get("status") or {}
    if status.get("phase") == "Succeeded":
        return "Completed"
    return str(status.get("reason") or status.get("phase") or "Pending")


def _pod_ready(pod: Json, _: datetime) -> Cell:
    statuses = (pod.get("status") or {}).get("containerStatuses")
    containers = len(pod["spec"].get("containers") or ())
    if statuses:
        return f"{sum(bool(each.get('ready')) for each in statuses)}/{containers}"
    ready = at_path(pod, '.status.conditions[?(@.type=="Ready")].status') == "True"
    return f"{containers if ready else 0}/{containers}"


def _restarts(pod: Json, _: datetime) -> Cell:
    statuses: Sequence[Json] = (pod.get("status") or {}).get("containerStatuses") or ()
    return sum(int(each.get("restartCount") or 0) for each in statuses)


def _job_status(job: Json, _: datetime) -> Cell:
    conditions = (job.get("status") or {}).get("conditions") or ()
    true = [each["type"] for each in conditions if each.get("status") == "True"]
    return next((each for each in ("Failed", "Complete", "Suspended") if each in true), "Running")


def _job_lasts(job: Json, now: datetime) -> Cell:
    began, ended = (
        read_instant(at_path(job, f".status.{name}Time") or "") for name in ("start", "completion")
    )
    return spoken_age(((ended or now) - began).total_seconds()) if began is not None else ""


def _selector(obj: Json, _: datetime) -> Cell:
    selector = at_path(obj, ".spec.template.spec.nodeSelector") or {}
    return ",".join(f"{key}={value}" for key, value in selector.items()) or NONE


def _event_about(event: Json, _: datetime) -> Cell:
    about = event.get("regarding") or event.get("involvedObject") or {}
    return f"{str(about.get('kind', '')).lower()}/{about.get('name', '')}"


def _event_seen(event: Json, now: datetime) -> Cell:
    times = (
        at_path(event, ".series.lastObservedTime"),
        event.get("lastTimestamp"),
        event.get("deprecatedLastTimestamp"),
        event.get("eventTime"),
        at_path(event, ".metadata.creationTimestamp"),
    )
    return age_since(next((each for each in times if each), None), now)


NAME: Final = Column("Name", _text(".metadata.name"), format="name")
AGE: Final = Column("Age", _date(".metadata.creationTimestamp"))
_EVENT: Final = (
    Column("Last Seen", _event_seen),
    Column("Type", _text(".type")),
    Column("Reason", _text(".reason")),
    Column("Object", _event_about),
    Column("Message", lambda event, _: str(event.get("note") or event.get("message") or "").strip()),
    Column("Name", _text(".metadata.name"), priority=1, format="name"),
)
_WHOLE: Final = partial(Column, type="integer")
_BUILT_IN: Final[Mapping[str, tuple[Column, ...]]] = {
    "Node": (
        Column("Status", _node_status), Column("Roles", _roles), AGE,
        Column("Version", _text(".status.nodeInfo.kubeletVersion")),
        Column("Internal-IP", _address("InternalIP"), priority=1),
        Column("External-IP", _address("ExternalIP"), priority=1),
        Column("OS-Image", _text(".status.nodeInfo.osImage", UNKNOWN), priority=1),
        Column("Kernel-Version", _text(".status.nodeInfo.kernelVersion", UNKNOWN), priority=1),
        Column("Container-Runtime", _text(".status.nodeInfo.containerRuntimeVersion", UNKNOWN), priority=1),
    ),
    "Pod": (
        Column("Ready", _pod_ready), Column("Status", _pod_status), Column("Restarts", _restarts), AGE,
        Column("IP", _text(".status.podIP"), priority=1), Column("Node", _text(".spec.nodeName"), priority=1),
        Column("Nominated Node", _text(".status.nominatedNodeName"), priority=1),
    ),
    "Deployment": (
        Column("Ready", _of(".status.readyReplicas", ".spec.replicas", 1)),
        _WHOLE("Up-to-date", _text(".status.updatedReplicas", 0)),
        _WHOLE("Available", _text(".status.availableReplicas", 0)), AGE,
    ),
    "ReplicaSet": (
        _WHOLE("Desired", _text(".spec.replicas", 1)), _WHOLE("Current", _text(".status.replicas", 0)),
        _WHOLE("Ready", _text(".status.readyReplicas", 0)), AGE,
    ),
    "StatefulSet": (Column("Ready", _of(".status.readyReplicas", ".spec.replicas", 1)), AGE),
    "DaemonSet": (
        _WHOLE("Desired", _text(".status.desiredNumberScheduled", 0)),
        _WHOLE("Current", _text(".status.currentNumberScheduled", 0)),
        _WHOLE("Ready", _text(".status.numberReady", 0)),
        _WHOLE("Up-to-date", _text(".status.updatedNumberScheduled", 0)),
        _WHOLE("Available", _text(".status.numberAvailable", 0)),
        Column("Node Selector", _selector), AGE,
    ),
    "Job": (
        Column("Status", _job_status),
        Column("Completions", _of(".status.succeeded", ".spec.completions", 1)),
        Column("Duration", _job_lasts), AGE,
    ),
    "PodDisruptionBudget": (
        Column("Min Available", _text(".spec.minAvailable", "N/A")),
        Column("Max Unavailable", _text(".spec.maxUnavailable", "N/A")),
        _WHOLE("Allowed Disruptions", _text(".status.disruptionsAllowed", 0)), AGE,
    ),
    "Namespace": (Column("Status", _text(".status.phase", "Active")), AGE),
    "Lease": (Column("Holder", _text(".spec.holderIdentity")), AGE),
    "PriorityClass": (
        _WHOLE("Value", _text(".value", 0)),
        Column("Global-Default", _text(".globalDefault", missing=False)), AGE,
    ),
    "CustomResourceDefinition": (Column("Created At", _text(".metadata.creationTimestamp"), type="date"),),
}  # fmt: skip
