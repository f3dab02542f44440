"""Objects of every kind for tests, good ones and bad ones. Data only: JSON values, fresh at each call.

The bad ones are judged twice: by the API server in the contract suite, by walker and lint here.
"""

# ruff: noqa: E501  # a row of a table is one line

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from remediator.model.keys import API_VERSION

Json = dict[str, Any]

AT = "2026-11-23T12:00:00Z"


def a_playbook() -> Json:
    return {
        "apiVersion": API_VERSION,
        "kind": "Playbook",
        "metadata": {
            "name": "example",
            "annotations": {"remediator.dev/runbook": "docs/runbooks/example.md"},
        },
        "spec": {
            "summary": "An example.",
            "faultClass": "gpu.bus",
            "severity": "Hard",
            "nodes": {"selector": {"matchLabels": {"nvidia.com/gpu.present": "true"}}},
            "match": {
                "anyOf": [
                    {"id": "xid", "xid": {"codes": [79]}},
                    {
                        "id": "seen",
                        "nodeCondition": {"type": "SysLogsGPUFallenOff", "status": "True"},
                        "for": "60s",
                    },
                ]
            },
            "limits": {
                "maxConcurrent": 2,
                "maxUnavailable": {"percent": 5, "atLeast": 1},
                "rate": {"count": 4, "per": "1h"},
            },
            "steps": [
                {"id": "fence", "quarantine": {"value": "gpu-bus"}},
                {"id": "swap", "swap": {}},
                {"id": "drain", "drain": {"deadline": "30m"}},
                {"id": "detach", "detach": {}},
                {"id": "repair", "repair": {"job": {"template": "reboot", "timeout": "30m"}}},
                {"id": "verify", "verify": {"quietFor": "20m", "bootChanged": True}},
                {"id": "back", "return": {"probation": "24h"}},
            ],
        },
    }


def a_remediation() -> Json:
    return {
        "apiVersion": API_VERSION,
        "kind": "Remediation",
        "metadata": {"name": "gpu-a-03-1"},
        "spec": {
            "machine": "gpu-a-03",
            "node": {"name": "gpu-a-03", "uid": "0d1e2f30-0000-4000-8000-000000000003"},
            "bootId": "b0070000-0000-4000-8000-000000000001",
            "pool": "train",
            "trigger": "Fault",
            "mode": "Enforce",
            "faultClass": "gpu.bus",
            "severity": "Hard",
            "firstSeen": AT,
            "evidence": [
                {"source": "exporter", "key": "xid", "text": "XID 79 on GPU 5", "gpu": "GPU-5", "code": 79}
            ],
            "playbook": {"name": "example", "generation": 4, "text": json.dumps(a_playbook()["spec"])},
            "plan": ["+ taint node/gpu-a-03", "~ node/gpu-b-31 spare -> train"],
            "planHash": "7f3c9a",
            "spare": {"name": "gpu-b-31", "uid": "0d1e2f30-0000-4000-8000-000000000031"},
            "term": 7,
        },
    }


def a_pool() -> Json:
    return {
        "apiVersion": API_VERSION,
        "kind": "ResourcePool",
        "metadata": {"name": "train"},
        "spec": {
            "role": "Workload",
            "membership": {"key": "example.com/pool", "value": "train"},
            "projection": {
                "labels": {"example.com/job": "train"},
                "taints": [{"key": "example.com/train", "effect": "NoSchedule"}],
            },
            "hardwareClass": {"gpus": 8, "labels": ["nvidia.com/gpu.product"]},
            "topology": [{"key": "topology.kubernetes.io/zone", "match": "Required"}],
            "buffers": ["spares"],
            "maxUnavailable": {"percent": 5, "atLeast": 1},
            "sparesWanted": 2,
        },
    }


def a_buffer() -> Json:
    return {
        "apiVersion": API_VERSION,
        "kind": "ResourcePool",
        "metadata": {"name": "spares"},
        "spec": {"role": "Buffer", "membership": {"key": "example.com/pool", "value": "spares"}},
    }


def a_policy() -> Json:
    return {
        "apiVersion": API_VERSION,
        "kind": "RemediationPolicy",
        "metadata": {"name": "cluster"},
        "spec": {
            "maxMode": "Enforce",
            "maxUnavailable": {"count": 3},
            "breaker": {"count": 3, "percent": 10, "within": "10m", "quiet": "15m"},
            "conditions": [{"type": "OurOwnProblem", "good": "False"}],
            "exporter": {"namespace": "gpu", "podSelector": {"matchLabels": {"app": "dcgm-exporter"}}},
            "repair": {"namespace": "remediator-repair"},
        },
    }


def a_managed_node() -> Json:
    return {
        "apiVersion": API_VERSION,
        "kind": "ManagedNode",
        "metadata": {"name": "gpu-a-03"},
        "spec": {"adopt": {"until": AT, "by": "alice", "reason": "board ordered"}},
    }


def a_test() -> Json:
    return {
        "apiVersion": API_VERSION,
        "kind": "PlaybookTest",
        "metadata": {"name": "example"},
        "spec": {
            "playbooks": ["../example.yaml"],
            "fleet": "fleets/example.yaml",
            "cases": [
                {
                    "name": "one GPU lost, a spare is free",
                    "timeline": [{"at": "0s", "nodes": ["worker-1"], "xid": {"code": 79, "gpu": 5}}],
                    "expect": {"runs": [{"node": "worker-1", "state": "Returned", "within": "2h"}]},
                }
            ],
        },
    }


OBJECTS: tuple[Callable[[], Json], ...] = (
    a_playbook, a_remediation, a_pool, a_buffer, a_policy, a_managed_node,
)  # fmt: skip

DROP = object()


@dataclass(frozen=True, slots=True)
class Bad:
    """One way to spoil an object: the value at ``path`` is replaced (or dropped).

    ``refused`` is a part of the server's message. ``rule`` is the lint rule that says it, or
    ``form`` where the walker does.
    """

    name: str
    make: Callable[[], Json]
    path: tuple[str | int, ...]
    value: object
    refused: str
    rule: str = "form"

    def spoiled(self) -> Json:
        made = copy.deepcopy(self.make())
        at: Any = made
        for part in self.path[:-1]:
            at = at[part]
        last: Any = self.path[-1]
        if self.value is DROP:
            del at[last]
        else:
            at[last] = self.value
        return made


STEPS = ("spec", "steps")
FENCE: Json = {"id": "fence", "quarantine": {"value": "x"}}
DRAIN: Json = {"id": "drain", "drain": {}}
VERIFY: Json = {"id": "verify", "verify": {}}

BAD: tuple[Bad, ...] = (
    Bad("no-action", a_playbook, (*STEPS, 1), {"id": "swap"}, "set exactly one of collect, quarantine"),
    Bad("two-actions", a_playbook, (*STEPS, 1, "drain"), {}, "set exactly one of collect, quarantine"),
    Bad("unknown-action", a_playbook, (*STEPS, 1), {"id": "swap", "explode": {}}, 'unknown field "spec.steps[1].explode"'),
    Bad("no-match-kind", a_playbook, ("spec", "match", "anyOf", 0, "xid"), DROP, "set exactly one of xid, gpuMetric"),
    Bad("same-step-id", a_playbook, (*STEPS, 1, "id"), "fence", "Duplicate value", "duplicate-id"),
    Bad("same-matcher-id", a_playbook, ("spec", "match", "anyOf", 1, "id"), "xid", "Duplicate value", "duplicate-id"),
    Bad("no-selector", a_playbook, ("spec", "nodes"), {}, "an empty selector would match every node", "empty-selector"),
    Bad("empty-selector", a_playbook, ("spec", "nodes", "selector"), {"matchLabels": {}}, "an empty selector", "empty-selector"),
    Bad("both-selections", a_playbook, ("spec", "nodes", "matchAll"), True, "contradict", "selector-and-match-all"),
    Bad("no-values", a_playbook, ("spec", "nodes", "selector"), {"matchExpressions": [{"key": "a", "operator": "In"}]}, "In and NotIn need values", "selector-values"),
    Bad("count-and-percent", a_playbook, ("spec", "limits", "maxUnavailable", "count"), 1, "set exactly one of count, percent"),
    Bad("neither", a_playbook, ("spec", "limits", "maxUnavailable"), {}, "set exactly one of count, percent"),
    Bad("floor-of-count", a_pool, ("spec", "maxUnavailable"), {"count": 1, "atLeast": 1}, "atLeast goes with percent", "floor-of-count"),
    Bad("no-repair", a_playbook, (*STEPS, 4, "repair"), {}, "set exactly one of job, handoff"),
    Bad("two-repairs", a_playbook, (*STEPS, 4, "repair", "handoff"), {"queue": "x"}, "set exactly one of job, handoff"),
    Bad("drain-first", a_playbook, STEPS, [DRAIN, FENCE], "put a quarantine step before", "before-quarantine"),
    Bad("never-fenced", a_playbook, STEPS, [DRAIN], "put a quarantine step before", "before-quarantine"),
    Bad("repair-undrained", a_playbook, (*STEPS, 2), {"id": "drain", "collect": {}}, "put a drain step before", "before-drain"),
    Bad("return-unverified", a_playbook, (*STEPS, 5), {"id": "verify", "collect": {}}, "no machine returns without evidence", "return-without-verify"),
    Bad("twice", a_playbook, (*STEPS, 1), {"id": "again", "drain": {}}, "does each action once", "action-twice"),
    Bad("report-and-more", a_playbook, STEPS, [{"id": "tell", "report": {}}, FENCE], "report stands alone", "report-alone"),
    Bad("zero-rate", a_playbook, ("spec", "limits", "rate", "per"), "0s", "per must be above zero", "zero-duration"),
    Bad("zero-deadline", a_playbook, (*STEPS, 2, "drain", "deadline"), "0m", "deadline must be above zero", "zero-duration"),
    Bad("zero-soak", a_playbook, (*STEPS, 5, "verify", "quietFor"), "0s", "quietFor must be above zero", "zero-duration"),
    Bad("zero-period", a_policy, ("spec", "exporter", "period"), "0s", "period must be above zero", "zero-duration"),
    Bad("zero-window", a_policy, ("spec", "breaker", "within"), "0s", "within must be above zero", "zero-duration"),
    Bad("no-duration", a_playbook, (*STEPS, 2, "drain", "deadline"), "30 min", "write a duration such as 90s"),
    Bad("too-long", a_playbook, (*STEPS, 2, "drain", "deadline"), "9999999d", "write a duration such as 90s"),
    Bad("wrong-mode", a_playbook, ("spec", "mode"), "enforce", "Unsupported value"),
    Bad("wrong-code", a_playbook, ("spec", "match", "anyOf", 0, "xid", "codes"), [0], "greater than or equal to 1"),
    Bad("no-codes", a_playbook, ("spec", "match", "anyOf", 0, "xid", "codes"), [], "at least 1 items"),
    Bad("no-steps", a_playbook, STEPS, [], "at least 1 items"),
    Bad("no-summary", a_playbook, ("spec", "summary"), DROP, "Required value"),
    Bad("status-is-bool", a_playbook, ("spec", "match", "anyOf", 1, "nodeCondition", "status"), True, "must be of type string"),
    Bad("long-name", a_playbook, ("metadata", "name"), "a" * 64, "than 63"),
    Bad("other-policy", a_policy, ("metadata", "name"), "mine", "its name is cluster", "policy-name"),
    Bad("no-membership", a_pool, ("spec", "membership"), DROP, "Required value"),
    Bad("wrong-effect", a_pool, ("spec", "projection", "taints", 0, "effect"), "NoSchedul", "Unsupported value"),
    Bad("no-time", a_managed_node, ("spec", "adopt", "until"), "tomorrow", "must be of type date-time"),
)  # fmt: skip
