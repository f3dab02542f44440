"""Layouts, Node objects and workloads: pure parts."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from remediator.errors import PermanentError
from remediator.fleet.layout import (
    addresses_of,
    build_fleet,
    rack_name,
    standard_fleet,
)
from remediator.fleet.machines import machine_for
from remediator.fleet.node_objects import LABEL_ASSET, LABEL_CLIQUE, LABEL_POOL, LABEL_RACK, node_object
from remediator.fleet.workloads import (
    Workload,
    filling,
    workload_objects,
)
from remediator.testbed.node_edits import is_settled, lifecycle_taints, status_of

AT = "2026-01-02T03:04:05Z"


def test_standard_fleet_has_the_layout_that_stories_name():
    """64 GPU nodes in 8 racks of 6 + 1 + 1, and two system nodes."""
    fleet = standard_fleet()

    assert Counter(spec.pool for spec in fleet) == {"train": 48, "infer": 8, "buffer": 8, "": 2}
    assert [spec.name for spec in fleet[:8]] == [f"gpu-a-{number:02d}" for number in range(1, 9)]
    assert [spec.name for spec in fleet[-3:]] == ["gpu-h-08", "system-01", "system-02"]
    for rack in "abcdefgh":
        in_rack = [spec for spec in fleet if spec.rack == rack]
        assert Counter(spec.pool for spec in in_rack) == {"train": 6, "infer": 1, "buffer": 1}
        assert len({spec.zone for spec in in_rack}) == len({spec.clique for spec in in_rack}) == 1


def test_thousand_nodes_are_all_different():
    """Names, addresses, identities and GPUs are keys somewhere; a clash would be a ghost fault."""
    fleet = build_fleet(racks=125, per_rack=8)

    assert len(fleet) == 1002
    assert len({spec.name for spec in fleet}) == 1002
    assert len(set(addresses_of(fleet).values())) == 1002
    assert len({spec.machine.system_uuid for spec in fleet}) == 1002
    assert len({spec.machine.asset_tag for spec in fleet if spec.gpus}) == 1000
    assert len({uuid for spec in fleet for uuid in spec.machine.gpu_uuids}) == 8000


@pytest.mark.parametrize(("number", "name"), [(0, "a"), (25, "z"), (26, "aa"), (701, "zz")])
def test_rack_names_go_on_after_z(number, name):
    """A rack name is part of node names and must stay unique."""
    assert rack_name(number) == name


@pytest.mark.parametrize(
    "arguments",
    [{"racks": 703}, {"per_rack": 0}, {"per_rack": 1}, {"infer": -1}, {"system": 100}],
    ids=["racks", "empty rack", "too few", "negative", "system"],
)
def test_impossible_layout_is_refused(arguments):
    """A fleet that silently lacks its buffer would make every swap test pass for nothing."""
    with pytest.raises(PermanentError):
        build_fleet(**arguments)


def test_node_object_is_as_large_and_as_full_as_a_real_one():
    """Memory and parser figures are stated for this size."""
    node = node_object(standard_fleet()[0], at=AT)

    assert 18_000 <= len(json.dumps(node, separators=(",", ":"))) <= 22_000
    assert len(node["metadata"]["labels"]) >= 60
    assert len(node["status"]["images"]) == 50
    assert all(isinstance(value, str) for value in node["status"]["nodeInfo"].values())


def test_node_object_carries_what_remediation_reads():
    """Pool by taint and label, topology, identity, GPUs."""
    node = node_object(standard_fleet()[7], at=AT)
    labels, machine = node["metadata"]["labels"], machine_for("gpu-a-08")

    assert node["spec"]["taints"] == [{"key": LABEL_POOL, "value": "buffer", "effect": "NoSchedule"}]
    assert (labels[LABEL_POOL], labels[LABEL_RACK]) == ("buffer", "a")
    assert labels[LABEL_CLIQUE].endswith(".1")
    assert (
        labels[LABEL_ASSET]
        == node["metadata"]["annotations"][LABEL_ASSET]
        == machine_for("gpu-a-08").asset_tag
    )
    assert labels["nvidia.com/gpu.count"] == node["status"]["capacity"]["nvidia.com/gpu"] == "8"
    assert node["spec"]["providerID"].endswith(machine.system_uuid)


def test_label_values_are_legal():
    """The server refuses a Node with one bad label, and with it the whole fleet."""
    for spec in standard_fleet():
        for key, value in node_object(spec, at=AT)["metadata"]["labels"].items():
            assert len(value) <= 63, key
            assert not value or (value[0].isalnum() and value[-1].isalnum()), key
            assert set(value) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."), key


def test_conditions_know_both_polarities():
    """The EKS family is good when True, everything else but Ready is bad when True."""
    plain = node_object(standard_fleet()[0], at=AT)
    eks = node_object(standard_fleet()[0], at=AT, eks=True)

    assert status_of(plain, "AcceleratedHardwareReady") == ""
    assert status_of(eks, "AcceleratedHardwareReady") == "True"
    assert status_of(eks, "KernelDeadlock") == "False"


def test_new_node_is_not_ready_until_its_kubelet_says_so():
    """A fleet that is born Ready would hide every start-up path."""
    assert status_of(node_object(standard_fleet()[0], at=AT), "Ready") == "False"


def test_system_node_has_neither_pool_nor_gpus():
    """Controllers of the cluster itself must find room there."""
    node = node_object(standard_fleet()[-1], at=AT)

    assert node["spec"]["taints"] == []
    assert "nvidia.com/gpu" not in node["status"]["capacity"]
    assert "nvidia.com/gpu.present" not in node["metadata"]["labels"]


@pytest.mark.parametrize(
    ("ready", "taint", "settled"),
    [
        ("True", "example.com/pool", True),
        ("True", "node.kubernetes.io/unschedulable", True),
        ("True", "node.kubernetes.io/not-ready", False),
        ("Unknown", "example.com/pool", False),
    ],
    ids=["pool", "cordon", "lifecycle", "unknown"],
)
def test_settled_looks_at_lifecycle_only(ready, taint, settled):
    """A cordon belongs to somebody and would be waited for in vain."""
    conditions = [{"type": "Ready", "status": ready}]
    node = {"spec": {"taints": [{"key": taint}]}, "status": {"conditions": conditions}}

    assert is_settled(node) is settled
    assert is_settled({"spec": {}, "status": {"conditions": conditions}}) is (ready == "True")
    assert bool(lifecycle_taints(node)) is (taint == "node.kubernetes.io/not-ready")


def test_workload_fills_the_training_pool_to_the_last_gpu():
    """Without a full pool a lost node would cost nothing, and no spare would be needed."""
    by_kind = {item["kind"]: item for item in workload_objects(Workload())}
    trainers, gang = by_kind["Deployment"]["spec"], by_kind["Job"]["spec"]

    assert trainers["replicas"] + gang["parallelism"] == 48
    assert gang["completions"] == gang["parallelism"]
    assert gang["completionMode"] == "Indexed"
    for spec in (trainers, gang):
        limits = spec["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert limits == {"nvidia.com/gpu": "8"}
    assert by_kind["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1
    assert Workload().pods(66) == 182


@pytest.mark.parametrize(
    ("racks", "per_rack", "trainers", "gang"), [(8, 8, 44, 4), (1, 5, 0, 3), (1, 3, 0, 1)]
)
def test_workload_of_any_fleet_fills_its_training_pool(racks, per_rack, trainers, gang):
    """Of a fleet that is smaller than the gang, the gang is all there is room for."""
    found = filling(racks, per_rack)
    assert (found.trainers, found.gang, found.frontends) == (trainers, gang, racks)
