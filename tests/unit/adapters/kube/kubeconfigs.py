"""A kubeconfig for one server, for the tests that read one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec


def kubeconfig(
    folder: Path, server: str, *, user: object = None, cluster: Mapping[str, object] | None = None
) -> str:
    """Write a kubeconfig for one server and return its path."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "loop",
        "contexts": [{"name": "loop", "context": {"cluster": "loop", "user": "loop"}}],
        "clusters": [{"name": "loop", "cluster": {"server": server, **(cluster or {})}}],
        "users": [{"name": "loop", "user": user or {}}],
    }
    path = folder / "kubeconfig"
    path.write_bytes(msgspec.json.encode(document))
    return str(path)
