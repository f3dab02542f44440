"""The core's literal table of application XIDs says what the shipped catalogue says."""

from __future__ import annotations

from remediator.adapters.files.catalogue import by_code, load_catalogue
from remediator.core.validity import APPLICATION_XIDS


def test_application_xids_are_those_of_the_catalogue():
    """One list that drifts from the other would let a crashing program drain nodes."""
    found = {code for code, entry in by_code(load_catalogue()).items() if entry.standing == "Application"}

    assert found == APPLICATION_XIDS
