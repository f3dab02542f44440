"""What one process is told from outside; everything else is in the cluster's own objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypedDict

from remediator.errors import InputError, Problem

_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of one process, validated whole.

    ``kubeconfig`` None: found like kubectl finds it, or in-cluster. ``identity`` is unique per
    process. ``port`` 0 takes a free one. ``tls_dir`` holds tls.crt and tls.key for that port;
    ``review_tokens`` lets only users read its pages whom the API server's RBAC lets.
    """

    kubeconfig: Path | None = None
    context: str | None = None
    namespace: str = "remediator"
    lease: str = "remediator"
    identity: str = ""
    host: str = "0.0.0.0"
    port: int = 8080
    tls_dir: Path | None = None
    review_tokens: bool = False
    seed: int = 0
    lease_s: float = 15.0
    renew_s: float = 10.0
    retry_s: float = 2.0

    def __post_init__(self) -> None:
        problems = []
        if not self.namespace or not self.lease:
            problems.append(_problem("namespace", "empty", "name the namespace that holds our Lease"))
        if not 0 <= self.port <= 65_535:
            problems.append(_problem("port", f"{self.port} is no port", "write 0 to 65535"))
        if self.review_tokens and self.tls_dir is None and self.host not in _LOOPBACK:
            problems.append(_problem("tls-dir", "missing", "tokens must not travel in clear text; name it"))
        if not 0 < self.retry_s < self.renew_s < self.lease_s:
            numbers = f"{self.retry_s:g} < {self.renew_s:g} < {self.lease_s:g}"
            problems.append(_problem("lease", f"{numbers} does not hold", "retry < renew deadline < lease"))
        if problems:
            raise InputError(tuple(problems))


class LeaseTimes(TypedDict):
    """The three times of the Lease, as ``Settings`` takes them."""

    lease_s: float
    renew_s: float
    retry_s: float


def lease_times(lease_seconds: float) -> LeaseTimes:
    """The times that go with one duration, in the proportions that client-go uses: 15, 10, 2 s."""
    return LeaseTimes(lease_s=lease_seconds, renew_s=lease_seconds * 2 / 3, retry_s=lease_seconds * 2 / 15)


def own_namespace(environ: Mapping[str, str]) -> str:
    """The namespace that we run in: ``POD_NAMESPACE``, or ``remediator`` outside of a cluster."""
    return environ.get("POD_NAMESPACE", "") or "remediator"


def _problem(field: str, message: str, fix: str) -> Problem:
    return Problem("command line", 0, 0, field, message, fix)
