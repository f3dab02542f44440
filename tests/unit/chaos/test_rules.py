"""Each rule finds what breaks it, and lets pass what only looks like it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from remediator.chaos.check import KEPT_MAX, Verdict, check
from remediator.chaos.profile import Budget, load_profile
from remediator.chaos.rules import RULES
from remediator.chaos.rules.rule import at
from remediator.chaos.world import World
from tests.unit.chaos import join_cases, machine_cases, swap_cases
from tests.unit.chaos.trace import FENCE, GOING, NODE, POD, POOL, THEM, Trace, a_node

BUDGET = Budget(label="pool", value="train", most=1)
FIELDS = machine_cases.FIELDS | swap_cases.FIELDS | join_cases.FIELDS
PROFILE = replace(load_profile("remediator"), budgets=(BUDGET,), **FIELDS)
Play = Callable[[Trace], None]


def verdict(trace: Trace, rule: str) -> Verdict:
    report = check(trace.records(), PROFILE)
    return next(each for each in report.verdicts if each.rule == rule)


def fenced(trace: Trace) -> None:
    trace.node(POOL)
    trace.pod()
    trace.patch(POOL, FENCE)


def delete_by_name(trace: Trace) -> None:
    trace.write("delete", "leases", "remediator", sent={})


def delete_by_uid(trace: Trace) -> None:
    trace.write("delete", "leases", "remediator", sent={"preconditions": {"uid": "u"}})


def evict_by_name(trace: Trace) -> None:
    trace.evict(uid="")


def evict_behind_the_fence(trace: Trace) -> None:
    fenced(trace)
    trace.evict()


def evict_before_the_fence(trace: Trace) -> None:
    trace.node(POOL)
    trace.pod()
    trace.evict()
    trace.patch(POOL, FENCE)


def evict_what_is_refused(trace: Trace) -> None:
    """A budget said no, so nothing was done before the fence."""
    trace.node(POOL)
    trace.pod()
    trace.evict(code=429)
    trace.patch(POOL, FENCE)
    trace.evict()


def evict_a_daemon(trace: Trace) -> None:
    trace.node(POOL)
    trace.pod(owner="DaemonSet")
    trace.patch(POOL, FENCE)
    trace.evict()


def evict_a_mirror(trace: Trace) -> None:
    trace.node(POOL)
    trace.pod(owner="Node", mirror="x")
    trace.patch(POOL, FENCE)
    trace.evict()


def write_unbound(trace: Trace) -> None:
    trace.node(POOL)
    trace.patch(POOL, FENCE, bound=False)


def label_unbound(trace: Trace) -> None:
    """A label of our own has no list that could wipe another's out."""
    trace.node(POOL)
    trace.write(
        "patch", "nodes", NODE, sent={"metadata": {"labels": {"remediator.dev/x": "1"}}}, left=a_node(POOL)
    )
    trace.patch(POOL, FENCE)


def drop_a_foreign_taint(trace: Trace) -> None:
    trace.node(POOL, {"key": "rival.example.com/busy", "effect": "NoSchedule"})
    trace.patch(POOL, FENCE)


def keep_a_foreign_taint(trace: Trace) -> None:
    rival = {"key": "rival.example.com/busy", "effect": "NoSchedule"}
    trace.node(POOL, rival)
    trace.patch(rival, POOL, FENCE)


def change_a_foreign_label(trace: Trace) -> None:
    trace.node(POOL)
    trace.write("patch", "nodes", NODE, sent={}, left=a_node(POOL, team="ours"))


def lift_a_foreign_cordon(trace: Trace) -> None:
    trace.node(POOL)
    trace.write("patch", "nodes", NODE, user=THEM, left=a_node(POOL, cordoned=True))
    trace.patch(POOL, cordoned=False)


def lift_our_cordon(trace: Trace) -> None:
    trace.node(POOL)
    trace.patch(POOL, FENCE)
    trace.patch(POOL, cordoned=False)


def write_of_an_old_term(trace: Trace) -> None:
    trace.node(POOL)
    trace.patch(POOL, FENCE, term=2)
    trace.patch(POOL, term=1, cordoned=False)


def record_of_an_old_term(trace: Trace) -> None:
    """The log's order is not the store's: what was committed earlier may be told later."""
    trace.node(POOL)
    trace.patch(POOL, FENCE, term=2)
    trace.patch(POOL, term=1, version=101)


def refused_write_of_an_old_term(trace: Trace) -> None:
    trace.node(POOL)
    trace.patch(POOL, FENCE, term=2)
    trace.patch(POOL, term=1, code=403)


def write_nothing(trace: Trace) -> None:
    trace.node(POOL)
    trace.patch(POOL, FENCE)
    trace.patch(POOL, FENCE, version=104 - 2)


def write_twice(trace: Trace) -> None:
    trace.node(POOL)
    trace.patch(POOL, FENCE)
    trace.patch(POOL, cordoned=False)


def write_for_ever(trace: Trace) -> None:
    for _ in range(61):
        trace.write("patch", "remediations", "m-1", subresource="status", left={}, after_s=0.5)


def write_slowly(trace: Trace) -> None:
    for _ in range(90):
        trace.write("patch", "remediations", "m-1", subresource="status", left={}, after_s=1.1)


def write_one_after_another(trace: Trace) -> None:
    """Objects of one name that follow each other are not one object that is written over and over."""
    for _ in range(8):
        trace.write("create", "remediations", "m-1", left={}, after_s=0.5)
        for _ in range(10):
            trace.write("patch", "remediations", "m-1", subresource="status", left={}, after_s=0.5)


def renew_the_lease(trace: Trace) -> None:
    write_slowly(trace)
    for _ in range(120):
        trace.write("update", "leases", "remediator", left={}, after_s=0.5)


def ask_without_right(trace: Trace) -> None:
    trace.write("list", "secrets", "", code=403)


def run_into_the_fence(trace: Trace) -> None:
    """An admission policy did what it is there for."""
    trace.evict(code=403)
    trace.lines[-1]["annotations"] = {"authorization.k8s.io/decision": "allow"}


def lose_a_race(trace: Trace) -> None:
    trace.node(POOL)
    trace.patch(POOL, FENCE, code=409)


def fence_what_goes(trace: Trace) -> None:
    trace.node(POOL, GOING)
    trace.patch(POOL, GOING, FENCE)


def fence_what_goes_later(trace: Trace) -> None:
    """The autoscaler came second: what we had fenced stays fenced."""
    trace.node(POOL)
    trace.patch(POOL, FENCE)
    trace.write("patch", "nodes", NODE, user=THEM, left=a_node(POOL, FENCE, GOING, cordoned=True))
    trace.patch(POOL, FENCE, GOING)


def delete_a_pod(trace: Trace) -> None:
    trace.write("delete", "pods", POD, namespace="work", sent={"preconditions": {"uid": "u"}})


def fence_node(trace: Trace, name: str, pool: str, *taints: dict[str, str]) -> None:
    left = a_node(*taints, cordoned=True, pool=pool)
    trace.write("patch", "nodes", name, sent={"metadata": {"resourceVersion": "1"}}, left=left)


def fence_two(trace: Trace) -> None:
    fence_node(trace, "gpu-1", "train", FENCE)
    fence_node(trace, "gpu-2", "train", FENCE)


def fence_one_after_another(trace: Trace) -> None:
    """The first has left the pool, or its fence, before the second goes; the third is of another pool."""
    fence_node(trace, "gpu-1", "train", FENCE)
    fence_node(trace, "gpu-1", "repair", FENCE)
    fence_node(trace, "gpu-2", "train", FENCE)
    fence_node(trace, "gpu-3", "infer", FENCE)
    fence_node(trace, "gpu-2", "train", POOL)
    fence_node(trace, "gpu-4", "train", FENCE)
    fence_node(trace, "gpu-4", "train", FENCE, POOL)


def grant(trace: Trace, *grants: tuple[str, str]) -> None:
    left = {"status": {"grants": [{"run": run, "spare": spare} for run, spare in grants]}}
    trace.write("update", "remediationpolicies", "cluster", subresource="status", left=left)


def promise_twice(trace: Trace) -> None:
    grant(trace, ("m-1", "spare-1"), ("m-2", "spare-1"))


def promise_each_its_own(trace: Trace) -> None:
    """Two that have none share nothing, and a spare goes from one hand to the next."""
    grant(trace, ("m-1", "spare-1"), ("m-2", ""), ("m-3", ""))
    grant(trace, ("m-2", "spare-1"), ("m-3", "spare-2"))


def fence_without_a_word(trace: Trace) -> None:
    trace.node(POOL)
    trace.patch(POOL, FENCE)
    trace.lines[-1]["userAgent"] = "remediator/0.1.0 (term=1)"


CASES: dict[str, tuple[tuple[Play, ...], tuple[Play, ...]]] = {
    "S1": ((fence_two,), (fence_one_after_another,)),
    "S14": ((promise_twice,), (promise_each_its_own,)),
    "S24": ((fence_without_a_word,), (evict_behind_the_fence,)),
    "S4": ((delete_by_name, evict_by_name), (delete_by_uid, evict_behind_the_fence)),
    "S5": ((write_unbound,), (fenced, label_unbound)),
    "S7": ((evict_before_the_fence,), (evict_behind_the_fence, evict_what_is_refused)),
    "S8": ((delete_a_pod,), (evict_behind_the_fence,)),
    "S9": ((evict_a_daemon, evict_a_mirror), (evict_behind_the_fence,)),
    "S12": (
        (drop_a_foreign_taint, change_a_foreign_label, lift_a_foreign_cordon),
        (keep_a_foreign_taint, lift_our_cordon),
    ),
    "S13": ((write_of_an_old_term,), (record_of_an_old_term, refused_write_of_an_old_term, write_twice)),
    "S22": ((write_nothing,), (write_twice,)),
    "S23": ((write_for_ever,), (write_slowly, renew_the_lease, write_one_after_another)),
    "S27": ((ask_without_right,), (lose_a_race, run_into_the_fence)),
    "S32": ((fence_what_goes,), (fence_what_goes_later,)),
    **machine_cases.CASES,
    **swap_cases.CASES,
    **join_cases.CASES,
}


def test_every_rule_has_a_case_that_breaks_it_and_one_that_does_not():
    assert set(CASES) == {rule.id for rule in RULES}


@pytest.mark.parametrize(("rule", "play"), [(rule, play) for rule, (bad, _) in CASES.items() for play in bad])
def test_rule_finds(rule: str, play: Play):
    trace = Trace()
    play(trace)
    found = verdict(trace, rule)

    assert found.answer == "broken", found
    assert found.broken == len(found.findings) == 1
    (finding,) = found.findings
    assert 1 <= finding.line <= len(trace.lines)
    assert trace.lines[finding.line - 1]["auditID"] == finding.audit_id
    assert finding.text


@pytest.mark.parametrize(
    ("rule", "play"), [(rule, play) for rule, (_, good) in CASES.items() for play in good]
)
def test_rule_lets_pass(rule: str, play: Play):
    trace = Trace()
    play(trace)
    found = verdict(trace, rule)

    assert (found.answer, found.findings) == ("held", ()), found
    assert found.judged > 0, "a rule that saw no case has shown nothing"


@pytest.mark.parametrize("rule", ["S5", "S12", "S22"])
def test_rule_can_not_judge_what_the_log_does_not_say(rule):
    """A log at level Metadata proves nothing, and must not look like a proof."""
    trace = Trace()
    trace.node(POOL)
    trace.patch(POOL, FENCE, level="Metadata")
    found = verdict(trace, rule)

    assert found.answer == "unknown"
    assert "1 of 1 requests can't be judged" in found.why


def test_refused_request_without_a_body_is_no_case():
    """The server said no before it had read what was asked."""
    trace = Trace()
    trace.node(POOL)
    trace.patch(POOL, FENCE, level="Metadata", code=403)

    assert verdict(trace, "S5").answer == "no case"


def test_rule_can_not_judge_what_was_there_before_the_log():
    trace = Trace()
    trace.patch(POOL, FENCE)

    assert verdict(trace, "S12").answer == "unknown"


def test_rule_that_the_profile_gives_nothing_for_is_unknown():
    plain = load_profile("plain")
    report = check(Trace().records(), plain)
    unknown = {each.rule: each.why for each in report.verdicts if each.answer == "unknown"}

    assert unknown == {
        "S1": "the profile lacks own, budgets",
        "S2": "the profile lacks own, budgets, plan, pools",
        "S15": "the profile lacks own, claims, pools, floor",
        "S16": "the profile lacks own, plan, claims, pools",
        "S17": "the profile lacks plan, runs, pools",
        "S18": "the profile lacks joins",
        "S19": "the profile lacks joins",
        "S19b": "the profile lacks joins",
        "S26": "the profile lacks own",
        "S31": "the profile lacks own, lease",
        "S3": "the profile lacks own, faults",
        "S3b": "the profile lacks own, plan, runs",
        "S4b": "the profile lacks plan, runs",
        "S6": "the profile lacks own, reboots",
        "S10": "the profile lacks own, opt_out",
        "S11": "the profile lacks own, veto_seconds",
        "S21": "the profile lacks read_only",
        "S25": "the profile lacks reboots",
        "S30": "the profile lacks own, storm",
        "S7": "the profile lacks own",
        "S12": "the profile lacks own",
        "S13": "the profile lacks term",
        "S14": "the profile lacks claims",
        "S24": "the profile lacks own, plan",
        "S32": "the profile lacks own",
    }


def test_dry_run_is_no_deed():
    trace = Trace()
    trace.node(POOL)
    trace.pod()
    trace.evict(dry_run=True)

    assert verdict(trace, "S7").answer == "no case"


def test_full_world_knows_no_more_objects_and_keeps_those_that_it_knows_current():
    """Judging by how an object once was would find harm where there is none."""
    trace, world = Trace(), World(objects_max=1)
    fence_node(trace, "gpu-1", "train", FENCE)
    fence_node(trace, "gpu-2", "train", FENCE)
    fence_node(trace, "gpu-1", "train", POOL)
    for each in trace.records():
        world.take(each.record)

    assert list(world.nodes) == ["gpu-1"]
    assert [taint.key for taint in world.nodes["gpu-1"].object.spec.taints] == [POOL["key"]]


def test_findings_are_counted_and_a_bounded_number_is_kept():
    trace = Trace()
    for _ in range(KEPT_MAX + 5):
        trace.evict(uid="")
    found = verdict(trace, "S4")

    assert (found.broken, len(found.findings)) == (KEPT_MAX + 5, KEPT_MAX)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("metadata.name", "n"),
        ("metadata.labels[example.com/node]", "gpu-1"),
        ("metadata.labels[example.com/other]", ""),
        ("metadata.name.first", ""),
        ("spec.attempt", "2"),
    ],
)
def test_path_leads_through_keys_with_dots(path: str, text: str):
    found = {"metadata": {"name": "n", "labels": {"example.com/node": "gpu-1"}}, "spec": {"attempt": 2}}

    assert at(found, path) == text
