"""Pods of DaemonSets on a new node: which are missing, which are not ready."""

from __future__ import annotations

from remediator.core.joins.daemons import lacking
from tests.unit.core.builders import a_pod


def daemon(name: str, owner: str, **fields):
    return a_pod(name, namespace="kube-system", owner_kind="DaemonSet", owner_name=owner, **fields)


def test_nothing_lacks_where_all_are_ready():
    """Pods of anybody else do not count, ready or not."""
    pods = [daemon("cni-1", "cni"), a_pod("train-0", ready=False)]

    assert lacking(pods, ["kube-system/cni"]) == ""


def test_a_daemon_that_is_not_ready_is_named():
    """Whether it was asked for or not."""
    assert lacking([daemon("cni-1", "cni", ready=False)], []) == "kube-system/cni-1 is not ready"


def test_a_daemon_that_has_no_pod_is_named():
    """One that is being deleted is none."""
    pods = [daemon("cni-1", "cni", deleting=True, ready=False)]

    assert lacking(pods, ["kube-system/cni"]) == "no pod of kube-system/cni"
