"""The examples with every field that they leave out. Data only; tests spoil one field after the other."""

from __future__ import annotations

import copy
from typing import Any

from tests.unit.adapters.files.examples import (
    AT,
    Json,
    a_managed_node,
    a_playbook,
    a_policy,
    a_pool,
    a_remediation,
)

PAUSE: Json = {"by": "alice", "reason": "a change window", "until": AT}
LABELS: Json = {
    "matchLabels": {"a": "b"},
    "matchExpressions": [{"key": "c", "operator": "In", "values": ["d"]}],
}
SHARE: Json = {"percent": 5, "atLeast": 1}


def merged(base: Json, more: Json) -> Json:
    """``base`` with ``more`` laid over it, mapping by mapping; a list is replaced."""
    made = copy.deepcopy(base)
    for key, value in more.items():
        old: Any = made.get(key)
        made[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return made


def full_playbook() -> Json:
    steps: list[Json] = [
        {"id": "fence", "quarantine": {"value": "gpu-bus", "cordon": True}},
        {"id": "swap", "swap": {"timeout": "30m"}},
        {"id": "evidence", "collect": {"eventsWindow": "15m"}},
        {
            "id": "drain",
            "drain": {
                "deadline": "30m",
                "protectDeadline": "24h",
                "bare": "Hold",
                "emptyDir": "Evict",
                "critical": "Ignore",
            },
        },
        {"id": "detach", "detach": {}},
        {"id": "repair", "repair": {"job": {"template": "reboot", "timeout": "30m"}}},
        {
            "id": "verify",
            "verify": {"quietFor": "20m", "timeout": "2h", "bootChanged": True, "gpusEqualClass": True},
        },
        {"id": "back", "return": {"probation": "24h", "to": "Buffer"}},
    ]
    matchers: list[Json] = [
        {"id": "xid", "xid": {"codes": [79]}},
        {
            "id": "seen",
            "nodeCondition": {"type": "SysLogsGPUFallenOff", "status": "True", "reasons": ["GpuLost"]},
            "for": "60s",
            "faultClass": "gpu.lost",
        },
        {"id": "rows", "gpuMetric": {"field": "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", "op": "==", "value": 1}},
    ]
    more: Json = {
        "mode": "Audit",
        "priority": 700,
        "memory": "14d",
        "noSpare": "WithoutSpare",
        "pause": PAUSE,
        "nodes": {"selector": LABELS},
        "match": {"anyOf": matchers},
        "limits": {"rate": {"burst": 2}},
        "steps": steps,
    }
    return merged(a_playbook(), {"spec": more})


def playbook_for_all() -> Json:
    """What excludes the rest: all nodes, a count, and the hand-off."""
    steps: list[Json] = [
        {"id": "fence", "quarantine": {"value": "x"}},
        {"id": "drain", "drain": {}},
        {"id": "give", "repair": {"handoff": {"queue": "people"}}},
    ]
    made = merged(a_playbook(), {"spec": {"limits": {"maxUnavailable": {"count": 2}}}})
    made["spec"]["nodes"] = {"matchAll": True}
    made["spec"]["limits"]["maxUnavailable"] = {"count": 2}
    made["spec"]["steps"] = steps
    return made


def reporting_playbook() -> Json:
    return merged(a_playbook(), {"spec": {"steps": [{"id": "tell", "report": {}}]}})


def full_remediation() -> Json:
    more = {"by": "alice", "returnTo": "buffer", "cancel": {"by": "bob", "reason": "not now"}}
    return merged(a_remediation(), {"spec": more})


def full_pool() -> Json:
    taints = [{"key": "example.com/train", "value": "yes", "effect": "NoSchedule"}]
    more: Json = {
        "maxMode": "Audit",
        "maxConcurrent": 2,
        "joins": {
            "rate": {"count": 2, "per": "1m", "burst": 1},
            "maxInitialising": 5,
            "daemonSets": ["kube-system/cni"],
        },
        "pause": PAUSE,
        "hardwareClass": {"driver": "580.95"},
        "projection": {"annotations": {"example.com/note": "x"}, "taints": taints},
    }
    return merged(a_pool(), {"spec": more})


def counting_pool() -> Json:
    made = a_pool()
    made["spec"]["maxUnavailable"] = {"count": 2}
    return made


def full_policy() -> Json:
    exporter: Json = {
        "podSelector": LABELS,
        "nodes": LABELS,
        "port": 9400,
        "path": "/metrics",
        "period": "15s",
        "timeout": "5s",
        "address": "http://{address}:9400/metrics",
    }
    more: Json = {
        "poolMaxUnavailable": SHARE,
        "maxConcurrent": 4,
        "poolMaxConcurrent": 2,
        "maxRepairs": 4,
        "coverage": 80,
        "rate": {"count": 6, "per": "1h", "burst": 2},
        "breaker": {"causes": ["topology.kubernetes.io/zone"]},
        "holdAfterVeto": "24h",
        "gpuResource": "nvidia.com/gpu",
        "gangLabels": ["example.com/gang"],
        "nodeKeys": ["example.com/pool"],
        "rewriters": ["old-labeller"],
        "identity": {"labels": ["example.com/asset"], "annotations": ["example.com/serial"]},
        "protectedPriorityClasses": ["train"],
        "servingTaints": ["example.com/pool"],
        "exporter": exporter,
        "joins": {
            "mode": "Enforce",
            "gate": "example.com/joining",
            "rate": {"count": 20, "per": "1m", "burst": 10},
            "maxInitialising": 50,
            "growth": {"percent": 10, "within": "10m", "above": 200},
            "deadline": "30m",
            "daemonSets": ["kube-system/cni"],
        },
        "pause": PAUSE,
    }
    made = merged(a_policy(), {"spec": more})
    made["spec"]["maxUnavailable"] = SHARE
    return made


def counting_policy() -> Json:
    return merged(a_policy(), {"spec": {"poolMaxUnavailable": {"count": 2}}})


def full_managed_node() -> Json:
    request = {"playbook": "example", "by": "alice", "at": AT, "planHash": "7f3c9a", "returnTo": "buffer"}
    return merged(a_managed_node(), {"spec": {"request": request}})


FULL = (
    full_playbook, playbook_for_all, reporting_playbook, full_remediation, full_pool, counting_pool,
    full_policy, counting_policy, full_managed_node,
)  # fmt: skip
