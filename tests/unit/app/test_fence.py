"""The fence of terms on the simulated server; the real policies have a contract test of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from remediator.app.fence import TermFence
from remediator.app.simulation import ACCOUNT, shipped_objects
from remediator.fleet.layout import build_fleet
from remediator.sim.loop import run_virtual, virtual_clock
from remediator.sim.world.cluster import Cluster
from remediator.sim.world.part import Actor

NODE = "/api/v1/nodes/gpu-a-01"
POLICY = "/apis/remediator.dev/v1alpha1/remediationpolicies/cluster"
Body = dict[str, Any]


def fenced(term: int, work: Callable[[Cluster, Actor], Any], *, policy: bool = True) -> Any:
    """Do something as the controller, on a cluster whose newest leader has this term."""

    async def main() -> Any:
        cluster = Cluster(
            virtual_clock(), seed=1, specs=build_fleet(1, 3, infer=1, buffer=1), repair_label="r"
        )
        objects = [each for each in shipped_objects() if policy or each["kind"] != "RemediationPolicy"]
        cluster.server.admissions.append(TermFence(cluster.server, ACCOUNT.name))
        cluster.apply(objects)
        cluster.machines.register()
        if policy and term:
            cluster.admin.send("PATCH", f"{POLICY}/status", {"status": {"term": term}})
        found = work(cluster, Actor(cluster.server, ACCOUNT.name))
        cluster.close()
        return found

    return run_virtual(main())


def patch(term: str) -> Callable[[Cluster, Actor], tuple[int, Body]]:
    change: Body = (
        {"metadata": {"annotations": {"remediator.dev/term": term}}} if term else {"spec": {"taints": []}}
    )
    return lambda _, ours: ours.send("PATCH", NODE, change)


@pytest.mark.parametrize(("term", "code"), [("7", 200), ("8", 200), ("6", 403), ("", 403), ("x", 403)])
def test_node_patch_has_to_carry_a_term_that_is_new_enough(term: str, code: int) -> None:
    assert fenced(7, patch(term))[0] == code


def test_refusal_says_what_the_program_knows_a_successor_by() -> None:
    _, said = fenced(7, patch("6"))
    assert "term 6 is older than term 7; another leader has taken over" in said["message"]
    assert "ValidatingAdmissionPolicy 'remediator-own-keys'" in said["message"]


def test_nobody_acts_before_a_leader_has_written_a_term() -> None:
    assert fenced(0, patch("1"))[0] == 403


def test_without_the_policy_nothing_is_judged() -> None:
    """As on a real server, whose policies would else refuse everybody's node updates."""
    assert fenced(0, patch(""), policy=False)[0] == 200


def test_other_people_are_let_through() -> None:
    assert (
        fenced(7, lambda cluster, _: cluster.admin.send("PATCH", NODE, {"spec": {"unschedulable": True}}))[0]
        == 200
    )


@pytest.mark.parametrize(("term", "code"), [(7, 200), (9, 200), (6, 403)])
def test_books_never_fall_back(term: int, code: int) -> None:
    assert (
        fenced(7, lambda _, ours: ours.send("PATCH", f"{POLICY}/status", {"status": {"term": term}}))[0]
        == code
    )


@pytest.mark.parametrize(("term", "code"), [("7", 404), ("6", 403)])
def test_eviction_is_judged_before_its_pod_is_looked_for(term: str, code: int) -> None:
    path = "/api/v1/namespaces/default/pods/nobody/eviction"
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": "nobody", "annotations": {"remediator.dev/term": term}},
    }
    assert fenced(7, lambda _, ours: ours.send("POST", path, body))[0] == code
