"""How much of a pool a source can see."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from remediator.core.coverage import (
    condition_coverage,
    exporter_coverage,
    gate,
    is_fresh,
    uncovered,
    wrong_host,
)
from remediator.model.meta import LabelSelector
from remediator.model.policy import ExporterSpec
from remediator.model.signal import Coverage, GpuReading, PageReading
from remediator.model.views import ConditionView, NodeView

T0 = datetime(2026, 11, 22, tzinfo=UTC)
GPUS = (GpuReading(uuid="GPU-1", index="0", xid=0),)


def a_node(name, *, ready="True", gpu="h100"):
    conditions = (ConditionView("Ready", ready),) if ready else ()
    return NodeView(name=name, uid=name, resource_version="1", labels={"gpu": gpu}, conditions=conditions)


def a_page(node="a", *, at=100.0, gpus=GPUS, host=""):
    return PageReading(node=node, at=T0, at_monotonic=at, gpus=gpus, host=host)


@pytest.mark.parametrize(("age", "expected"), [(44.9, True), (45.0, True), (45.1, False)])
def test_is_fresh_up_to_three_periods(age, expected):
    """One lost page is no news, three are."""
    assert is_fresh(a_page(at=100.0), now_monotonic=100.0 + age, period_s=15) is expected
    assert not is_fresh(None, now_monotonic=0.0, period_s=15)


def test_exporter_coverage_counts_fresh_pages_of_selected_nodes():
    """Absent, stale and empty pages are not seen; nodes without an exporter are not expected."""
    nodes = [a_node(name) for name in "abcd"] + [a_node("cpu", gpu="none"), a_node("stray")]
    readings = {"a": a_page(), "b": a_page(at=50.0), "c": a_page(gpus=()), "cpu": a_page()}
    spec = ExporterSpec(nodes=LabelSelector(match_labels={"gpu": "h100"}))

    found = exporter_coverage(
        nodes,
        lambda node: None if node.name == "stray" else "train",
        readings,
        spec,
        now_monotonic=100.0,
        period_s=15,
    )

    assert found == Coverage(source="exporter", fresh={"train": 1}, expected={"train": 4})


def test_condition_coverage_counts_kubelets_that_are_heard():
    """A node that is not Ready says so; one that is Unknown says nothing."""
    nodes = [a_node("a"), a_node("b", ready="False"), a_node("c", ready="Unknown"), a_node("d", ready="")]

    found = condition_coverage(nodes, lambda _: "train")

    assert found == Coverage(source="condition", fresh={"train": 2}, expected={"train": 4})


@pytest.mark.parametrize(
    ("fresh", "expected", "blocked"),
    [(79, 100, True), (80, 100, False), (100, 100, False), (0, 0, True), (3, 4, True), (4, 5, False)],
)
def test_uncovered_below_the_share(fresh, expected, blocked):
    """Exactly the share is enough; a pool that nobody watches never is."""
    coverage = Coverage(source="exporter", fresh={"train": fresh}, expected={"train": expected})

    assert (uncovered(coverage, "train", 80) is not None) is blocked


def test_gate_names_each_blind_pool_with_its_numbers():
    """An operator must see how far off it is."""
    coverage = Coverage(source="exporter", fresh={"b": 1, "a": 5}, expected={"b": 2, "a": 5})

    assert gate(coverage, 80) == {"b": "exporter sees 1 of 2 nodes of pool b, needs 80 %"}
    assert uncovered(coverage, "c", 80) == "exporter is expected on no node of pool c"


@pytest.mark.parametrize(
    ("host", "wrong"),
    [("a", False), ("", False), ("dcgm-exporter-x7k2p", False), ("a.eu.example", False), ("b", True)],
    ids=["own", "left out", "pod name, trap 9", "long name", "another node"],
)
def test_wrong_host_only_where_another_node_is_named(host, wrong):
    """The label is often no node name at all; another node's page is a fault on the wrong machine."""
    reason = wrong_host(a_page(host=host), a_node("a"), {"a", "b"})

    assert (reason is not None) is wrong
