"""Records that are complete at birth: Audit's and reports. They harm nobody, but each is two writes."""

from __future__ import annotations

from msgspec.structs import replace

from remediator.core.fleet import BIRTHS_PER_PASS_MAX, decide_fleet
from tests.unit.core.builders import a_fleet, a_node, a_playbook, a_request


def reports(count):
    nodes = [a_node(f"gpu-{number:03}") for number in range(count)]
    requests = [
        replace(a_request(node, machine=node.name), playbook=a_playbook("report", name="report"))
        for node in nodes
    ]
    return decide_fleet(a_fleet(nodes), requests, ())


def test_one_pass_records_a_bounded_number_of_reports():
    """A thousand nodes under memory pressure must not hold up the one with a lost GPU."""
    decision = reports(BIRTHS_PER_PASS_MAX * 3)

    assert len(decision.granted) == BIRTHS_PER_PASS_MAX
    assert not decision.refused, "the others are recorded by the next passes; nobody holds them back"


def test_fewer_reports_than_the_bound_are_all_recorded():
    """The bound is a pace, not a sample."""
    assert len(reports(BIRTHS_PER_PASS_MAX - 1).granted) == BIRTHS_PER_PASS_MAX - 1
