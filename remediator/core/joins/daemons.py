"""The pods of DaemonSets on one node: are all there, and ready? Pure."""

from __future__ import annotations

from collections.abc import Iterable

from remediator.model.views import PodView
from remediator.model.words import shortened

NAMED_MAX = 4


def lacking(pods: Iterable[PodView], wanted: Iterable[str]) -> str:
    """What is missing or not ready, in one line; empty where nothing is.

    Args:
        pods: everything on the node.
        wanted: NAMESPACE/NAME of each DaemonSet that has to have a pod there; one that is there and
            was not asked for has to be ready too.
    """
    found = [pod for pod in pods if pod.owner_kind == "DaemonSet" and not pod.deleting]
    here = {f"{pod.namespace}/{pod.owner_name}" for pod in found}
    missing = [f"no pod of {each}" for each in sorted(set(wanted) - here)]
    unready = [f"{pod.key} is not ready" for pod in sorted(found, key=lambda pod: pod.key) if not pod.ready]
    return shortened([*missing, *unready], NAMED_MAX)
