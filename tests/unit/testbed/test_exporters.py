"""The state behind the exporter server; the server itself is in tests/contract."""

from __future__ import annotations

import pytest

from remediator.errors import PermanentError
from remediator.fleet.dcgm_fields import ENERGY, REMAP_FAILURE, REMAP_PENDING, XID
from remediator.fleet.exporter_state import ExporterStates
from remediator.fleet.machines import machine_for
from remediator.fleet.pages import PodLabels
from remediator.testbed.exporter_control import OPERATIONS
from remediator.testbed.exporters import ExporterServer

NODE, OTHER = "gpu-a-01", "gpu-a-02"


class Ticker:
    """A clock that stands until it is told to move."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def some_states(clock: Ticker | None = None) -> ExporterStates:
    return ExporterStates([machine_for(NODE), machine_for(OTHER)], clock=clock or Ticker())


def values_of(states: ExporterStates, name: str, node: str = NODE) -> list[str]:
    """Values of one family, in page order."""
    text = states.answer(node).body.decode()
    return [line.rsplit(" ", 1)[1] for line in text.splitlines() if line.startswith(f"{name}{{")]


def test_injected_xid_stays_until_the_exporter_restarts():
    """The gauge is a memory: it clears by restart, and then 0 means unknown."""
    states = some_states()

    states.inject_xid(NODE, 3, 79)
    before = values_of(states, XID)
    states.restart_exporter(NODE)

    assert before == ["0", "0", "0", "79", "0", "0", "0", "0"]
    assert set(values_of(states, XID)) == {"0"}
    assert set(values_of(states, XID, OTHER)) == {"0"}


def test_exporter_restart_leaves_the_hardware_fault_alone():
    """Only the memory is lost; a pending remap is in the board and shows again."""
    states = some_states()
    states.set_gauge(NODE, 0, REMAP_PENDING, 1)
    states.set_gauge(NODE, 0, "DCGM_FI_DEV_PCIE_REPLAY_COUNTER", 17)

    states.restart_exporter(NODE)

    assert values_of(states, REMAP_PENDING)[0] == "1"
    assert values_of(states, "DCGM_FI_DEV_PCIE_REPLAY_COUNTER")[0] == "0"


def test_reboot_clears_what_a_reboot_cures_and_nothing_else():
    """A pending remap is cured by a reboot, a failed one is not: the difference decides the repair."""
    states = some_states()
    states.inject_xid(NODE, 1, 48)
    states.set_gauge(NODE, 1, REMAP_PENDING, 1)
    states.set_gauge(NODE, 1, "DCGM_FI_DEV_ROW_REMAP_FAILED", 1)
    states.lose_gpu(NODE, 7)

    states.reboot(NODE)

    assert set(values_of(states, XID)) == {"0"}
    assert len(values_of(states, XID)) == 8
    assert set(values_of(states, REMAP_PENDING)) == {"0"}
    assert values_of(states, REMAP_FAILURE)[1] == "1"


def test_reboot_with_a_fault_that_persists_still_clears_the_xid():
    """After a reboot the gauge says 0 even though the fault is back: verify must look at the rest."""
    states = some_states()
    states.inject_xid(NODE, 1, 48)
    states.set_gauge(NODE, 1, REMAP_PENDING, 1)
    states.lose_gpu(NODE, 7)

    states.reboot(NODE, fault_persists=True)

    assert values_of(states, XID) == ["0"] * 7
    assert values_of(states, REMAP_PENDING)[1] == "1"


def test_replaced_gpus_have_new_uuids_and_no_past():
    """Handled codes are bound to UUIDs; new boards must start clean."""
    states = some_states()
    before = states.machine(NODE)
    states.inject_xid(NODE, 0, 64)
    states.set_gauge(NODE, 0, REMAP_FAILURE, 1)

    states.replace_gpus(NODE)

    after = states.machine(NODE)
    assert not set(before.gpu_uuids) & set(after.gpu_uuids)
    assert before.system_uuid == after.system_uuid
    assert after.gpu_uuids[0] in states.answer(NODE).body.decode()
    assert set(values_of(states, REMAP_FAILURE)) == {"0"}


def test_replaced_machine_is_another_one_under_the_same_name():
    """Nothing of the old machine may show, or its strikes would stick to the new one."""
    states = some_states()
    states.inject_xid(NODE, 0, 79)
    before = states.machine(NODE)

    after = states.replace_machine(NODE)

    assert after.system_uuid != before.system_uuid
    assert states.machine(NODE) == after
    assert set(values_of(states, XID)) == {"0"}


def test_stale_page_hides_later_changes_and_stands_still():
    """Staleness can only be told by counters that stand still."""
    clock = Ticker()
    states = some_states(clock)
    states.stale(NODE)
    before = states.answer(NODE).body

    states.inject_xid(NODE, 3, 79)
    clock.now += 60

    assert states.answer(NODE).body == before
    states.mend(NODE)
    assert values_of(states, XID)[3] == "79"
    assert values_of(states, ENERGY) != [
        line.rsplit(" ", 1)[1] for line in before.decode().splitlines() if line.startswith(f"{ENERGY}{{")
    ]


def test_pod_change_is_a_new_series_with_the_old_xid():
    """A reader that keys by all labels would see a second fault."""
    states = some_states()
    states.inject_xid(NODE, 3, 79)

    states.set_pod(NODE, 3, PodLabels(pod="next-0"))

    line = next(text for text in states.answer(NODE).body.decode().splitlines() if text.endswith(" 79"))
    assert 'pod="next-0"' in line


def test_text_value_goes_out_as_it_is():
    """The real exporter prints such text in place of a number."""
    states = some_states()

    states.set_gauge(NODE, 2, "DCGM_FI_DEV_GPU_TEMP", "ERROR - FAILED TO CONVERT TO STRING")

    text = states.answer(NODE).body.decode()
    assert "} ERROR - FAILED TO CONVERT TO STRING\n" in text


def test_hidden_field_is_absent_not_zero():
    """The default counters file has no ROW_REMAP_PENDING; absent must not read as healthy."""
    states = some_states()

    states.hide_field(NODE, REMAP_PENDING)

    assert REMAP_PENDING not in states.answer(NODE).body.decode()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda states: states.inject_xid("gpu-z-99", 0, 79),
        lambda states: states.inject_xid(NODE, 8, 79),
        lambda states: states.inject_xid(NODE, 0, -1),
        lambda states: states.set_gauge(NODE, 0, "DCGM_FI_DEV_NO_SUCH", 1),
        lambda states: states.slow(NODE, 601),
        lambda states: states.set_mig(NODE, 0, 8),
    ],
    ids=["node", "gpu", "code", "field", "slow", "mig"],
)
def test_state_refuses_what_does_not_exist(wrong):
    """A typo in a test must fail there, not look like a healthy page."""
    with pytest.raises(PermanentError):
        wrong(some_states())


def test_every_operation_is_a_method_with_these_arguments():
    """The table is data: a method renamed alone would break it in silence."""
    for name, arguments in OPERATIONS.items():
        method = getattr(ExporterStates, name)
        count = method.__code__.co_argcount - 2  # without self and node
        assert len(arguments) <= count, name


def test_server_refuses_an_address_that_others_can_reach():
    """A fake exporter must never listen on a real interface."""
    with pytest.raises(PermanentError, match="loopback"):
        ExporterServer(some_states(), addresses={NODE: "0.0.0.0"})
