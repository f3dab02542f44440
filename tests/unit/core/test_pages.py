"""A pool's condition about its exporter pages: which, what is wrong, and the fix."""

from __future__ import annotations

from typing import get_args

import pytest

from remediator.core.pages import FIXES, pages_condition
from remediator.errors import FetchTroubleKind, PageTroubleKind
from remediator.model.signal import PageTrouble

HTML = PageTrouble("NotMetrics", "gpu-1: not a metrics page: starts with '<html'")
SLOW = PageTrouble("TimedOut", "http://gpu-2/metrics: no complete page within 3 s")
GARBLED = PageTrouble("BadLines", "lines of the page can't be read and are skipped")


def test_every_trouble_has_a_fix():
    """Whoever is woken by a page that can't be read wants to know what to change."""
    fetch, other = get_args(PageTroubleKind)
    assert fetch == FetchTroubleKind
    assert set(FIXES) == {*get_args(fetch), *get_args(other)}


@pytest.mark.parametrize(
    ("troubles", "uncovered", "status", "reason"),
    [
        ({}, "", "True", "AllRead"),
        ({}, "sees 6 of 8, two seconds ago", "True", "AllRead"),
        ({"a": HTML}, "", "False", "NotAllRead"),
        ({"a": HTML, "b": SLOW}, "sees 6 of 8", "False", "CoverageLow"),
        ({"a": GARBLED}, "", "True", "LinesSkipped"),
        ({"a": GARBLED, "b": SLOW}, "", "False", "NotAllRead"),
    ],
)
def test_condition_says_whether_pages_are_read(troubles, uncovered, status, reason):
    """A page of which a part is skipped still counts; a missing one does not."""
    found = pages_condition(troubles, expected=8, uncovered=uncovered)

    assert found is not None
    assert (found.status, found.reason) == (status, reason)
    assert all(trouble.text in found.message for trouble in troubles.values())
    assert all(FIXES[trouble.kind] in found.message for trouble in troubles.values())
    assert not troubles or uncovered in found.message


def test_condition_is_absent_where_no_playbook_reads_pages():
    """A pool of other machines has nothing to do with exporters."""
    assert pages_condition({}, expected=0, uncovered="") is None


def test_condition_names_the_missing_setting():
    """Playbooks that read pages, and a policy that does not say where these are."""
    found = pages_condition(None, expected=8, uncovered="not set")

    assert found is not None
    assert (found.status, found.reason) == ("Unknown", "NotConfigured")
    assert "RemediationPolicy/cluster spec.exporter" in found.message


def test_condition_of_a_thousand_nodes_stays_readable():
    """One example of each kind, the most frequent first; the rest as a number."""
    troubles = {f"n{number:04}": SLOW for number in range(1_000)} | {"x": HTML}

    found = pages_condition(troubles, expected=1_000, uncovered="")

    assert found is not None
    assert found.message.startswith("1000 TimedOut, n0000, n0001, n0002, n0003 and 996 more: ")
    assert "1 NotMetrics, x: " in found.message
    assert len(found.message) <= 1_024
