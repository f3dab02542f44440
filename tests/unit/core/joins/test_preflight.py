"""What has to hold before a node is let in, and whether what is missing may still come."""

from __future__ import annotations

import pytest

from remediator.core.joins.preflight import Facts, preflight, worth_a_look
from remediator.model.joins import JoinsSpec
from remediator.model.pool import HardwareClass
from tests.unit.core.builders import a_node, a_pool, at
from tests.unit.core.joins.builders import new_node

SPEC = JoinsSpec(deadline="30m")
POOL = a_pool(hardware_class=HardwareClass(gpus=8, labels=("gpu",), driver="driver"))
LABELS = {"gpu": "H100", "driver": "550"}
MEMBER = a_node("old", labels=LABELS)


def facts(**fields) -> Facts:
    node = fields.pop("node", new_node(labels=LABELS))
    return Facts(**({"node": node, "pool": POOL, "alike": MEMBER} | fields))


def test_a_node_that_has_everything_passes_and_says_what_was_looked_at():
    """The evidence stands in the condition, for whoever asks why it was let in."""
    verdict = preflight(facts(), SPEC, at(10))

    assert (verdict.status, verdict.reason) == ("True", "Passed")
    assert "8 GPUs of the class of pool train" in verdict.message


NOT_YET = {
    "not ready": (facts(node=new_node(ready="False")), "NotReady"),
    "no Ready condition": (facts(node=new_node(ready="")), "NotReady"),
    "GPUs missing": (facts(node=new_node(labels=LABELS, gpus=6)), "GpuCount"),
    "label missing": (facts(node=new_node(labels={"gpu": "H100"})), "HardwareUnknown"),
    "page": (facts(page="no page for 40s"), "NoFreshPage"),
    "pods unknown": (facts(daemons=None), "PodsUnknown"),
    "pods not ready": (facts(daemons="kube-system/cni is not ready"), "DaemonSetsNotReady"),
    "Karpenter": (facts(node=new_node(labels=LABELS | {"karpenter.sh/nodepool": "a"})), "NotRegistered"),
    "an upgrade": (
        facts(node=new_node(labels=LABELS | {"nvidia.com/gpu-driver-upgrade-state": "drain-required"})),
        "OwnedByOther",
    ),
}
WRONG = {
    "a fault": (facts(fault="gpu.bus: XID 79"), "FaultFound"),
    "two identities": (facts(conflicted=True), "IdentityConflict"),
    "too many GPUs": (facts(node=new_node(labels=LABELS, gpus=16)), "GpuCount"),
    "another driver": (facts(node=new_node(labels=LABELS | {"driver": "535"})), "WrongHardware"),
    "a fault on a node that is not ready": (facts(node=new_node(ready="False"), fault="x"), "FaultFound"),
}


@pytest.mark.parametrize("name", sorted(NOT_YET))
def test_what_may_still_come_is_unknown(name):
    """A node that starts is no faulty node."""
    given, reason = NOT_YET[name]

    verdict = preflight(given, SPEC, at(10))

    assert (verdict.status, verdict.reason) == ("Unknown", reason)


@pytest.mark.parametrize("name", sorted(NOT_YET))
def test_what_has_not_come_by_the_deadline_is_wrong_and_still_shut(name):
    """It is reported under a name of its own, and never opens for that."""
    given, reason = NOT_YET[name]

    verdict = preflight(given, SPEC, at(1_801))

    assert (verdict.status, verdict.reason) == ("False", "DeadlinePassed")
    assert reason in verdict.message
    assert "30m" in verdict.message


@pytest.mark.parametrize("name", sorted(WRONG))
def test_what_will_not_go_by_itself_is_wrong_at_once(name):
    """It is named first, whatever else is missing besides."""
    given, reason = WRONG[name]

    verdict = preflight(given, SPEC, at(10))

    assert (verdict.status, verdict.reason) == ("False", reason)


def test_a_node_that_passes_after_its_deadline_passes():
    """The deadline reports; it does not condemn."""
    assert preflight(facts(), SPEC, at(9_999)).status == "True"


def test_a_registered_node_of_karpenter_passes():
    """From then on Karpenter puts no startup taint back."""
    labels = LABELS | {"karpenter.sh/nodepool": "a", "karpenter.sh/registered": "true"}

    assert preflight(facts(node=new_node(labels=labels)), SPEC, at(10)).status == "True"


def test_a_pool_without_a_class_asks_for_no_hardware():
    """Nor does a node of no pool."""
    assert preflight(facts(pool=a_pool(hardware_class=HardwareClass(gpus=8))), SPEC, at(1)).status == "True"
    assert preflight(facts(pool=None, node=new_node(gpus=0)), SPEC, at(1)).status == "True"


def test_the_first_node_of_a_pool_is_like_itself():
    """There is nobody to compare it with."""
    assert preflight(facts(alike=None), SPEC, at(1)).status == "True"


def test_pods_are_looked_at_only_where_nothing_else_is_missing():
    """A listing is a request: a storm of nodes that are not ready yet must cost none."""
    assert worth_a_look(facts(daemons=None))
    assert not worth_a_look(facts(daemons=None, page="no page"))
