"""Verify: silence is not health, unknown is not good, and a gap begins the soak anew."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from remediator.core.steps.verify import decide_verify
from remediator.model.decision import Done, GiveUp, Wait
from remediator.model.playbook import VerifyStep
from remediator.model.remediation import RemediationStatus, RunState, StepStatus
from remediator.model.signal import Evidence, GpuReading, PageReading
from remediator.model.views import ConditionView
from tests.unit.core.builders import BUFFER, T0, a_node, a_run, a_view, at, quarantined, text

INTENT = StepStatus(id="verify", action="verify", state="Intent", started_at=text(0))
STEP = VerifyStep(quiet_for="20m", boot_changed=True, timeout="2h")
WELL = quarantined(a_node(boot_id="boot-2"))


def page(gpus):
    readings = tuple(GpuReading(uuid=f"GPU-{number}", index="0", xid=0) for number in range(gpus))
    return PageReading(node="gpu-1", at=T0, at_monotonic=0.0, gpus=readings)


def decide(node=WELL, *, now_s=0.0, quiet="", boot="boot-1", step=STEP, **fields):
    status = RemediationStatus(repair_boot_id=boot, quiet_since=quiet)
    own = {"node": node, "now": at(now_s), "run": a_run(boot_id=boot, status=status), "reading": page(8)}
    return decide_verify(a_view(**own | fields), step, INTENT)


BAD: dict[str, dict[str, Any]] = {
    "not Ready": {"node": a_node(boot_id="boot-2", ready="Unknown")},
    "has not changed": {"node": a_node()},
    "can't have changed": {"node": a_node(boot_id="")},
    "can't have changed ": {"boot": ""},
    "still true": {"signals": ("xid 79",)},
    "page is 60s old": {"signals_unknown": "page is 60s old"},
    "7 of 8 GPUs allocatable": {"node": a_node(boot_id="boot-2", gpus=7)},
    "on the exporter's page": {"reading": page(7)},
}


@pytest.mark.parametrize("reason", sorted(BAD))
def test_verify_waits_and_begins_anew_for_anything_bad_or_unknown(reason):
    """No machine returns without evidence of everything."""
    decision = decide(**BAD[reason])

    assert isinstance(decision, Wait)
    assert reason.strip() in decision.reason
    assert decision.quiet is False


@pytest.mark.parametrize(("now_s", "kind"), [(7_199, Wait), (7_200, GiveUp)])
def test_verify_fails_from_its_time_out_on(now_s, kind):
    """The machine stays out, and people look at the board."""
    decision = decide(signals=("xid 79",), now_s=now_s)

    assert isinstance(decision, kind)
    assert getattr(decision, "state", RunState.FAILED) is RunState.FAILED


@pytest.mark.parametrize(("now_s", "kind"), [(1_199, Wait), (1_200, Done), (1_201, Done)])
def test_verify_is_done_when_it_was_quiet_for_the_whole_soak(now_s, kind):
    """Twenty minutes are twenty minutes."""
    assert isinstance(decide(quiet=text(0), now_s=now_s), kind)


def test_verify_starts_the_soak_at_the_first_good_look():
    """Since when it is quiet stands in the record, so that a restart goes on with it."""
    decision = decide()

    assert isinstance(decision, Wait)
    assert decision.quiet is True


def test_verify_that_soaks_at_the_time_out_may_finish():
    """Good signals are no failure, however late they came."""
    assert isinstance(decide(quiet=text(7_100), now_s=7_300), Wait)


def test_verify_says_the_same_while_it_soaks():
    """A reason that counts seconds would write the record each second."""
    assert decide(quiet=text(0), now_s=5).reason == decide(quiet=text(0), now_s=900).reason


def test_verify_asks_for_no_more_than_the_playbook_says():
    """Without a reboot there is no new bootID, and a buffer has no class."""
    gentle = VerifyStep(quiet_for="20m", gpus_equal_class=False)

    assert decide(a_node(gpus=3), step=gentle).quiet is True
    assert decide(quarantined(a_node(boot_id="boot-2", gpus=3)), home=BUFFER).quiet is True


def begun_by(source, key):
    evidence = (Evidence(source, key, "as it was at the start"),)
    return a_run(evidence=evidence, status=RemediationStatus(repair_boot_id="boot-1"))


@pytest.mark.parametrize("status", ["Unknown", None, "False"])
def test_verify_wants_the_condition_that_began_it_seen_good(status):
    """A detector that fell silent is no cure: the machine would be a spare with the same fault."""
    trigger = () if status is None else (ConditionView("KernelDeadlock", status),)
    conditions = (ConditionView("Ready", "True"), *trigger)
    node = replace(WELL, conditions=conditions)
    decision = decide(node, run=begun_by("condition", "KernelDeadlock"))

    assert isinstance(decision, Wait)
    assert decision.quiet is (status == "False")


@pytest.mark.parametrize(("published", "quiet"), [(None, False), (0.0, True)])
def test_verify_wants_the_metric_that_began_it_on_the_page(published, quiet):
    """A gauge that left the page says nothing about the rows."""
    field = "DCGM_FI_DEV_ROW_REMAP_PENDING"
    values = () if published is None else ((field, published),)
    reading = replace(page(8), gpus=tuple(replace(gpu, values=values) for gpu in page(8).gpus))

    assert decide(run=begun_by("exporter", field), reading=reading).quiet is quiet


def test_verify_does_not_ask_for_the_sample_of_an_xid():
    """A healthy GPU may publish none; the latch ends with the boot."""
    reading = replace(page(8), gpus=tuple(replace(gpu, xid=None) for gpu in page(8).gpus))

    assert decide(run=begun_by("exporter", "xid"), reading=reading).quiet is True
