"""One leader at a time, by a Lease: who sees it unchanged for its whole length may take it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from remediator.chaos.reference.api import LEASE, Api, Reply, instant
from remediator.chaos.reference.bugs import Bug
from remediator.ports import Clock

LEASE_S: Final = 15
DEADLINE_S: Final = 10.0  # so long after its last renewal a leader still acts


class Election:
    """``term`` is that of the last leadership of this process."""

    def __init__(self, clock: Clock, name: str, bugs: frozenset[Bug]) -> None:
        self._clock = clock
        self._name = name
        self._bugs = bugs
        self._seen: tuple[object, ...] = ()
        self._seen_at = 0.0
        self._renewed_at = float("-inf")
        self.term = 0

    @property
    def leading(self) -> bool:
        return self._clock.monotonic() - self._renewed_at < DEADLINE_S

    async def hold(self, api: Api) -> None:
        """Renew the Lease, or take it where nobody holds it any more."""
        began = self._clock.monotonic()
        found = await api.get(LEASE)
        if found.code == 404:
            taken = await self._create(api)
        elif found.ok:
            taken = await self._update(api, found)
        else:
            return
        if taken:
            self._renewed_at = began
        elif found.ok and found.body["spec"].get("holderIdentity") != self._name:
            self._renewed_at = float("-inf")

    async def resign(self, api: Api) -> None:
        """Give it back, so that the next one need not wait."""
        found = await api.get(LEASE)
        if found.ok and found.body["spec"].get("holderIdentity") == self._name:
            found.body["spec"]["holderIdentity"] = ""
            await api.send("PUT", LEASE, found.body)
        self._renewed_at = float("-inf")

    async def _create(self, api: Api) -> bool:
        collection, _, name = LEASE.rpartition("/")
        meta = {"name": name}
        made = await api.send("POST", collection, {"metadata": meta, "spec": self._spec(1)})
        if made.ok:
            self.term = 1
        return made.ok

    async def _update(self, api: Api, found: Reply) -> bool:
        spec = found.body["spec"]
        seen = (spec.get("holderIdentity"), spec.get("renewTime"), spec.get("leaseTransitions"))
        if seen != self._seen:
            self._seen, self._seen_at = seen, self._clock.monotonic()
        transitions = int(spec.get("leaseTransitions") or 0)
        if spec.get("holderIdentity") != self._name:
            if spec.get("holderIdentity") and not self._expired(spec):
                return False
            transitions += 1
        taken = await api.send("PUT", LEASE, found.body | {"spec": self._spec(transitions)})
        if taken.ok:
            self.term = transitions
        return taken.ok

    def _expired(self, spec: dict[str, Any]) -> bool:
        """By our own monotonic clock: what another machine wrote as a time says nothing here."""
        if Bug.WALL_CLOCK_ELECTION in self._bugs:
            return (self._clock.now() - instant(spec["renewTime"])).total_seconds() > LEASE_S
        return self._clock.monotonic() - self._seen_at > LEASE_S

    def _spec(self, transitions: int) -> dict[str, Any]:
        now: datetime = self._clock.now().astimezone(UTC)
        return {
            "holderIdentity": self._name,
            "leaseDurationSeconds": LEASE_S,
            "renewTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "leaseTransitions": transitions,
        }
