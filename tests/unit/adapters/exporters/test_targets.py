"""Which page belongs to which node."""

from __future__ import annotations

import pytest

from remediator.adapters.exporters.targets import PROBLEMS_MAX, targets
from remediator.model.meta import LabelSelector
from remediator.model.policy import ExporterSpec
from remediator.model.views import NodeView

PODS = LabelSelector(match_labels={"app": "dcgm-exporter"})


def a_node(name="gpu-a-017", *, ip="10.0.0.1", labels=None):
    addresses = (("Hostname", name), ("InternalIP", ip)) if ip else ()
    return NodeView(
        name=name, uid=f"uid-{name}", resource_version="1", labels=labels or {}, addresses=addresses
    )


@pytest.mark.parametrize(
    ("address", "ip", "url"),
    [
        ("http://{address}:9400/metrics", "10.0.0.1", "http://10.0.0.1:9400/metrics"),
        ("{address}:9400", "10.0.0.1", "http://10.0.0.1:9400/metrics"),
        ("https://{node}.gpu.example:9400/x", "", "https://gpu-a-017.gpu.example:9400/x"),
        ("http://{address}:9400", "fd00::1", "http://[fd00::1]:9400/metrics"),
    ],
)
def test_targets_fill_the_template(address, ip, url):
    """Scheme and path may be left out; an IPv6 address needs its brackets."""
    found = targets(ExporterSpec(address=address), [a_node(ip=ip)], {})

    assert (dict(found.urls), found.problems) == ({"gpu-a-017": url}, ())


def test_targets_refuse_one_address_for_all_nodes():
    """A service's address would show some node's page as every node's page."""
    found = targets(ExporterSpec(address="http://dcgm-exporter:9400/metrics"), [a_node()], {})

    assert not found.urls
    assert "write {node} or {address}" in found.problems[0]


def test_targets_take_the_pod_on_the_node():
    """Without a template the pods are the targets, with the port and path of the policy."""
    spec = ExporterSpec(namespace="gpu-operator", pod_selector=PODS, port=9401, path="/m")

    found = targets(spec, [a_node("b"), a_node("a"), a_node("c")], {"a": ["10.1.0.1"], "b": ["fd00::2"]})

    assert list(found.urls.items()) == [("a", "http://10.1.0.1:9401/m"), ("b", "http://[fd00::2]:9401/m")]
    assert found.problems == ("c: no running exporter pod",)


def test_targets_read_one_of_two_exporters_always_the_same_trap_17():
    """Two exporters that take turns would look like one that restarts all the time."""
    spec = ExporterSpec(pod_selector=PODS)

    urls = {
        targets(spec, [a_node()], {"gpu-a-017": order}).urls["gpu-a-017"]
        for order in (["10.1.0.2", "10.1.0.1"], ["10.1.0.1", "10.1.0.2"])
    }
    found = targets(spec, [a_node()], {"gpu-a-017": ["10.1.0.2", "10.1.0.1"]})

    assert urls == {"http://10.1.0.1:9400/metrics"}
    assert found.problems == ("gpu-a-017: 2 exporter pods; 10.1.0.1 is read",)


def test_targets_leave_out_nodes_that_the_selector_does_not_name():
    """Processor-only nodes have no exporter, and no page is missing there."""
    spec = ExporterSpec(address="{address}:9400", nodes=LabelSelector(match_labels={"gpu": "h100"}))

    found = targets(spec, [a_node("a", labels={"gpu": "h100"}), a_node("b")], {})

    assert list(found.urls) == ["a"]


def test_targets_name_a_node_without_address_and_bound_the_problems():
    """Ten thousand lines of the same problem help nobody."""
    nodes = [a_node(f"n{index:03d}", ip="") for index in range(100)]

    found = targets(ExporterSpec(address="{address}:9400"), nodes, {})

    assert found.problems[0].startswith("n000: no InternalIP")
    assert len(found.problems) == PROBLEMS_MAX
    assert found.problems[-1] == "and 69 nodes more"


def test_targets_say_that_nothing_is_configured():
    """An exporter without address and selector is a mistake, not an empty fleet."""
    found = targets(ExporterSpec(), [a_node()], {"gpu-a-017": ["10.1.0.1"]})

    assert not found.urls
    assert "neither an address nor a podSelector" in found.problems[0]
