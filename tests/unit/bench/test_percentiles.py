from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.percentiles import percentile, summarize

SAMPLES = st.lists(st.floats(0, 1e6), min_size=1, max_size=300)


@pytest.mark.parametrize(
    ("percent", "expected"),
    [(0.5, 1), (1, 2), (7, 14), (50, 100), (50.1, 101), (95, 190), (99, 198), (100, 200)],
)
def test_percentile_is_a_sample_and_never_a_mixture(percent, expected):
    """Nearest rank, so that a published figure is a time that really was measured."""
    assert percentile(range(1, 201), percent) == expected


@pytest.mark.parametrize("percent", [0, -1, 100.1])
def test_percentile_refuses_what_is_none(percent):
    """A slip in the percentage must not come out as a figure."""
    with pytest.raises(ValueError, match="percentile"):
        percentile([1.0], percent)


def test_summary_of_nothing_is_an_error():
    """No samples means that nothing was measured; zero would look like a very good figure."""
    with pytest.raises(ValueError, match="0 samples"):
        summarize([])


def test_summary_of_one_sample_is_that_sample():
    """The smallest input."""
    found = summarize([3.5])

    assert (found.n, found.min, found.p50, found.p99, found.max, found.mean) == (1, 3.5, 3.5, 3.5, 3.5, 3.5)


@given(SAMPLES, st.randoms(use_true_random=False))
def test_summary_ignores_the_order_of_samples(samples, rng):
    """Blocks alternate, so samples arrive in any order."""
    shuffled = list(samples)
    rng.shuffle(shuffled)

    assert summarize(shuffled) == summarize(samples)


@given(SAMPLES)
def test_percentiles_are_ordered_and_covered(samples):
    """At least the named share of samples lies at or below each percentile."""
    found = summarize(samples)

    assert found.min <= found.p50 <= found.p95 <= found.p99 <= found.max
    for percent, value in ((50, found.p50), (95, found.p95), (99, found.p99)):
        assert sum(each <= value for each in samples) * 100 >= percent * len(samples)
