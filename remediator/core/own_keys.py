"""Which keys on nodes a pool makes us write, and which of them we may. Pure.

The API server holds the same rule (deploy/base/own-keys.yaml). It is asked here as well, because a
run that is refused half way has taken a node away and can't put the spare in its place.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from msgspec import UNSET

from remediator.model.keys import GROUP
from remediator.model.pool import PoolSpec

# What a node physically is, and what Kubernetes says about it: no list gives us these.
PROTECTED: Final = ("kubernetes.io/", "topology.kubernetes.io/", "node.kubernetes.io/")


def keys_of(pool: PoolSpec) -> frozenset[str]:
    """Labels, annotations and taints that a node gets or loses with its membership."""
    projection = pool.projection
    keys = {pool.membership.key, *(taint.key for taint in projection.taints)}
    keys |= set(projection.labels) if projection.labels is not UNSET else set()
    keys |= set(projection.annotations) if projection.annotations is not UNSET else set()
    return frozenset(keys)


def not_ours(pool: PoolSpec, listed: Collection[str]) -> tuple[str, ...]:
    """Keys of the pool that ``policy.spec.nodeKeys`` does not leave to us, sorted."""
    return tuple(sorted(key for key in keys_of(pool) if not _ours(key, listed)))


def _ours(key: str, listed: Collection[str]) -> bool:
    return key.startswith(f"{GROUP}/") or (key in listed and not key.startswith(PROTECTED))
