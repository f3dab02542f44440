"""What a controller has written, without what differs between any two runs of one story.

Left out is what hangs on time alone: how often a summary was told, and what a run waited for while a machine
booted. Left out is also what only a real server adds: defaults of a PodTemplate, and Events of others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from remediator.adapters.audit import WRITE_VERBS, AuditRecord
from remediator.chaos.rules.stream import resource_of

_MASKS: Final = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"), "TIME"),
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "UID"),
    (re.compile(r'("remediator.dev/term": )"\d+"'), r'\1"N"'),
    (re.compile(r', "timeAdded": "TIME"'), ""),
    (re.compile(r"\b(trainers)-[a-z0-9-]+\b"), r"\1-POD"),
)
# The hash of a plan has the node's uid in it.
_NUMBERS: Final = frozenset(("resourceVersion", "term", "generation", "observedGeneration", "planHash"))
_BOOTS: Final = frozenset(("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"))

Json = dict[str, Any]


def written(records: Iterable[AuditRecord], user: str) -> dict[str, list[str]]:
    """Every write of this user that was taken and is told of here, object by object, in the log's order."""
    found: dict[str, list[str]] = {}
    for record in records:
        tell = TOLD.get(resource_of(record))
        if tell is None or record.username != user or not record.committed or record.verb not in WRITE_VERBS:
            continue
        said = tell(json.loads(bytes(record.request_object) or b"{}"))
        if not any(said.values()):
            continue
        line = _masked(f"{record.verb} {json.dumps(_plain(said), sort_keys=True)}")
        lines = found.setdefault(_masked(f"{resource_of(record)} {record.object_ref.name}"), [])
        if line not in lines[-1:]:
            lines.append(line)
    return found


def _run(body: Json) -> Json:
    """The state of a run, each time it is written; all of it but what only time decides."""
    status = body["status"]
    steps = [(each["id"], each["state"], each.get("attempt", 1)) for each in status.get("steps", ())]
    if status.get("state") in ("Blocked", "Verifying"):
        return {"state": "waits for good signals", "steps": steps}
    told = {key: status[key] for key in ("state", "reason", "spare", "prior", "finishedAt") if key in status}
    evidence = status.get("evidence", "").partition("# Events")[0]
    return told | {"steps": steps, "evidence": sorted(evidence.splitlines())}


def _job(body: Json) -> Json:
    pod = body["spec"]["template"]["spec"]
    env = sorted((each["name"], each.get("value", "")) for box in pod["containers"] for each in box["env"])
    kept = {key: body["spec"].get(key) for key in ("backoffLimit", "ttlSecondsAfterFinished")}
    return kept | {"labels": body["metadata"]["labels"], "node": pod["nodeName"], "env": env}


def _grants(body: Json) -> Json:
    """Empty until the first grant: a leader that begins writes its term."""
    status = body["status"]
    rates = {each["scope"]: float(each["tokens"]) for each in status.get("rates", ())}
    return {"grants": status.get("grants", []), "rates": rates}


def _node(body: Json) -> Json:
    """As it was sent, but for what node lifecycle says of a machine that boots: it is kept as it is found."""
    spec = dict(body.get("spec", {}))
    if "taints" in spec:
        spec["taints"] = [each for each in spec["taints"] if each["key"] not in _BOOTS]
    return body | {"spec": spec}


def _as_sent(body: Json) -> Json:
    return body


TOLD: Final[Mapping[str, Callable[[Json], Json]]] = {
    "nodes": _node,
    "pods/eviction": _as_sent,
    "jobs": _job,
    "remediations": lambda body: {"spec": body["spec"], "labels": body["metadata"]["labels"]},
    "remediations/status": _run,
    "remediationpolicies/status": _grants,
}


def _masked(text: str) -> str:
    for pattern, instead in _MASKS:
        text = pattern.sub(instead, text)
    return text


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {key: "N" if key in _NUMBERS else _plain(each) for key, each in value.items()}
    return value
