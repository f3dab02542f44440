"""What must have ended once nothing has gone wrong for a while: traces that break it, and near misses."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from remediator.chaos.check import Judge, Report, Verdict
from remediator.chaos.profile import Fault, load_profile
from tests.unit.chaos import join_cases
from tests.unit.chaos.machine_cases import opens, shows
from tests.unit.chaos.trace import FENCE, GOING, NODE, POOL, THEM, Trace


def run_is(trace: Trace, name: str, state: str, *, node: str = NODE) -> None:
    left = {"kind": "Remediation", "spec": {"node": {"name": node}}, "status": {"state": state}}
    trace.write("patch", "remediations", name, subresource="status", sent={}, left=left)


PROFILE = replace(
    load_profile("remediator"),
    faults=(Fault(condition="KernelDeadlock"),),
    opt_out="example.com/out",
    longest={"Draining": 60.0},
)


def judged(trace: Trace, *, calm: bool = True) -> Report:
    judge = Judge(PROFILE, calm=calm)
    for numbered in trace.records():
        judge.see(numbered)
    return judge.report()


def verdict(trace: Trace, rule: str) -> Verdict:
    return next(each for each in judged(trace).verdicts if each.rule == rule)


def fenced() -> Trace:
    trace = Trace()
    trace.node(POOL)
    trace.patch(POOL, FENCE)
    return trace


@pytest.mark.parametrize("state", ["Granted", "Draining", "Verifying", ""])
def test_work_that_is_under_way_in_calm_is_told(state: str) -> None:
    trace = Trace()
    run_is(trace, "m-1", state)
    found = verdict(trace, "L1")

    assert found.answer == "broken"
    assert found.findings[0].text == f"m-1 is {state or 'nowhere'}"


@pytest.mark.parametrize("state", ["Returned", "Failed", "Held", "Blocked", "NodeGone"])
def test_work_that_has_ended_or_waits_for_a_person_is_none(state: str) -> None:
    trace = Trace()
    run_is(trace, "m-1", "Draining")
    run_is(trace, "m-1", state)

    assert verdict(trace, "L1").answer == "held"


def test_work_whose_record_was_deleted_is_over() -> None:
    trace = Trace()
    run_is(trace, "m-1", "Draining")
    trace.write("delete", "remediations", "m-1", left={"kind": "Status"})

    assert verdict(trace, "L1").answer == "held"


LATE = "m-1 was Draining for 61 s, 60 it may"


@pytest.mark.parametrize(("waits", "text"), [(59, None), (60, LATE)])
def test_work_that_stood_in_a_state_for_too_long_is_told_when_it_leaves_it(
    waits: int, text: str | None
) -> None:
    trace = Trace()
    for state in ("Draining",) * (waits + 1) + ("Held",):
        run_is(trace, "m-1", state)
    found = verdict(trace, "L6")

    assert [each.text for each in found.findings] == ([text] if text else [])


def test_fenced_node_without_work_is_an_orphan() -> None:
    trace = fenced()
    run_is(trace, "m-1", "Returned")
    found = verdict(trace, "L4")

    assert found.answer == "broken"
    assert found.findings[0].text == f"{NODE} is fenced, and no work keeps it out"


@pytest.mark.parametrize("state", ["Failed", "HandedOff", "Held", "Repairing"])
def test_fenced_node_that_work_keeps_out_is_none(state: str) -> None:
    trace = fenced()
    run_is(trace, "m-1", state)

    assert verdict(trace, "L4").answer == "held"


def test_fenced_node_that_other_work_names_is_an_orphan() -> None:
    trace = fenced()
    run_is(trace, "m-1", "Failed", node="gpu-2")

    assert verdict(trace, "L4").answer == "broken"


def test_log_that_goes_on_is_not_judged_by_its_end() -> None:
    trace = fenced()
    run_is(trace, "m-1", "Draining")

    assert not {"L1", "L4"} & {each.rule for each in judged(trace, calm=False).verdicts}


def test_more_than_a_few_are_counted() -> None:
    trace = Trace()
    for number in range(8):
        run_is(trace, f"m-{number}", "Draining")

    assert verdict(trace, "L1").findings[0].text.endswith("m-4 is Draining, and 3 more")


def test_fault_that_nobody_answers_is_told() -> None:
    trace = Trace()
    opens(trace, "another machine")
    shows(trace, "True", POOL)
    found = verdict(trace, "L2")

    assert found.answer == "broken"
    assert found.findings[0].text == f"{NODE} is faulty, and nothing is said of it"


def test_fault_that_work_keeps_out_is_answered() -> None:
    trace = Trace()
    shows(trace, "True", POOL)
    left = {
        "kind": "Remediation",
        "spec": {"node": {"name": NODE, "uid": "u-1"}},
        "status": {"state": "HandedOff"},
    }
    trace.write("create", "remediations", "m-1", left=left)

    assert verdict(trace, "L2").answer == "held"


@pytest.mark.parametrize(("taints", "labels"), [((GOING,), {}), ((), {"example.com/out": "true"})])
def test_fault_of_a_node_that_is_somebody_elses_needs_no_answer(
    taints: tuple[dict[str, str], ...], labels: dict[str, str]
) -> None:
    trace = Trace()
    opens(trace, "another machine")
    shows(trace, "True", POOL, *taints, **labels)

    assert verdict(trace, "L2").answer == "held"


def test_lease_that_nobody_renews_any_more_is_told() -> None:
    trace = Trace()
    trace.write("update", "leases", "remediator", left={})
    for _ in range(50):
        trace.write("update", "nodes", NODE, user=THEM, left={})
    found = verdict(trace, "L7")

    assert found.answer == "broken"
    assert found.findings[0].text == "nobody has renewed remediator for 50 s"


def test_lease_that_is_renewed_now_and_then_is_held() -> None:
    trace = Trace()
    for _ in range(3):
        trace.write("update", "leases", "remediator", left={})
        for _ in range(30):
            trace.write("update", "nodes", NODE, user=THEM, left={})

    assert verdict(trace, "L7").answer == "held"


def test_record_that_is_only_read_says_nothing_of_the_work() -> None:
    """A log keeps no body of a list: that is no case which could not be judged."""
    trace = Trace()
    run_is(trace, "m-1", "Returned")
    trace.write("list", "remediations", "", level="Metadata")
    trace.write("watch", "remediations", "", level="Metadata")

    assert (verdict(trace, "L1").answer, verdict(trace, "L1").unjudged) == ("held", 0)


def joined(trace: Trace) -> Verdict:
    profile = replace(PROFILE, **join_cases.FIELDS)
    judge = Judge(profile, calm=True)
    for numbered in trace.records():
        judge.see(numbered)
    return next(each for each in judge.report().verdicts if each.rule == "L9")


def test_new_node_that_is_fit_and_waits_in_calm_is_told() -> None:
    trace = Trace()
    join_cases.born(trace, "a")
    found = joined(trace)

    assert found.answer == "broken"
    assert found.findings[0].text == "a is fit and waits, with 0 others"


def test_new_node_that_is_not_fit_waits_for_a_person() -> None:
    trace = Trace()
    join_cases.born(trace, "a", fit="False")
    join_cases.born(trace, "b")
    join_cases.let_in(trace, "b")

    assert joined(trace).answer == "held"
