"""Names that stand on cluster objects: one place, so that cleanup and checkers can trust it."""

from __future__ import annotations

from typing import Final

GROUP: Final = "remediator.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

POLICY_NAME: Final = "cluster"

TAINT_QUARANTINE: Final = f"{GROUP}/quarantine"

ANNOTATION_RUN: Final = f"{GROUP}/run"  # <run>/<step>: which write of ours the node saw last
ANNOTATION_PRIOR: Final = f"{GROUP}/prior"  # JSON: what the node looked like before our first write
ANNOTATION_TERM: Final = f"{GROUP}/term"  # term of the leader that wrote last
ANNOTATION_BECAUSE: Final = f"{GROUP}/because"  # one line for `kubectl describe node`
ANNOTATION_HOLD: Final = f"{GROUP}/hold"  # until=RFC3339;by=WHO;reason=TEXT
ANNOTATION_FENCED: Final = f"{GROUP}/fenced"  # a person's word, the Node's uid: this machine is off
ANNOTATION_PROBATION: Final = f"{GROUP}/probation-until"  # RFC3339; a spare on probation is the last choice
ANNOTATION_JOINED: Final = f"{GROUP}/joined"  # UID TIME: this very Node was let in through the join gate

# Of the scheduler-plugins, on a PriorityClass: its pods may not be taken for a better use for a while.
TOLERATES_PREEMPTION: Final = "preemption-toleration.scheduling.x-k8s.io/minimum-preemptable-priority"

LABEL_OPT_OUT: Final = f"{GROUP}/opt-out"  # any value but "false" opts the node out
LABEL_REPAIR: Final = f"{GROUP}/repair"  # on repair Jobs and their pods: the run
LABEL_NODE: Final = f"{GROUP}/node"  # on repair Jobs and their pods: the node

NODE_ANNOTATIONS: Final = (
    ANNOTATION_RUN,
    ANNOTATION_PRIOR,
    ANNOTATION_TERM,
    ANNOTATION_BECAUSE,
    ANNOTATION_HOLD,
    ANNOTATION_FENCED,
    ANNOTATION_PROBATION,
    ANNOTATION_JOINED,
)

# Kubernetes' own: whoever sets it vouches that the machine is off. Ours carry this value.
TAINT_OUT_OF_SERVICE: Final = "node.kubernetes.io/out-of-service"
OUT_OF_SERVICE_VALUE: Final = "remediator"

# Written by Kubernetes, read by us.
TAINT_SHUTDOWN: Final = "node.cloudprovider.kubernetes.io/shutdown"
TAINT_UNSCHEDULABLE: Final = "node.kubernetes.io/unschedulable"
MIRROR_ANNOTATION: Final = "kubernetes.io/config.mirror"
