"""Leader election on a Kubernetes Lease: who should work, never who may write.

A Lease is a hint; the fencing term makes it safe. Time is judged by this process's monotonic
clock only: never by the times inside the object, which other machines wrote. Does not compute
the term and stops nobody: the runtime asks ``is_leader`` before each write and watches ``lost``.

Source: client-go, tools/leaderelection/leaderelection.go (the observed-record rule, release).
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import msgspec

from remediator.adapters.kube.errors import check_read, classify_write
from remediator.errors import ContractError, PermanentError, TransientError
from remediator.ports import Clock, Lane, Outcome, Refusal, Transport

FOREIGN_LEASE_S_MAX = 600.0  # a duration of a week, written by hand, must not stop everybody
TRANSITIONS_MAX = 2**31 - 1  # the field is an int32
GIVE_BACK_TRIES = 2


@dataclass(frozen=True, slots=True)
class LeaseSettings:
    """Seconds. ``lease_s`` is what others wait for, ``renew_deadline_s`` when we stop by ourselves.

    Their difference covers writes in flight and clocks that do not run equally fast. Retries are
    spread over ``retry_s`` to ``retry_s * (1 + jitter)``.
    """

    lease_s: float = 15.0
    renew_deadline_s: float = 10.0
    retry_s: float = 2.0
    request_timeout_s: float = 3.0
    jitter: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.retry_s * (1 + self.jitter) < self.renew_deadline_s < self.lease_s:
            raise ValueError(
                f"lease {self.lease_s:g}/{self.renew_deadline_s:g}/{self.retry_s:g} s: "
                "retry (with jitter) < renew deadline < lease must hold"
            )
        if not 0 < self.request_timeout_s < self.renew_deadline_s or self.jitter < 0:
            raise ValueError("0 < request_timeout_s < renew_deadline_s and jitter >= 0 must hold")


class Standing(enum.Enum):
    """What one attempt showed."""

    HELD = "held"  # the Lease is ours as of the moment before the request
    OTHERS = "others"  # somebody else's, and not expired
    UNCLEAR = "unclear"  # no usable reply, or it changed under us: look again


@dataclass(slots=True)
class _Observed:
    """The Lease as last seen: the whole object, so that fields unknown to us survive a PUT."""

    lease: dict[str, Any]
    since: float  # monotonic time at which its spec was first seen like this


class Election:
    """One candidate's one candidacy: standby, then leader, then lost. Not used again after that.

    Args:
        transport: requests go out on ``Lane.LEASE``.
        identity: unique per process, not per pod name: a restarted container is somebody else.
        on_lost: called once, at the moment the leadership is lost; not after ``release``.
    """

    def __init__(
        self,
        *,
        transport: Transport,
        clock: Clock,
        rng: Random,
        identity: str,
        namespace: str,
        name: str,
        settings: LeaseSettings,
        on_lost: Callable[[str], None] | None = None,
    ) -> None:
        self._transport = transport
        self._clock = clock
        self._rng = rng
        self._identity = identity
        self._namespace = namespace
        self._name = name
        self._settings = settings
        self._on_lost = on_lost
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._path = f"{self._collection}/{name}"
        self._observed: _Observed | None = None
        self._valid_until: float | None = None  # None: not leading
        self._transitions = 0
        self._spent = False
        self._transitions_seen = -1
        self._elected = asyncio.Event()
        self._lost = asyncio.Event()
        self._last_error = ""

    def is_leader(self, now_monotonic: float) -> bool:
        """Say whether a write may still go out. Strict: at ``valid_until`` it may not."""
        return self._valid_until is not None and now_monotonic < self._valid_until

    @property
    def valid_until(self) -> float | None:
        """Monotonic time up to which we lead, if nothing more is heard; None while we do not."""
        return self._valid_until

    @property
    def transitions(self) -> int:
        """``leaseTransitions`` as of our election; a lower bound for the term."""
        return self._transitions

    @property
    def holder(self) -> str:
        """The identity last seen in the Lease, "" where it has none or was never read."""
        return "" if self._observed is None else str(_spec(self._observed.lease).get("holderIdentity") or "")

    @property
    def last_error(self) -> str:
        """Why the latest attempt failed, "" after one that did not; for health and logs."""
        return self._last_error

    @property
    def elected(self) -> asyncio.Event:
        """Set when we become leader, and never cleared."""
        return self._elected

    @property
    def lost(self) -> asyncio.Event:
        """Set when we stop being leader against our will, and never cleared."""
        return self._lost

    async def run(self) -> None:
        """Stand for election, lead, and return once the leadership is lost.

        Never gives up as a standby: a missing permission shows in ``last_error`` and may be
        granted at any time. Cancel it for a clean stop, then call ``release``.
        """
        if self._spent:
            raise ContractError(f"lease {self._name}: an election is run once; build a new one")
        self._spent = True
        while await self._attempt() is not Standing.HELD:
            await self._clock.sleep(self._standby_s())
        self._elected.set()
        # The watchdog ends the leadership in time even if a renewal hangs against its time-out.
        tasks = [asyncio.create_task(self._renew()), asyncio.create_task(self._watch_deadline())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def release(self) -> None:
        """Give the Lease back, so that a successor need not wait. Call it when nothing writes any more.

        Bounded by one request's time, and by the time left; if it fails the Lease simply expires.
        """
        now = self._clock.monotonic()
        leading, observed, valid_until = self.is_leader(now), self._observed, self._valid_until
        self._valid_until = None  # IMPORTANT: first; a write after the PUT would be a second leader's
        self._spent = True
        if not leading or observed is None or valid_until is None:
            return
        try:
            await self._give_back(observed, min(now + self._settings.request_timeout_s, valid_until))
        except (TransientError, PermanentError) as error:
            self._last_error = str(error)

    async def _give_back(self, observed: _Observed, until: float) -> None:
        for _ in range(GIVE_BACK_TRIES):
            self._last_error = ""  # of an earlier renewal, or try
            stamp = self._stamp()
            spec = {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": stamp, "acquireTime": stamp}
            standing = await self._put(observed, spec, self._left_s(until))
            if standing is not Standing.UNCLEAR:
                return
            # The stop may have cancelled a renewal on its way, which then landed: it is ours still.
            seen = await self._look(self._left_s(until))
            if seen is None or self.holder != self._identity:
                return
            observed = seen

    def _left_s(self, until: float) -> float:
        left_s = until - self._clock.monotonic()
        if left_s <= 0:
            raise TransientError(f"lease {self._namespace}/{self._name}: no time left to give it back")
        return left_s

    async def _renew(self) -> None:
        while self._valid_until is not None:
            await self._clock.sleep(self._jittered_s(self._settings.retry_s))
            standing = await self._attempt()
            if standing is Standing.OTHERS:
                self._lose(f"held by {self.holder!r}")

    async def _watch_deadline(self) -> None:
        while self._valid_until is not None:
            left = self._valid_until - self._clock.monotonic()
            if left <= 0:
                self._lose(f"not renewed in {self._settings.renew_deadline_s:g} s: {self._last_error}")
                return
            await self._clock.sleep(left)

    def _lose(self, reason: str) -> None:
        if self._valid_until is None:
            return
        self._valid_until = None
        self._last_error = f"lease {self._namespace}/{self._name} lost: {reason}"
        self._lost.set()
        if self._on_lost is not None:
            self._on_lost(self._last_error)

    def _standby_s(self) -> float:
        """How long a standby looks away: half of a leader's pause, and never past the Lease's end.

        One GET a second at the default times; it is what a clean hand-over waits for.
        """
        pause_s = self._jittered_s(self._settings.retry_s / 2)
        if self._observed is None:
            return pause_s
        left_s = self._expires(self._observed) - self._clock.monotonic()
        return min(pause_s, left_s) if left_s > 0 else pause_s

    def _jittered_s(self, pause_s: float) -> float:
        return self._rng.uniform(pause_s, pause_s * (1 + self._settings.jitter))

    async def _attempt(self) -> Standing:
        """Try once to take or keep the Lease: one request, at most three."""
        try:
            standing = await self._keep() if self._valid_until is not None else await self._take()
        except (TransientError, PermanentError) as error:
            self._last_error = str(error)
            return Standing.UNCLEAR
        if standing is not Standing.UNCLEAR:
            self._last_error = ""
        return standing

    async def _keep(self) -> Standing:
        """Renew with the version we know; look only if that fails."""
        if self._observed is not None and (standing := await self._claim(self._observed)) is Standing.HELD:
            return standing
        # Changed, deleted, or a renewal of ours that was committed without a reply.
        observed = await self._look()
        if observed is None:
            return await self._create()
        if _spec(observed.lease).get("holderIdentity") not in (self._identity, "", None):
            return Standing.OTHERS  # no matter how old it is: somebody led in between
        return await self._claim(observed)

    async def _take(self) -> Standing:
        observed = await self._look()
        if observed is None:
            return await self._create()
        holder = _spec(observed.lease).get("holderIdentity")
        if holder and holder != self._identity and self._clock.monotonic() < self._expires(observed):
            return Standing.OTHERS
        return await self._claim(observed)

    def _expires(self, observed: _Observed) -> float:
        """Until when an unchanged Lease is left to its holder, in monotonic time: never less than our own."""
        stated = _spec(observed.lease).get("leaseDurationSeconds")
        stated_s = float(stated) if isinstance(stated, int) else 0.0
        return observed.since + max(self._settings.lease_s, min(stated_s, FOREIGN_LEASE_S_MAX))

    async def _look(self, timeout_s: float | None = None) -> _Observed | None:
        """GET the Lease; None when there is none. Restarts the clock of a record that changed."""
        timeout_s = self._timeout_s() if timeout_s is None else timeout_s
        reply = await self._transport.request("GET", self._path, timeout_s=timeout_s, lane=Lane.LEASE)
        try:
            lease = _decode(check_read(reply, f"GET {self._path}"))
        except PermanentError as error:
            if error.status != 404:
                raise
            self._observed = None
            return None
        self._observe(lease)
        return self._observed

    def _observe(self, lease: dict[str, Any]) -> None:
        unchanged = self._observed is not None and _spec(self._observed.lease) == _spec(lease)
        since = self._observed.since if unchanged and self._observed else self._clock.monotonic()
        self._observed = _Observed(lease, since)
        self._transitions_seen = max(self._transitions_seen, _transitions(_spec(lease)))

    async def _create(self) -> Standing:
        stamp = self._stamp()
        spec = self._held_spec() | {"acquireTime": stamp, "renewTime": stamp}
        # Where somebody deleted the Lease, its count goes on: terms must never repeat.
        leading = self._valid_until is not None
        spec["leaseTransitions"] = self._transitions_seen if leading else self._transitions_seen + 1
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": spec,
        }
        return await self._send("POST", self._collection, lease)

    async def _claim(self, observed: _Observed) -> Standing:
        """PUT our name into the Lease as it was observed."""
        old = _spec(observed.lease)
        stamp = self._stamp()
        spec = self._held_spec() | {"renewTime": stamp}
        if old.get("holderIdentity") != self._identity:
            spec["acquireTime"] = stamp
            spec["leaseTransitions"] = min(_transitions(old) + 1, TRANSITIONS_MAX)
        return await self._put(observed, spec, self._timeout_s())

    def _held_spec(self) -> dict[str, Any]:
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, round(self._settings.lease_s)),
        }

    async def _put(self, observed: _Observed, changes: dict[str, Any], timeout_s: float) -> Standing:
        lease = observed.lease | {"spec": _spec(observed.lease) | changes}
        return await self._send("PUT", self._path, lease, timeout_s)

    async def _send(
        self, method: str, path: str, lease: dict[str, Any], timeout_s: float | None = None
    ) -> Standing:
        # IMPORTANT: the clock is read before sending. Others count from the commit, which is
        # later, so we stop before they start.
        sent_at = self._clock.monotonic()
        reply = await self._transport.request(
            method,
            path,
            body=msgspec.json.encode(lease),
            timeout_s=self._timeout_s() if timeout_s is None else timeout_s,
            lane=Lane.LEASE,
        )
        written = classify_write(reply, f"{method} {path}")
        if written.outcome is not Outcome.APPLIED:
            self._last_error = f"{method} {path}: {written.message}"
            if method == "POST" and written.refusal is Refusal.GONE:
                self._last_error += f" (kubectl create namespace {self._namespace})"
            return Standing.UNCLEAR
        self._observe(_decode(written.body))
        return self._accept(sent_at)

    def _accept(self, sent_at: float) -> Standing:
        if self.holder != self._identity:  # our release, or a server that changed what we wrote
            return Standing.OTHERS
        leading, late = self._valid_until is not None, self._elected.is_set()
        if late and not leading:
            return Standing.OTHERS  # the reply came after the deadline: lost is lost
        assert self._observed is not None
        self._transitions = _transitions(_spec(self._observed.lease))
        self._valid_until = sent_at + self._settings.renew_deadline_s
        return Standing.HELD

    def _timeout_s(self) -> float:
        """A time-out below the time that is left to us."""
        if self._valid_until is None:
            return self._settings.request_timeout_s
        left = self._valid_until - self._clock.monotonic()
        if left <= 0:
            raise TransientError(f"lease {self._namespace}/{self._name}: no time left to renew it")
        return min(self._settings.request_timeout_s, left * 0.9)

    def _stamp(self) -> str:
        return self._clock.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _spec(lease: dict[str, Any]) -> dict[str, Any]:
    spec = lease.get("spec")
    return spec if isinstance(spec, dict) else {}


def _transitions(spec: dict[str, Any]) -> int:
    return int(spec.get("leaseTransitions") or 0)


def _decode(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise TransientError(f"the server's Lease cannot be read: {error}") from error
