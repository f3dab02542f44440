"""Reads a kubelet's Lease as an age by one clock, the API server's. It judges nothing."""

from __future__ import annotations

from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Final

import msgspec
from msgspec import Struct

from remediator.errors import PermanentError
from remediator.model.instant import read_instant
from remediator.model.views import LeaseView
from remediator.ports import Response

LEASES: Final = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
DURATION_S: Final = 40.0  # the kubelet's own default


class _Entry(Struct):
    time: str | None = None


class _Meta(Struct, rename="camel"):
    managed_fields: list[_Entry] | None = None


class _Spec(Struct, rename="camel"):
    renew_time: str | None = None
    lease_duration_seconds: float | None = None


class _Lease(Struct):
    metadata: _Meta
    spec: _Spec


def read_heartbeat(response: Response, body: bytes) -> LeaseView:
    """Say how old the heartbeat was when the server answered.

    The Lease's own ``renewTime`` is the kubelet's clock, which may be wrong by hours. The server
    notes its own time beside every write, and its answer carries that same clock.

    Args:
        response: the reply, for its Date header.
        body: the Lease.

    Raises:
        PermanentError: no time can be read out of it: unknown is no witness.
    """
    try:
        lease = msgspec.json.decode(body, type=_Lease)
        now = parsedate_to_datetime(response.headers.get("date", ""))
        written = _newest(lease)
    except (msgspec.MsgspecError, ValueError) as error:
        raise PermanentError(f"Lease: {error}") from error
    if written is None:
        raise PermanentError("Lease: it carries no time")
    duration_s = lease.spec.lease_duration_seconds or DURATION_S
    return LeaseView(age_s=(now - written).total_seconds(), duration_s=float(duration_s))


def _newest(lease: _Lease) -> datetime | None:
    noted = [each.time for each in lease.metadata.managed_fields or () if each.time]
    times = [read_instant(text) for text in noted or [lease.spec.renew_time or ""]]
    return max((time for time in times if time is not None), default=None)
