"""The plan is a value: the same for dry run, approval and execution, stale when anything changed."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from remediator.core.actions import ACTIONS, harmful
from remediator.core.plan import build_plan
from remediator.model.playbook import QuarantineStep, Step
from remediator.model.signal import Evidence
from tests.unit.core.builders import HARD, STEPS, TRAIN, a_node, a_playbook, a_request
from tests.unit.core.tiny_world import a_spare

XID = Evidence(source="exporter", key="xid", text="xid 79", gpu="GPU-0", code=79)
ECC = Evidence(source="exporter", key="xid", text="xid 48", gpu="GPU-1", code=48)
REQUEST = a_request(a_node(), *HARD, evidence=(XID, ECC))
PLAN = build_plan(REQUEST, TRAIN, a_spare())


def test_plan_has_one_line_per_step_that_names_node_spare_and_undo():
    """People approve these lines, so they have to say what happens to whom."""
    assert len(PLAN.lines) == len(HARD)
    assert PLAN.lines[0].startswith(
        "1 quarantine: gpu-1 + taint remediator.dev/quarantine=gpu:NoSchedule, + cordon"
    )
    assert "spare-1 buffer -> train" in PLAN.lines[1]
    assert all("[undo: " in line for line in PLAN.lines)


CHANGES = {
    "another Node of that name": replace(REQUEST, node=a_node(uid="other")),
    "another fault class": replace(REQUEST, fault_class="gpu.other"),
    "less evidence": replace(REQUEST, evidence=(XID,)),
    "another version of the playbook": replace(REQUEST, playbook=a_playbook(*HARD, priority=1)),
    "another playbook": replace(REQUEST, playbook=a_playbook(*HARD, name="q")),
}


@pytest.mark.parametrize("change", sorted(CHANGES))
def test_plan_is_stale_when_what_it_rests_on_changed(change):
    """Approval binds to the evidence: what changed voids it."""
    assert build_plan(CHANGES[change], TRAIN, a_spare()).hash != PLAN.hash


def test_plan_is_stale_when_the_spare_changed():
    """Also where another machine carries the same name."""
    others = (None, a_spare("spare-2"), a_spare(uid="other"))

    assert len({build_plan(REQUEST, TRAIN, spare).hash for spare in others} | {PLAN.hash}) == 4


def test_plan_is_the_same_for_the_same_case():
    """The dry run is the real run: neither time, nor order, nor words of the evidence count."""
    later = replace(
        REQUEST, number=7, by="ann", evidence=(replace(ECC, text="seen 3 times"), XID), trigger="Manual"
    )

    assert build_plan(later, TRAIN, a_spare()) == PLAN
    assert len(PLAN.hash) == 8


@pytest.mark.parametrize("action", [*STEPS])
def test_plan_of_every_action_fits_a_line(action):
    """The record's field is bounded; a plan that does not fit would refuse the whole run."""
    node = a_node("n" * 253)
    for pool, spare in ((TRAIN, a_spare("s" * 253)), (None, None)):
        (line,) = build_plan(a_request(node, STEPS[action]), pool, spare).lines

        assert 0 < len(line) <= 256


def test_plan_without_spare_or_cordon_says_so():
    """What will not happen is part of the plan."""
    gentle = Step(id="fence", quarantine=QuarantineStep(value="gpu", cordon=False))
    lines = build_plan(a_request(a_node(), gentle, "swap"), None, None).lines

    assert "cordon" not in lines[0]
    assert "the place stays empty" in lines[1]


def test_actions_that_harm_are_those_that_take_capacity_or_pods():
    """Whatever harms needs a grant; nothing else may hide behind "only a report"."""
    assert {name for name, row in ACTIONS.items() if row.harms} == {"quarantine", "drain", "detach", "repair"}
    assert not harmful(("collect", "report", "verify"))
    assert harmful(("report", "drain"))
