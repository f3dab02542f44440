"""Breakers: they open above their count at any fleet size, survive restarts, and close by themselves."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from remediator.core import breaker
from remediator.model.policy import (
    BREAKERS_MAX,
    CAUSE_CHARS_MAX,
    GRANTS_MAX,
    SCOPE_CHARS_MAX,
    BreakerSpec,
    BreakerState,
    FaultMark,
)
from remediator.model.pool import HardwareClass, TopologyLevel
from tests.unit.core.builders import a_pool, at, text

SPEC = BreakerSpec()


def marks(count, *, fault_class="gpu.bad", at_s=0.0, first=0, causes=()):
    return tuple(
        FaultMark(machine=f"m{number}", fault_class=fault_class, at=text(at_s), causes=causes)
        for number in range(first, first + count)
    )


def scopes(fault_class, *causes):
    return breaker.scopes_of(fault_class, causes)


def advance(states=(), found=(), fresh=(), *, now_s=0.0, nodes=10, runs=(), carrying=lambda cause: 8):
    return breaker.advance(
        states,
        found,
        fresh,
        spec=SPEC,
        nodes=nodes,
        carrying=carrying,
        open_runs=frozenset(runs),
        now=at(now_s),
    )


def opened(count=4, **fields):
    return advance((), marks(count), marks(count), **fields)


@pytest.mark.parametrize(("count", "states"), [(3, []), (4, ["class/gpu.bad", "fleet"])], ids=["at", "above"])
def test_breaker_opens_above_its_count_and_not_at_it(count, states):
    """Three faults of ten nodes are tolerated, the fourth is one too many."""
    assert [state.scope for state in opened(count)] == states


def test_breaker_of_a_class_stays_closed_when_only_the_fleet_is_over():
    """Different classes at once are a fleet matter, and stop all of them."""
    found = marks(2) + marks(2, fault_class="disk", first=2)
    states = advance((), found, found)

    assert [state.scope for state in states] == ["fleet"]
    assert breaker.stops(states, scopes("anything")) is not None


def test_breaker_counts_machines_and_not_faults():
    """One machine with four faults is one broken machine."""
    found = tuple(FaultMark(machine="m", fault_class=f"c{number}", at=text(0)) for number in range(9))

    assert advance((), found, found) == ()


@pytest.mark.parametrize("nodes", [0, 1, 30, 100, 1_000, 2_560, 10_000, 50_000])
def test_breaker_can_open_at_any_fleet_size(nodes):
    """The window remembers 256 faults: ten per cent of a big fleet must not be out of reach."""
    storm = breaker.record((), marks(nodes // 2 + 8), SPEC, at(0))

    assert "fleet" in [state.scope for state in advance((), storm, storm, nodes=nodes)]


def test_breaker_half_opens_after_the_quiet_time_and_lets_one_trial_through():
    """Open has a way out that needs no person, and it is narrow."""
    quiet = advance(opened(), now_s=900)

    assert [state.state for state in quiet] == ["HalfOpen", "HalfOpen"]
    assert breaker.stops(quiet, scopes("gpu.bad")) is None
    assert breaker.stops(breaker.with_trial(quiet, scopes("gpu.bad"), "m-1"), scopes("gpu.bad")) is not None


def test_breaker_stays_open_until_the_quiet_time_is_over():
    """One second too early is still open."""
    states = advance(opened(), now_s=899)

    assert [state.state for state in states] == ["Open", "Open"]
    assert breaker.stops(states, scopes("gpu.bad")) is not None


def test_breaker_closes_when_its_trial_is_over():
    """The trial ended: the common cause is gone."""
    trial = breaker.with_trial(advance(opened(), now_s=900), scopes("gpu.bad"), "m-1")

    assert len(advance(trial, now_s=901, runs=["m-1"])) == 2
    assert advance(trial, now_s=901) == ()


def test_breaker_closes_when_half_open_and_quiet_without_a_trial():
    """No fault, no request, nothing to try: it must not stay half open for ever."""
    half = advance(opened(), now_s=900)

    assert advance(half, now_s=1_799) == half
    assert advance(half, now_s=1_800) == ()


def test_breaker_opens_again_at_the_first_fault_while_half_open():
    """A cause that is still there shows at once."""
    fresh = marks(1, at_s=901, first=9)
    states = advance(advance(opened(), now_s=900), fresh, fresh, now_s=901)

    assert [state.state for state in states] == ["Open", "Open"]


def test_breaker_state_survives_a_restart():
    """Heal all, then fail one, after a restart while open: it is open still."""
    stored = msgspec.json.decode(msgspec.json.encode(opened()), type=tuple[BreakerState, ...])

    assert [state.state for state in advance(stored, now_s=300)] == ["Open", "Open"]


def test_breaker_never_moves_its_last_fault_backwards():
    """In a storm above 256 the forgotten old faults come back as fresh; that must not shorten the quiet."""
    late = marks(4, at_s=500)
    states = advance(
        advance((), late, late, now_s=500), late + marks(9, first=9), marks(9, first=9), now_s=501
    )

    assert {state.last_fault_at for state in states} == {text(500)}


@given(st.permutations(marks(3) + marks(3, at_s=60, first=3) + marks(2, fault_class="disk")))
def test_record_ignores_the_order_of_its_faults(found):
    """The status is compared with what is stored: an unstable order would write it for ever."""
    assert breaker.record((), found, SPEC, at(60)) == breaker.record((), sorted_marks(found), SPEC, at(60))


def sorted_marks(found):
    return sorted(found, key=lambda mark: (mark.at, mark.machine, mark.fault_class))


def test_record_drops_what_is_older_than_the_window_and_keeps_256():
    """The window is bounded in time and in number; the newest stay."""
    old, new = marks(5, at_s=-601), marks(GRANTS_MAX + 4)
    found = breaker.record(old, new, SPEC, at(0))

    assert len(found) == GRANTS_MAX
    assert all(mark.at == text(0) for mark in found)


def test_record_keeps_a_fault_exactly_at_the_edge_of_the_window():
    """Ten minutes ago is within ten minutes."""
    assert breaker.record(marks(1, at_s=-600), (), SPEC, at(0))


# -- one cause for many


RACK = "topology.example.com/rack=a"


def test_one_rack_opens_its_own_breaker_in_a_big_fleet():
    """Four of 2,500 are no storm, and four of one rack are a power supply: no reboot mends it."""
    found = marks(4, causes=(RACK,))
    states = advance((), found, found, nodes=2_500)

    assert [state.scope for state in states] == [f"cause/gpu.bad/{RACK}"]
    assert (states[0].count, states[0].limit) == (4, 3)
    assert breaker.stops(states, scopes("gpu.bad", RACK)) is states[0]
    assert breaker.stops(states, scopes("gpu.bad", "topology.example.com/rack=b")) is None
    assert breaker.stops(states, scopes("disk", RACK)) is None


def test_same_rack_by_different_classes_is_no_common_cause():
    """One cause shows as one class of faults."""
    found = marks(2, causes=(RACK,)) + marks(2, fault_class="disk", first=2, causes=(RACK,))

    assert advance((), found, found, nodes=2_500) == ()


@pytest.mark.parametrize(("carrying", "opens"), [(2_500, False), (30, True)], ids=["all", "a canary"])
def test_cause_that_everybody_shares_is_limited_like_the_fleet(carrying, opens):
    """Every node has the same driver on most days; a canary's driver is on few."""
    found = marks(4, causes=("driver=550.54",))
    states = advance((), found, found, nodes=2_500, carrying=lambda cause: carrying)

    assert bool(states) is opens


def test_breaker_of_a_cause_lets_its_own_trial_through_only():
    """A run elsewhere proves nothing about this rack."""
    found = marks(4, causes=(RACK,))
    half = advance(advance((), found, found, nodes=2_500), now_s=900)

    assert [state.trial for state in breaker.with_trial(half, scopes("gpu.bad"), "m-1")] == [""]
    assert [state.trial for state in breaker.with_trial(half, scopes("gpu.bad", RACK), "m-2")] == ["m-2"]


def test_more_causes_than_can_be_kept_open_the_fleets_breaker():
    """What is cut off must not become permission."""
    racks = range(BREAKERS_MAX // 2)
    found = tuple(
        mark for rack in racks for mark in marks(4, first=4 * rack, causes=(f"rack={rack}", f"feed={rack}"))
    )
    states = advance((), found, found, nodes=10_000)
    assert len(states) == BREAKERS_MAX
    assert all(state.scope.startswith("cause/") for state in states)

    more = (*found, *marks(4, first=900, causes=("rack=x",)))
    states = advance((), more, more, nodes=10_000)
    assert len(states) == BREAKERS_MAX
    assert states[-1].scope == "fleet"
    assert breaker.stops(states, scopes("anything")) is states[-1]


def test_causes_are_read_from_the_labels_that_pools_and_policy_name():
    """A rack is what a site says it is; a label without a value names nothing."""
    pool = a_pool(
        topology=(TopologyLevel(key="zone"), TopologyLevel(key="rack")),
        hardware_class=HardwareClass(gpus=8, driver="driver"),
    )
    keys = breaker.cause_keys(BreakerSpec(causes=("image",)), [pool, a_pool("buffer", "Buffer")])

    assert keys == ("driver", "image", "rack", "zone")
    labels = {"rack": "a", "zone": "", "driver": "550.54", "other": "x"}
    assert breaker.causes_of(labels, keys) == ("driver=550.54", "rack=a")


def test_longest_scope_fits_its_field():
    """A scope that the API server refuses would keep the grants of the same PUT from being written."""
    cause = f"{'d' * 253}/{'n' * 63}={'v' * 63}"
    scope = f"cause/{'c' * 48}/{cause}"

    assert len(cause) == CAUSE_CHARS_MAX
    assert len(scope) == SCOPE_CHARS_MAX
    assert scope in scopes("c" * 48, cause)
