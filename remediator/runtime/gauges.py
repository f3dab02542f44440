"""Sets every gauge anew from what is known now: nothing is counted up and down on the way.

Once before each scrape: between two of them nobody reads a gauge.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from msgspec import UNSET

from remediator.core.people import paused
from remediator.model.pool import PoolStatus
from remediator.ports import Clock, FeedState, Telemetry
from remediator.runtime.diagnosis import Diagnoses
from remediator.runtime.fleet_loop import FleetLoop
from remediator.runtime.health import NO_FEED, Health
from remediator.runtime.joins import Joins
from remediator.runtime.world import World

_MODES: Final = ("Disabled", "Audit", "Enforce")


class Gauges:
    """One round over everything that has a gauge."""

    def __init__(
        self,
        *,
        world: World,
        diagnoses: Diagnoses,
        fleet: FleetLoop,
        health: Health,
        joins: Joins,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self._world = world
        self._diagnoses = diagnoses
        self._fleet = fleet
        self._health = health
        self._joins = joins
        self._counted: dict[str, FeedState] = {}
        self._clock = clock
        self._telemetry = telemetry
        self._classes: set[str] = set()
        self._scopes: set[str] = set()
        self._stops: set[str] = set()

    def once(self) -> None:
        """Set all gauges."""
        self._caches()
        self._watches()
        self._pools()
        self._playbooks()
        self._faults()
        self._pauses()
        self._breakers()
        self._pages()
        self._newcomers()

    def _set(self, metric: str, value: float, labels: Mapping[str, str] | None = None) -> None:
        self._telemetry.gauge(metric, labels or {}, value)

    def _caches(self) -> None:
        caches = self._world.caches
        synced = caches.synced()
        for kind, whole in synced.items():
            self._set("remediator_cache_synced", float(whole), {"kind": kind})
        for kind, age_s in caches.ages().items():
            self._set("remediator_cache_age_seconds", age_s or 0.0, {"kind": kind})
        if all(synced.values()):
            # As old as the oldest proof: a cache whose watch has broken is complete, and yet of the past.
            proved = self._clock.now().timestamp() - max(age_s or 0.0 for age_s in caches.ages().values())
            self._set("remediator_last_full_sync_timestamp_seconds", proved)
        self._set("remediator_blind", float(bool(self._health.blind())))
        self._set("remediator_lease_failing", float(bool(self._health.lease_trouble)))
        self._set("remediator_clock_skew_seconds", self._health.skew_s())

    def _watches(self) -> None:
        for kind, now in self._health.feeds().items():
            label = {"kind": kind}
            before = self._counted.get(kind, NO_FEED)
            self._telemetry.count("remediator_watch_events_total", label, now.events - before.events)
            self._telemetry.count("remediator_relists_total", label, now.relists - before.relists)
            self._telemetry.count("remediator_cache_alarms_total", label, now.alarms - before.alarms)
            self._set("remediator_watch_broken_seconds", self._health.broken_s(now), label)
            self._set("remediator_objects_undecodable", len(now.undecodable), label)
            self._counted[kind] = now

    def _pools(self) -> None:
        census = self._world.census
        for name, pool in self._world.pools.items():
            out = len(census.out(name))
            self._set("remediator_nodes", census.size(name) - out, {"pool": name, "state": "serving"})
            self._set("remediator_nodes", out, {"pool": name, "state": "not_serving"})
            self._set("remediator_nodes", len(census.joining(name)), {"pool": name, "state": "joining"})
            self._set("remediator_spares_wanted", pool.spec.spares_wanted, {"pool": name})
            told = pool.status if pool.status is not UNSET else PoolStatus()
            self._set("remediator_nodes", told.out, {"pool": name, "state": "out"})
            self._set("remediator_spares", told.spares, {"pool": name})

    def _playbooks(self) -> None:
        ceiling = self._world.policy_spec.max_mode if self._world.policy is not None else "Audit"
        self._set("remediator_runs_active", len(self._world.open_runs))
        in_force = {each.name: each.generation for each in self._world.playbooks}
        for name, playbook in self._world.caches.playbooks.views().items():
            mode = min(ceiling, playbook.spec.mode, key=_MODES.index)
            for each in _MODES:
                self._set("remediator_playbook_mode", float(each == mode), {"playbook": name, "mode": each})
            # One that can't be followed is not in force, or only as an older generation.
            valid = in_force.get(name) == playbook.metadata.generation
            self._set("remediator_playbook_valid", float(valid), {"playbook": name})

    def _faults(self) -> None:
        found = Counter(fault.fault_class for fault in self._diagnoses.faults())
        self._classes |= set(found)
        for fault_class in self._classes:
            self._set("remediator_open_faults", found[fault_class], {"fault_class": fault_class})
        self._set("remediator_oldest_undecided_fault_seconds", self._fleet.oldest_undecided_s())

    def _pauses(self) -> None:
        now, spec = self._clock.now(), self._world.policy_spec
        self._set(
            "remediator_paused", float(paused(spec.pause, "policy", now) is not None), {"scope": "policy"}
        )
        for name, pool in self._world.pools.items():
            is_paused = paused(pool.spec.pause, name, now) is not None
            self._set("remediator_paused", float(is_paused), {"scope": f"pool/{name}"})
        for name, playbook in self._world.caches.playbooks.views().items():
            is_paused = paused(playbook.spec.pause, name, now) is not None
            self._set("remediator_paused", float(is_paused), {"scope": f"playbook/{name}"})

    def _breakers(self) -> None:
        states = {state.scope: state.state for state in self._world.policy_status.breakers}
        self._scopes |= {"fleet", *states}
        for scope in self._scopes:
            for state in ("Closed", "Open", "HalfOpen"):
                is_it = states.get(scope, "Closed") == state
                self._set("remediator_breaker_state", float(is_it), {"scope": scope, "state": state})

    def _newcomers(self) -> None:
        waiting = self._joins.counted()
        self._stops |= set(waiting)
        for reason in self._stops:
            self._set("remediator_joins_waiting", waiting[reason], {"reason": reason})
        self._set("remediator_join_oldest_wait_seconds", self._joins.oldest_wait_s())
        self._set("remediator_join_rate_share", self._joins.rate_share)

    def _pages(self) -> None:
        for state, count in self._diagnoses.page_states().items():
            self._set("remediator_pages", count, {"state": state})
