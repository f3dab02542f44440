"""What is decided while the controller is put together."""

from __future__ import annotations

import pytest

from remediator.app.controller import lease_settings
from remediator.app.settings import Settings, lease_times


@pytest.mark.parametrize(
    ("lease_s", "request_s"), [(15.0, 3.0), (9.0, 3.0), (3.0, 1.0)], ids=["default", "edge", "short"]
)
def test_one_renewal_leaves_time_for_another(lease_s: float, request_s: float) -> None:
    """A short --lease-seconds must start too: a renewal that hangs may not eat up the whole deadline."""
    times = lease_settings(Settings(**lease_times(lease_s)))

    assert times.request_timeout_s == pytest.approx(request_s)
    assert times.request_timeout_s < times.renew_deadline_s < times.lease_s
