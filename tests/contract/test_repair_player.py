"""What the player of repairs does without an API server; what it does with one is in tests/e2e."""

from __future__ import annotations

from pathlib import Path

from remediator.fleet.layout import (
    build_fleet,
)
from remediator.testbed.api import Api
from remediator.testbed.certificates import Authority
from remediator.testbed.hardware import Hardware
from remediator.testbed.kubeconfig import Access
from remediator.testbed.repair_player import RepairPlayer


def test_player_survives_a_server_that_is_away_and_stops_at_once(tmp_path: Path):
    """Chaos stops the API server; the hardware must go on looking."""
    authority = Authority.create(tmp_path)
    # Port 9 of loopback refuses.
    api = Api(Access(server="https://127.0.0.1:9", authority=authority.certificate))
    hardware = Hardware(api, build_fleet(racks=1, per_rack=3, system=0))
    with RepairPlayer(api, hardware, namespace="repair"):
        event = hardware.wait_for("", "look failed", timeout_s=30)

    assert "127.0.0.1" in event.detail or "refused" in event.detail.lower()
