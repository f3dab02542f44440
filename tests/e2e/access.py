"""Kubeconfigs for people of the test bed, with the roles that deploy/ ships or a test made."""

from __future__ import annotations

from pathlib import Path

from remediator.testbed import kubeconfig
from remediator.testbed.stage import Stage


def as_user(stage: Stage, name: str, path: Path, *, role: str = "") -> Path:
    """A kubeconfig for somebody, bound to a ClusterRole if one is named."""
    admin = kubeconfig.read(stage.cluster.kubeconfig)
    access = kubeconfig.Access(
        server=admin.server, authority=admin.authority, pair=stage.cluster.client_certificate(name)
    )
    kubeconfig.write(path, name, access)
    if role:
        stage.cluster.kubectl(
            "create", "clusterrolebinding", f"bound-{name}", f"--clusterrole={role}", f"--user={name}"
        )
    return path
