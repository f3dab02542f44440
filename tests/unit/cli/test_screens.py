"""What the screens say, to the letter. A change of words is a change that people see: read the diff.

Write the goldens anew with: python -m tests.unit.cli.test_screens
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import click
import pytest

from remediator.app.leadership import Leadership
from remediator.cli import plan_facts, plan_screen, show_screen, status_screen, why_screen
from remediator.cli.columns import WIDTH
from remediator.cli.connection import paint
from remediator.cli.status_facts import Given, gather
from remediator.core.people import write_hold
from remediator.model.keys import ANNOTATION_HOLD
from remediator.model.ledger import BlockedRequest, ManagedNodeStatus, Out
from remediator.model.meta import Pause
from remediator.model.policy import BreakerState, PolicyStatus
from remediator.model.signal import Suspicion
from remediator.model.views import ConditionView, PdbView
from remediator.ports import PodListing
from tests.unit.cli.scenes import (
    LEADS,
    XID,
    a_blocked_status,
    a_diagnosis,
    an_answer,
    audit,
    judge,
    ten_nodes,
)
from tests.unit.core.builders import (
    BUFFER,
    T0,
    TRAIN,
    a_fleet,
    a_node,
    a_playbook,
    a_pod,
    a_policy,
    a_pool,
    a_run,
    at,
    quarantined,
    text,
)

GOLDEN = Path(__file__).parent / "golden"


def a_run_that_waits():
    return a_run(
        "gpu-3-4",
        node=a_node("gpu-3"),
        status=a_blocked_status(),
        fault_class="gpu.row-remap",
        evidence=(XID,),
        plan=("1 quarantine: a [undo: yes]", "2 drain: b [undo: NO]", "3 verify: c [undo: -]"),
        plan_hash="7f3c9a21",
        first_seen=text(-1_110),
    )


def a_busy_night() -> list[str]:
    """Something of everything that needs a person."""
    pools = (a_pool("train", spares_wanted=2), a_pool("infer", max_mode="Audit"), BUFFER)
    held = {ANNOTATION_HOLD: write_hold(text(3_600), "alice", "vendor on site")}
    nodes = [
        *(a_node(f"gpu-{number}") for number in range(4, 8)),
        quarantined(a_node("gpu-3"), "gpu-3-4"),
        quarantined(a_node("gpu-2"), "gpu-2-1"),
        a_node("gpu-1", unschedulable=True, annotations=held),
        a_node("inf-1", pool="infer", ready="Unknown"),
        a_node("spare-1", pool="buffer", gpus=4),
    ]
    breaker = BreakerState(
        scope="class/gpu.bus", state="Open", since=text(-300), last_fault_at=text(-60), count=5, limit=3
    )
    waiting = BlockedRequest(
        fault_class="gpu.bus", playbook="p", since=text(-1_080), blocked_by="BreakerOpen", numbers="5 faults"
    )
    out = Out(run="gpu-2-1", since=text(-7_200), fault_class="gpu.ecc", reason="RepairedBefore", pool="train")
    view = a_fleet(
        nodes,
        pools,
        policy=a_policy(pause=Pause(by="bob", reason="storm")),
        status=PolicyStatus(term=12, breakers=(breaker,)),
        runs={"gpu-3-4": a_run_that_waits()},
        ledgers={
            "gpu-2": ManagedNodeStatus(out=out, node="gpu-2"),
            "gpu-5": ManagedNodeStatus(request=waiting, node="gpu-5"),
        },
    )
    leadership = Leadership(holder="remediator-7d9c", acquired=at(-90), renewed=at(-40), lease_s=15)
    return _status(view, leadership)


def _status(view, leadership=LEADS) -> list[str]:
    given = Given(
        view=view, faults=(), ended={}, playbooks={}, ledgers={}, node_of=lambda name: name,
        machine_of=lambda node: node.name, leadership=leadership,
    )  # fmt: skip
    heading = status_screen.Heading(
        context="prod-gz-a", server_version="v1.33.4", program_version="0.1.0", nodes=len(view.nodes),
        gpus=sum(node.gpus for node in view.nodes.values()), term=12, last_leader="", now=T0,
        leadership=leadership,
    )  # fmt: skip
    return status_screen.render(heading, gather(given))


def a_plan() -> list[str]:
    view = audit()
    judged = judge(view)
    return plan_screen.render(
        an_answer(view, judged), judged, _leaving(judged), plan_facts.spares(judged.case)
    )


def _leaving(judged):
    gang = {"jobset.sigs.k8s.io/jobset-name": "pretrain"}
    pods = (
        *(a_pod(f"web-{number}", labels={"app": "web"}, gpus=1) for number in range(3)),
        a_pod("pretrain-0", labels=gang, priority=1_000, qos="Guaranteed", gpus=4, grace_s=300),
        a_pod("shell", owner_kind="", priority=-10, empty_dir=True),
        a_pod("exporter", owner_kind="DaemonSet"),
        a_pod("kube-proxy", mirror=True, owner_kind="Node"),
        a_pod("done", phase="Succeeded"),
    )
    pdbs = (PdbView("team", "web", 0, {"app": "web"}), PdbView("other", "web", 5, {"app": "web"}))
    return plan_facts.leaving(
        a_node("gpu-1"), PodListing(pods, pdbs), judged.playbook, a_policy(), soft=False
    )


SCREENS: Mapping[str, Callable[[], list[str]]] = {
    "why-audit": lambda: why_screen.render(an_answer(audit(), judge(audit()))),
    "why-open": lambda: why_screen.render(an_answer(ten_nodes(), judge(ten_nodes()))),
    "why-nothing": lambda: why_screen.render(an_answer(explanations=("p/ready: false: Ready=True",))),
    "why-run": lambda: why_screen.render(an_answer(run=a_run_that_waits())),
    "plan": a_plan,
    "status-quiet": lambda: _status(ten_nodes()),
    "status-busy": a_busy_night,
    "show": lambda: show_screen.render(a_run_that_waits(), T0),
    "show-md": lambda: show_screen.as_markdown(a_run_that_waits(), T0),
}


@pytest.mark.parametrize("name", sorted(SCREENS))
def test_screen_says_what_its_golden_says(name):
    """People learn where to look; words and places must not move by accident."""
    assert "\n".join(SCREENS[name]()) + "\n" == (GOLDEN / f"{name}.txt").read_text()


@pytest.mark.parametrize("name", sorted(set(SCREENS) - {"show-md"}))
def test_screen_fits_120_columns(name):
    """A wrapped screen is read wrongly at three in the morning."""
    assert all(len(line) <= WIDTH for line in SCREENS[name]())


def test_why_marks_only_the_first_gate_that_stops():
    """That one is to be dealt with first; the others say what comes after it."""
    view = ten_nodes(policy=a_policy(max_mode="Audit", pause=Pause(by="bob", reason="storm")))
    rows = why_screen.gate_rows(judge(view))

    assert [(gate, verdict) for _, gate, verdict, _, _ in rows if verdict != "ok"] == [
        ("pause", "STOP <"),
        ("mode", "STOP"),
    ]


def test_why_never_calls_a_gate_open_that_can_not_be_judged_from_here():
    """An ok from a check that could not read is how trust is lost."""
    judged = judge(ten_nodes(), unjudged={"coverage": "out of reach"})
    row = why_screen.gate_rows(judged)[9]

    assert row == ("10", "coverage", "?", "", "out of reach")
    assert judged.stop is None


def test_why_is_blocked_by_a_gate_and_by_a_run_that_waits():
    """The exit code 11 is for scripts that wait until somebody may act."""
    working = a_run("gpu-1-1", node=a_node("gpu-1"))

    assert why_screen.blocked(an_answer(audit(), judge(audit())))
    assert why_screen.blocked(an_answer(run=a_run_that_waits()))
    assert not why_screen.blocked(an_answer(ten_nodes(), judge(ten_nodes())))
    assert not why_screen.blocked(an_answer(run=working))
    assert not why_screen.blocked(an_answer())


def test_why_says_when_nobody_leads_though_every_gate_is_open():
    """Else people would wait for something that never comes."""
    vacant = Leadership(problem="there is no Lease")
    unknown = Leadership(problem="forbidden", known=False)
    answer = an_answer(ten_nodes(), judge(ten_nodes()), leadership=vacant)

    assert "nobody leads" in why_screen.headline(answer)
    assert "nobody leads" not in why_screen.headline(
        an_answer(ten_nodes(), judge(ten_nodes()), leadership=unknown)
    )


def test_why_names_conditions_that_nobody_can_judge_and_where_to_judge_them():
    """Else a detector of one's own looks as if it worked, and nothing is ever done about what it finds."""
    several = tuple(ConditionView(f"Mine{number}", "True") for number in range(5))

    said = " ".join("\n".join(why_screen.render(an_answer(unjudged=several))).split())

    assert "not judged: Mine0=True, Mine1=True, Mine2=True and 2 more; give the good status in" in said
    assert "RemediationPolicy/cluster spec.conditions" in said
    assert "not judged" not in "\n".join(why_screen.render(an_answer()))


def test_why_says_how_long_a_suspicion_has_to_last():
    suspected = Suspicion("sn4t0377", "gpu-1", "p", "ready", "gpu.bad", at(-20), at(40))
    answer = an_answer(diagnosis=a_diagnosis(suspicions=(suspected,)))

    assert why_screen.headline(answer) == (
        "Nothing yet: gpu.bad is suspected, and confirmed if it lasts 40s more."
    )


def test_plan_json_carries_what_the_text_says():
    """Programs read this: the keys are a promise, and the hash is the plan's own."""
    view = audit()
    judged = judge(view)
    found = plan_screen.as_json(
        an_answer(view, judged), judged, _leaving(judged), plan_facts.spares(judged.case)
    )

    assert found["format_version"] == "1.0"
    assert found["hash"] == judged.plan.hash
    assert found["blocked_by"] == "ModeAudit"
    assert found["starts_by_itself"] is False
    assert found["spare"] == "spare-1"
    assert found["spares_refused"] == [{"name": "spare-2", "reason": "4 GPUs allocatable, the class has 8"}]
    steps = found["steps"]
    assert isinstance(steps, list)
    assert [step["action"] for step in steps] == list(judged.playbook.actions)
    assert steps[0]["undo"] == "yes"
    pods = found["pods"]
    assert isinstance(pods, dict)
    assert [band["pods"] for band in pods["bands"]] == [
        ["team/shell"],
        ["team/web-0", "team/web-1", "team/web-2"],
        ["team/pretrain-0"],
    ]


def test_plan_shows_every_gate_with_its_numbers_in_the_order_of_why():
    """A plan that hides the gates that are open still makes people run why beside it."""
    judged = judge(ten_nodes(policy=a_policy(max_mode="Audit", pause=Pause(by="bob", reason="storm " * 40))))
    screen = plan_screen.render(
        an_answer(ten_nodes(), judged), judged, _leaving(judged), plan_facts.spares(judged.case)
    )
    begin = next(number for number, line in enumerate(screen) if line.startswith("GATES"))
    end = next(number for number, line in enumerate(screen) if line.startswith("HASH"))
    shown = "\n".join(screen[begin:end])
    told = [line.split()[:2] for line in screen[begin + 1 : end] if line[10:11].strip()]

    assert told == [[verdict.split()[0], gate] for _, gate, verdict, _, _ in why_screen.gate_rows(judged)]
    for verdict in judged.verdicts:
        assert all(word in shown for word in verdict.numbers.split())
    assert "..." not in shown


def test_plan_of_a_playbook_that_drains_nothing_leaves_all_pods_alone():
    """A report must not look like a drain."""
    report = a_playbook("report")
    leaving = plan_facts.leaving(a_node(), PodListing((a_pod(),), ()), report, a_policy(), soft=False)

    assert leaving.count == 0


def test_plan_ignores_pods_that_are_older_than_the_node():
    """They belonged to a machine that had this name before; the drain will not touch them."""
    node = a_node(created_at=text(0))
    pods = (a_pod("old", created_at=text(-60)), a_pod("new", created_at=text(60)))
    leaving = plan_facts.leaving(node, PodListing(pods, ()), a_playbook(), a_policy(), soft=False)

    assert [band.pods for band in leaving.bands] == [("team/new",)]


def test_status_does_not_call_for_a_person_over_what_our_own_run_takes():
    """A limit that our run uses up is work in progress."""
    run = a_run("gpu-3-4", node=a_node("gpu-3"))
    nodes = [a_node("gpu-1"), quarantined(a_node("gpu-3"), "gpu-3-4"), a_node("s", pool="buffer")]
    ours = "\n".join(_status(a_fleet(nodes, (TRAIN, BUFFER), runs={"gpu-3-4": run})))
    cordoned = [a_node("gpu-1"), a_node("gpu-3", unschedulable=True), a_node("s", pool="buffer")]
    theirs = "\n".join(_status(a_fleet(cordoned, (TRAIN, BUFFER))))

    assert "budget spent" not in ours
    assert "budget spent: 1 not serving" in theirs


@pytest.mark.parametrize(("waited_s", "news"), [(599, False), (601, True)], ids=["before", "after"])
def test_status_names_a_request_that_waits_for_more_than_ten_minutes(waited_s, news):
    """Before that most of them resolve themselves."""
    waiting = BlockedRequest(
        fault_class="gpu.bus", playbook="p", since=text(-waited_s), blocked_by="NoSpareReady", numbers="0"
    )
    lines = _status(ten_nodes(ledgers={"gpu-5": ManagedNodeStatus(request=waiting, node="gpu-5")}))

    assert any("NoSpareReady" in line for line in lines) is news


def test_status_says_that_the_lease_may_not_be_read_and_cries_no_wolf():
    """Who may look at nodes often may not look at Leases."""
    screen = "\n".join(_status(ten_nodes(), Leadership(problem="HTTP 403", known=False)))

    assert "nobody leads" not in screen
    assert "leader: HTTP 403" in screen


def test_paint_changes_no_word():
    """Colour never says what the words do not."""
    painted = paint("NEEDS YOU (2) STOP")

    assert painted != "NEEDS YOU (2) STOP"
    assert click.unstyle(painted) == "NEEDS YOU (2) STOP"


if __name__ == "__main__":
    for golden, screen in SCREENS.items():
        (GOLDEN / f"{golden}.txt").write_text("\n".join(screen()) + "\n")
