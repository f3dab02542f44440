"""Which condition is bad, in three values."""

from __future__ import annotations

import pytest

from remediator.core.conditions import KNOWN, overrides, unjudged, verdict
from remediator.model.policy import ConditionPolarity
from remediator.model.signal import Truth
from remediator.model.views import ConditionView


@pytest.mark.parametrize(
    ("type_", "status", "expected"),
    [
        ("Ready", "True", Truth.FALSE),
        ("Ready", "False", Truth.TRUE),
        ("Ready", "Unknown", Truth.UNKNOWN),
        ("KernelDeadlock", "True", Truth.TRUE),
        ("KernelDeadlock", "False", Truth.FALSE),
        ("AcceleratedHardwareReady", "False", Truth.TRUE),
        ("AcceleratedHardwareReady", "True", Truth.FALSE),
        ("XidCriticalError", "True", Truth.TRUE),
        ("GPUMissing", "True", Truth.TRUE),
        ("SysLogsXIDError", "True", Truth.TRUE),
        ("KernelDeadlock", "", Truth.UNKNOWN),
        ("NobodyKnowsThis", "True", Truth.UNKNOWN),
        ("NobodyKnowsThis", "False", Truth.UNKNOWN),
    ],
)
def test_verdict_knows_the_polarity_of_each_family(type_, status, expected):
    """Ready and the EKS family are good when True, everything else is bad then."""
    assert verdict(type_, status, {}) is expected


def test_verdict_is_turned_by_the_policy():
    """A site may use a known name the other way round, and names that nobody ships."""
    ours = overrides(
        [ConditionPolarity(type="KernelDeadlock", good="True"), ConditionPolarity(type="Mine", good="False")]
    )

    assert verdict("KernelDeadlock", "True", ours) is Truth.FALSE
    assert verdict("Mine", "True", ours) is Truth.TRUE
    assert verdict("Mine", "Unknown", ours) is Truth.UNKNOWN


def test_known_names_each_good_status_as_kubernetes_writes_it():
    """A typing error in the table would call a whole family unknown."""
    assert set(KNOWN.values()) == {"True", "False"}
    assert {type_ for type_, good in KNOWN.items() if good == "True"} == {
        "Ready",
        "AcceleratedHardwareReady",
        "ContainerRuntimeReady",
        "KernelReady",
        "NetworkingReady",
        "StorageReady",
    }


def test_unjudged_are_those_that_no_table_and_no_playbook_knows():
    """A detector's own type does nothing until somebody says which of its statuses is good."""
    found = [ConditionView(type_, "True") for type_ in ("Ready", "Mine", "Theirs", "Nobodys")]

    assert unjudged(found, {"Mine": "False"}, {"Theirs"}) == (ConditionView("Nobodys", "True"),)
    assert unjudged(found[:3], {"Mine": "False"}, {"Theirs"}) == ()
