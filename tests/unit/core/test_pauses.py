from __future__ import annotations

import pytest

from remediator.core.pauses import doubled


@pytest.mark.parametrize(("turns", "pause_s"), [(0, 0.5), (1, 1.0), (3, 4.0), (4, 5.0), (100_000, 5.0)])
def test_pause_doubles_up_to_its_bound(turns: int, pause_s: float):
    """Also after a day of failures, where the power alone would be no float any more."""
    assert doubled(0.5, turns, 5.0) == pause_s
