"""The hardware's bookkeeping; what it does to a cluster is in tests/e2e/test_fleet.py."""

from __future__ import annotations

import threading

import pytest

from remediator.errors import PermanentError
from remediator.fleet.layout import (
    build_fleet,
)
from remediator.fleet.repairs import (
    Reboot,
)
from remediator.testbed.api import Api
from remediator.testbed.certificates import Authority
from remediator.testbed.hardware import (
    EVENTS_MAX,
    Hardware,
)
from remediator.testbed.kubeconfig import Access
from remediator.testbed.waiting import WaitExpiredError

SPECS = build_fleet(racks=1, per_rack=3, system=0)
NODE = "gpu-a-01"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Api:
    """A client of a server that is not there: port 9 of loopback refuses."""
    authority = Authority.create(tmp_path_factory.mktemp("pki"))
    return Api(Access(server="https://127.0.0.1:9", authority=authority.certificate))


@pytest.fixture
def hardware(api: Api) -> Hardware:
    return Hardware(api, SPECS)


def test_waiting_for_an_event_ends_when_another_thread_notes_it(hardware):
    """Tests wait for the hardware, not for a guess of how long it takes."""
    threading.Thread(target=hardware.note, args=(NODE, "node ready", "boot 2")).start()

    event = hardware.wait_for(NODE, "node ready", timeout_s=5)

    assert (event.node, event.detail) == (NODE, "boot 2")


def test_waiting_for_an_event_has_a_bound_and_names_what_happened(hardware):
    """A test that hangs says nothing; this one says what the hardware did instead."""
    hardware.note(NODE, "went silent")
    hardware.note("gpu-a-02", "node ready")

    with pytest.raises(WaitExpiredError, match=r"gpu-a-01: 'node ready' .* \['went silent'\]"):
        hardware.wait_for(NODE, "node ready", timeout_s=0.01)


def test_waiting_counts_events(hardware):
    """A machine that reboots twice must be told from one that reboots once."""
    hardware.note(NODE, "reboot began", "first")
    hardware.note(NODE, "reboot began", "second")

    assert hardware.wait_for(NODE, "reboot began", timeout_s=0, count=2).detail == "second"
    with pytest.raises(WaitExpiredError):
        hardware.wait_for(NODE, "reboot began", timeout_s=0, count=3)


def test_events_are_bounded(hardware):
    """A soak test of days must not grow."""
    for number in range(EVENTS_MAX + 1):
        hardware.note(NODE, "tick", str(number))

    assert len(hardware.events) == EVENTS_MAX
    assert hardware.events[0].detail == "1"


def test_reboot_that_never_happens_touches_nothing(hardware):
    """Here there is not even a server to touch."""
    hardware.reboot(NODE, Reboot(times=0))

    assert [event.what for event in hardware.events] == ["reboot ignored"]


def test_stopped_hardware_says_that_it_dropped_a_reboot(hardware):
    """A reboot that silently does not happen would look like a broken controller."""
    hardware.stop()

    hardware.reboot(NODE)

    assert [event.what for event in hardware.events] == ["reboot dropped"]


@pytest.mark.parametrize("wrong", [{"times": 6}, {"times": -1}, {"late_s": 601}, {"off_s": -1}])
def test_reboot_refuses_a_plan_without_bound(wrong):
    """Every wait of the test bed has a bound."""
    with pytest.raises(PermanentError):
        Reboot(**wrong)


def test_unknown_node_is_refused(hardware):
    """A typo must not pass as a fault that nobody noticed."""
    with pytest.raises(PermanentError, match="no node 'gpu-z-01'"):
        hardware.go_silent("gpu-z-01")
