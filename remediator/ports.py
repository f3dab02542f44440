"""What the inside asks of the outside, as Protocols. No implementation, no policy.

Adapters implement these; the simulator and the fault injector implement them too. Everything
above the ``Transport`` seam is the same code in production, in simulation and under chaos.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, TypeVar

from remediator.model.action import Attribution, RecordAction, SetCondition, WorldAction
from remediator.model.meta import LabelSelector
from remediator.model.policy import ExporterSpec, RemediationPolicy
from remediator.model.views import EventView, JobView, LeaseView, NodeView, PdbView, PodView

T_co = TypeVar("T_co", covariant=True)


class Clock(Protocol):
    """The only source of time. Passed in, never imported."""

    def now(self) -> datetime:
        """Aware UTC wall-clock time; for times that must survive a restart."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; for durations inside the process."""

    async def sleep(self, seconds: float) -> None:
        """Pause this task; zero yields to the loop once."""


class Lane(enum.Enum):
    """Which client-side limit a request waits behind.

    ``LEASE`` never waits: leadership must not starve behind our own writes. ``URGENT`` is for
    grants and quarantines, ``NORMAL`` for the rest of a run, ``BULK`` for records and Events.
    """

    LEASE = "lease"
    URGENT = "urgent"
    NORMAL = "normal"
    BULK = "bulk"


@dataclass(frozen=True, slots=True)
class AccessRefused:
    """Why somebody may not read a page of ours: 401, 403, or 503 where it can't be known now."""

    status: int
    reason: str


class Guard(Protocol):
    """Decides who may read our own pages."""

    async def refusal(self, authorization: str, path: str) -> AccessRefused | None:
        """Why a request with this Authorization header may not read ``path``; None: it may."""


@dataclass(frozen=True, slots=True)
class Response:
    """One HTTP reply, any status. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Transport(Protocol):
    """The seam to one API server."""

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float,
        lane: Lane,
    ) -> Response:
        """Send one request and return its reply, whatever its status.

        Raises:
            TransientError: no complete reply arrived. The server may have processed the
                request: for a write the caller must treat the outcome as unknown.
            PermanentError: it can never work, for example a certificate that does not verify.
        """

    def stream(
        self,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        connect_timeout_s: float,
        idle_timeout_s: float,
    ) -> AsyncIterator[bytes]:
        """GET ``path`` and yield the body's lines without their newline, until the server ends it.

        Raises:
            TransientError: reset, or nothing arrived for ``idle_timeout_s``; a status of 429 or 5xx.
            PermanentError: any other status than 200, with that status.
        """


class Pages(Protocol):
    """Fetches metrics pages. Redirects are not followed."""

    async def fetch(self, url: str, *, timeout_s: float, bytes_max: int) -> bytes:
        """Return the page as it arrived, whole.

        Raises:
            PageError: time-out, refused, reset, any status but 200, or more than ``bytes_max``.
        """


class Outcome(enum.Enum):
    """What is known about a write once its reply, or none, has arrived.

    ``APPLIED``: the server said yes. ``REFUSED``: it said no and changed nothing (409, 429, a
    PodDisruptionBudget). ``UNKNOWN``: reset, time-out or any 5xx; observe before writing again.
    """

    APPLIED = "applied"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class Refusal(enum.Enum):
    """Why a write was refused; ``NONE`` where it was not."""

    NONE = "none"
    CONFLICT = "conflict"  # 409 on a stale resourceVersion or uid
    EXISTS = "exists"  # 409 on create
    GONE = "gone"  # 404 of the object
    BUDGET = "budget"  # eviction 429 with cause DisruptionBudget, or the 500 for two budgets
    OVERLOAD = "overload"  # any other 429
    FENCED = "fenced"  # an admission policy refused our term


@dataclass(frozen=True, slots=True)
class Written:
    """The answer of the one door for writes.

    ``message`` is the server's own text, at most 512 characters; ``body`` the object it returned,
    empty unless ``outcome`` is ``APPLIED``; ``retry_after_s`` is set only where the server said so.
    """

    outcome: Outcome
    refusal: Refusal = Refusal.NONE
    message: str = ""
    body: bytes = b""
    retry_after_s: float | None = None


class Writer(Protocol):
    """The narrow door to the world: nodes, pods, Jobs."""

    async def apply(self, action: WorldAction, attribution: Attribution) -> Written:
        """Send one preconditioned write and say what is known about it.

        Raises:
            PermanentError: it will not work until a person changes something (403, 422, ...).
        """


class Proofs(Protocol):
    """The narrow door to what we say of a Node in its status."""

    async def prove(self, action: SetCondition, attribution: Attribution) -> Written:
        """Send one preconditioned write and say what is known about it.

        Raises:
            PermanentError: it will not work until a person changes something (403, 422, ...).
        """


class Records(Protocol):
    """The narrow door to our own objects and to Events."""

    async def save(self, action: RecordAction, attribution: Attribution) -> Written:
        """Send one write; create actions are idempotent by name.

        Raises:
            PermanentError: it will not work until a person changes something (403, 422, ...).
        """


@dataclass(frozen=True, slots=True)
class FeedState:
    """What the reader of one kind says of itself.

    ``events``, ``relists`` and ``alarms`` are totals since its start; an alarm is an object, or the
    whole kind, that went back in time. ``undecodable`` has the problem of each object that can't be
    read. ``broken_since`` (aware UTC) is set while the watch does not live, and ``trouble`` says why.
    """

    events: int = 0
    relists: int = 0
    alarms: int = 0
    undecodable: Mapping[str, str] = field(default_factory=dict)
    broken_since: datetime | None = None
    trouble: str = ""


class Cache(Protocol[T_co]):
    """What the server last showed of one kind. Changed by its reflector only.

    ``synced`` False: every question has the answer *unknown*, and nothing counts as deleted.
    """

    synced: bool

    def __len__(self) -> int:
        """How many objects there are."""

    def __contains__(self, key: object) -> bool:
        """Is there an object of that key?"""

    def get(self, key: str) -> T_co | None:
        """The object of that key (``name`` or ``namespace/name``), or None."""

    def views(self) -> Mapping[str, T_co]:
        """All objects by key: one frozen state, which is a copy; not to be asked for once for each object."""

    def version_of(self, key: str) -> int:
        """resourceVersion of the stored object; 0 when absent."""

    def subscribe(self, listener: Callable[[str, T_co | None, T_co | None], None]) -> None:
        """Call ``listener(key, before, after)`` at each change; it must be quick and never raise."""

    def age_s(self) -> float | None:
        """Seconds since the server last proved the content fresh, or None."""

    async def wait_for(self, resource_version: str, timeout_s: float) -> bool:
        """Wait until the cache shows a write that returned ``resource_version``; False if late."""


@dataclass(frozen=True, slots=True)
class PolicyObject:
    """The policy and the bytes it came in, so that a PUT keeps keys which we do not know."""

    policy: RemediationPolicy
    raw: bytes


@dataclass(frozen=True, slots=True)
class PodListing:
    """The pods of one node and the PodDisruptionBudgets of their namespaces, read consistently.

    ``tolerant`` are those of the pods' PriorityClasses whose pods may not be taken for a better use.
    """

    pods: tuple[PodView, ...]
    pdbs: tuple[PdbView, ...]
    tolerant: frozenset[str] = frozenset()


class Reader(Protocol):
    """Reads on demand: whatever no cache holds. Consistent, bounded, from the server itself.

    Every method raises TransientError or PermanentError.
    """

    async def pods_of(self, node: str) -> PodListing:
        """Every pod bound to the node, as of one moment not before the call."""

    async def events_of(self, node: str, uid: str, *, newest: int) -> tuple[EventView, ...]:
        """The newest Events that regard the Node, one line each, oldest first."""

    async def job(self, namespace: str, name: str) -> JobView | None:
        """The repair Job, or None when there is none of that name."""

    async def pod_addresses(self, namespace: str, selector: LabelSelector) -> Mapping[str, tuple[str, ...]]:
        """Addresses of the running pods that the selector matches, by the node they run on."""

    async def heartbeat(self, node: str) -> LeaseView | None:
        """The Lease by which the node's kubelet says that it lives, or None when there is none."""

    async def run_exists(self, name: str) -> bool:
        """Is there a Remediation of that name?"""

    async def policy(self) -> PolicyObject | None:
        """The policy as it is now, or None when there is none."""


class PageSource(Protocol):
    """The exporters' pages: fetched on their own period, told through a callback."""

    @property
    def round_complete(self) -> bool:
        """Was every current target answered, or failed, at least once since the start?"""

    def follow(
        self,
        spec: ExporterSpec | None,
        nodes: Iterable[NodeView],
        addresses: Mapping[str, tuple[str, ...]],
        fields: frozenset[str],
    ) -> tuple[str, ...]:
        """Fetch the pages of these nodes from now on. Returns what is wrong, one line each."""

    async def run(self) -> None:
        """Fetch until cancelled."""


class Telemetry(Protocol):
    """Metrics, by the names of the one table in ``adapters.telemetry``; unknown names raise."""

    def count(self, metric: str, labels: Mapping[str, str], by: float = 1.0) -> None:
        """Raise a counter."""

    def gauge(self, metric: str, labels: Mapping[str, str], value: float) -> None:
        """Set a gauge."""

    def observe(self, metric: str, labels: Mapping[str, str], seconds: float) -> None:
        """Enter one value into a histogram."""


class Ticks(Protocol):
    """Periodic jobs of the housekeeping kind. Nothing safety-relevant and nothing per run hangs on it."""

    def every(self, seconds: float, job: Callable[[], Awaitable[None]], name: str) -> None:
        """Run ``job`` each ``seconds``, the first time one period after the start.

        A job that is still running is not started a second time, and missed turns are made up by
        one at most. ``name`` is unique.

        Raises:
            ContractError: a period that is not above zero, or a name that is taken.
        """

    def start(self) -> None:
        """Begin to tick; needs a running event loop."""

    def stop(self) -> None:
        """Tick no more, and cancel the jobs that are running. Twice does no harm."""
