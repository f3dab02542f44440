"""Times as people type them: wrong ones are told at once, and none is in the past."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click
import pytest

from remediator.cli.moments import after, read_end, until

NOW = datetime(2026, 11, 22, 3, 14, 7, 250_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7d", "2026-11-29T03:14:07+00:00"),
        ("2026-12-01", "2026-12-02T00:00:00+00:00"),
        ("2026-11-22", "2026-11-23T00:00:00+00:00"),
        ("2026-11-22T05:00:00+01:00", "2026-11-22T04:00:00+00:00"),
    ],
    ids=["length", "date", "today", "time with zone"],
)
def test_until_reads_dates_times_and_lengths(text, expected):
    """A date means to its end: who says the 1st means that the 1st is over too."""
    assert until(NOW, read_end(text)).isoformat() == expected


@pytest.mark.parametrize("text", ["", "4x", "0s", "2026-11-22T05:00:00", "2026-11-32", "tomorrow", "999d"])
def test_end_refuses_what_it_can_not_mean(text):
    """A hold until a typo would hold nothing."""
    with pytest.raises(ValueError, match=r"write|between"):
        read_end(text)


@pytest.mark.parametrize("text", ["2026-11-21", "2026-11-22T03:14:07Z", "2028-01-01"])
def test_until_refuses_what_is_over_or_too_far(text):
    """A machine that is adopted until yesterday counts at once, which nobody means."""
    with pytest.raises(click.BadParameter, match="next 366 days; it is 2026-11-22 03:14 UTC now"):
        until(NOW, read_end(text))


def test_after_drops_fractions():
    """The API server's times have none, and people read them."""
    assert after(NOW, timedelta(minutes=90)).isoformat() == "2026-11-22T04:44:07+00:00"
