"""The limits: rate and burst of cluster and pool, growth, how many settle at once, the brake."""

from __future__ import annotations

from remediator.core.joins.limiter import Limiter, Standing, rebased
from remediator.model.joins import Growth, JoinRate, JoinsSpec, PoolJoins, Slot
from remediator.model.meta import Rate
from tests.unit.core.builders import a_pool, at, text
from tests.unit.core.joins.builders import stops

SPEC = JoinsSpec(rate=Rate(count=20, per="1m", burst=10), max_initialising=50)
POOLS = {
    "slow": a_pool("slow", joins=PoolJoins(rate=Rate(count=2, per="1m", burst=1), max_initialising=3)).spec,
    "fast": a_pool("fast").spec,
}


def limiter(spec=SPEC, rates=(), let_in=(), now_s=0.0, settling=None, **standing) -> Limiter:
    seen = Standing(now=at(now_s), settling=settling or {}, **({"inside": 0} | standing))
    return Limiter(spec, POOLS, rates, let_in, seen)


def take_all(found: Limiter, pool: str, most: int = 1_000) -> int:
    taken = 0
    while taken < most and found.stop(pool) is None:
        found.take(pool)
        taken += 1
    return taken


def test_a_fresh_bucket_lets_a_burst_in_and_no_more():
    """However many wait."""
    assert take_all(limiter(), "fast") == 10


def test_a_pool_with_its_own_rate_takes_of_both_buckets():
    """Its nodes count for the cluster too."""
    found = limiter()

    assert take_all(found, "slow") == 1
    assert take_all(found, "fast") == 9
    assert stops(found.stop("slow")).reason == "Rate"


def test_the_wait_for_the_next_token_is_told():
    """Twenty a minute is one in three seconds."""
    found = limiter()
    take_all(found, "fast")

    stop = stops(found.stop("fast"))

    assert stop.reason == "Rate"
    assert stop.wait_s == 3.0
    assert "20 in 1m, burst 10" in stop.numbers


def test_a_bucket_fills_from_what_is_stored():
    """A restart begins with what the last leader wrote."""
    rates = (JoinRate(tokens=0.0, at=text(0)),)

    assert take_all(limiter(rates=rates, now_s=2.9), "fast") == 0
    assert take_all(limiter(rates=rates, now_s=3.0), "fast") == 1
    assert take_all(limiter(rates=rates, now_s=3_600), "fast") == 10


def test_the_brake_slows_what_fills_and_takes_nothing_back():
    """Half a brake is half a rate, and what is in the bucket stays."""
    rates = (JoinRate(tokens=2.0, at=text(0)),)

    assert take_all(limiter(rates=rates, now_s=6.0, brake=0.5), "fast") == 3
    empty = limiter(rates=(JoinRate(tokens=0.0, at=text(0)),), now_s=0.0, brake=0.5)
    slowed = stops(empty.stop("fast"))
    assert slowed.wait_s == 6.0
    assert "slowed to 50%" in slowed.numbers


def test_what_is_closed_lets_nobody_in_and_says_why():
    """Blind means still; a pause of one pool is of that pool only."""
    blind, one = limiter(closed={"": "nodes: not synced"}), limiter(closed={"slow": "paused by anna"})

    assert stops(blind.stop("fast")).reason == "Closed"
    assert stops(one.stop("slow")).numbers == "paused by anna"
    assert one.stop("fast") is None


def test_stored_levels_never_gain_by_rounding():
    """Six digits, always down."""
    found = limiter(rates=(JoinRate(tokens=1.0, at=text(0)),), now_s=1.0)
    found.take("fast")

    assert found.rates()[0].tokens == 0.333333


def test_as_many_may_settle_as_the_spec_says():
    """In the cluster, and of one pool."""
    assert stops(limiter(settling={"fast": 50}).stop("fast")).reason == "Initialising"
    assert stops(limiter(settling={"slow": 3}).stop("slow")).reason == "PoolInitialising"
    assert limiter(settling={"slow": 3}).stop("fast") is None
    assert take_all(limiter(settling={"fast": 47}), "fast") == 3


def test_growth_is_limited_once_the_cluster_is_large():
    """A tenth in ten minutes, of 200 nodes and above."""
    lately = (Slot(at=text(-300), count=15),)

    assert take_all(limiter(let_in=lately, inside=199), "fast") == 10
    large = limiter(let_in=lately, inside=200)
    assert take_all(large, "fast") == 5
    assert stops(large.stop("fast")).reason == "Growth"
    assert "10 % of 200 nodes is 20" in stops(large.stop("fast")).numbers


def test_a_slot_counts_until_its_last_moment_has_left_the_window():
    """A node that was let in at the end of that minute is let in within the window still."""
    growth = JoinsSpec(growth=Growth(percent=10, within="10m", above=10), rate=SPEC.rate)
    lately = (Slot(at=text(0), count=1),)

    assert stops(limiter(growth, let_in=lately, now_s=659, inside=10).stop("fast")).reason == "Growth"
    assert stops(limiter(growth, let_in=lately, now_s=659, inside=10).stop("fast")).wait_s == 1.0
    assert limiter(growth, let_in=lately, now_s=660, inside=10).stop("fast") is None


def test_the_growth_window_keeps_a_slot_a_minute_and_forgets_old_ones():
    """It is part of an object that everybody watches."""
    lately = (Slot(at=text(-3_000), count=9), Slot(at=text(-60), count=2), Slot(at=text(0), count=1))
    found = limiter(let_in=lately)
    take_all(found, "fast", 3)

    assert found.let_in() == (Slot(at=text(-60), count=2), Slot(at=text(0), count=4))


def test_rebased_levels_do_not_fill_in_between():
    """The gap between two leaders is worth nothing."""
    assert rebased((JoinRate(tokens=1.5, at=text(0)),), at(60)) == (JoinRate(tokens=1.5, at=text(60)),)
