"""Reads who leads, from the Lease. It takes part in no election."""

from __future__ import annotations

from datetime import datetime

import msgspec
from msgspec import Struct

from remediator.adapters.kube.errors import check_read
from remediator.errors import PermanentError, TransientError
from remediator.model.instant import read_instant
from remediator.ports import Lane, Transport

READ_TIMEOUT_S = 10.0


class Leadership(Struct, frozen=True, kw_only=True):
    """The Lease as it was read. ``problem`` is set, and nothing else, where there is none to read.

    ``known`` False: it may not be read, so nobody can tell whether anybody leads. ``holder`` is empty
    where nobody holds it; times are aware UTC, or None.
    """

    holder: str = ""
    acquired: datetime | None = None
    renewed: datetime | None = None
    lease_s: int = 15
    resource_version: str = ""
    uid: str = ""
    problem: str = ""
    known: bool = True

    def leads(self, now: datetime) -> bool:
        """Did somebody renew it within its own duration, as far as the clocks agree?"""
        return bool(self.holder) and self.renewed is not None and self.age_s(now) <= self.lease_s

    def vacant(self, now: datetime) -> bool:
        """Is it certain that nobody leads?"""
        return self.known and not self.leads(now)

    def age_s(self, now: datetime) -> float:
        return (now - self.renewed).total_seconds() if self.renewed is not None else 0.0


class _Spec(Struct, rename="camel"):
    holder_identity: str | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_duration_seconds: int | None = None


class _Meta(Struct, rename="camel"):
    resource_version: str = ""
    uid: str = ""


class _Lease(Struct):
    metadata: _Meta
    spec: _Spec


async def read_leadership(transport: Transport, namespace: str, name: str) -> Leadership:
    """Read the Lease. A Lease that may not be read is a finding, not an error.

    Raises:
        TransientError: the server is away.
    """
    path = lease_path(namespace, name)
    response = await transport.request("GET", path, timeout_s=READ_TIMEOUT_S, lane=Lane.NORMAL)
    if response.status == 404:
        return Leadership(problem=f"there is no Lease {namespace}/{name}: no controller has run there yet")
    try:
        lease = msgspec.json.decode(check_read(response, f"GET {path}"), type=_Lease)
        return Leadership(
            holder=lease.spec.holder_identity or "",
            acquired=read_instant(lease.spec.acquire_time or ""),
            renewed=read_instant(lease.spec.renew_time or ""),
            lease_s=lease.spec.lease_duration_seconds or 15,
            resource_version=lease.metadata.resource_version,
            uid=lease.metadata.uid,
        )
    except PermanentError as error:
        return Leadership(problem=str(error), known=False)
    except ValueError as error:
        raise TransientError(f"GET {path}: {error}") from error


def lease_path(namespace: str, name: str) -> str:
    return f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}"
