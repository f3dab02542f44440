"""Matchers: selectors, three-valued answers, and the line that explains each."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

import pytest

from remediator.core.match import Finding, Scene, bind, compile_playbooks, matches, selects
from remediator.model.ledger import Latch
from remediator.model.meta import LabelRequirement, LabelSelector
from remediator.model.playbook import (
    GpuMetricMatch,
    Match,
    Matcher,
    NodeConditionMatch,
    NodeSelection,
    PlaybookInForce,
    PlaybookSpec,
    ReportStep,
    Step,
    XidMatch,
)
from remediator.model.signal import GpuReading, PageReading, Truth
from remediator.model.views import ConditionView, NodeView

T0 = datetime(2026, 11, 22, tzinfo=UTC)
Op = Literal["==", "!=", ">", ">=", "<", "<="]
PENDING = "DCGM_FI_DEV_ROW_REMAP_PENDING"


def a_playbook(name="gpu-lost", *matchers, priority=500, mode="Enforce", severity="Hard"):
    spec = PlaybookSpec(
        summary="x",
        mode=mode,
        fault_class="gpu.lost",
        severity=severity,
        priority=priority,
        nodes=NodeSelection(match_all=True),
        match=Match(any_of=matchers or (Matcher(id="xid", xid=XidMatch(codes=(79,))),)),
        steps=(Step(id="tell", report=ReportStep()),),
    )
    return PlaybookInForce(name=name, generation=1, spec=spec, text="{}")


def a_node(*conditions):
    return NodeView(name="gpu-a-03", uid="u", resource_version="1", boot_id="boot", conditions=conditions)


def a_page(*gpus):
    return PageReading(node="gpu-a-03", at=T0, at_monotonic=0.0, gpus=gpus)


def a_gpu(index=0, *, xid=0, values=()):
    return GpuReading(uuid=f"GPU-{index}", index=str(index), xid=xid, values=values)


def judge(matcher, scene) -> Finding:
    (playbook,) = compile_playbooks([a_playbook("p", matcher)])
    return playbook.matchers[0].judge(scene)


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        (LabelSelector(), True),
        (LabelSelector(match_labels={"gpu": "h100"}), True),
        (LabelSelector(match_labels={"gpu": "a100"}), False),
        (LabelSelector(match_labels={"gpu": "h100", "zone": "b"}), False),
        (
            LabelSelector(
                match_expressions=(LabelRequirement(key="gpu", operator="In", values=("h100", "x")),)
            ),
            True,
        ),
        (LabelSelector(match_expressions=(LabelRequirement(key="no", operator="In", values=("x",)),)), False),
        (
            LabelSelector(match_expressions=(LabelRequirement(key="gpu", operator="NotIn", values=("x",)),)),
            True,
        ),
        (
            LabelSelector(
                match_expressions=(LabelRequirement(key="gpu", operator="NotIn", values=("h100",)),)
            ),
            False,
        ),
        (
            LabelSelector(match_expressions=(LabelRequirement(key="no", operator="NotIn", values=("x",)),)),
            True,
        ),
        (LabelSelector(match_expressions=(LabelRequirement(key="gpu", operator="Exists"),)), True),
        (LabelSelector(match_expressions=(LabelRequirement(key="no", operator="Exists"),)), False),
        (LabelSelector(match_expressions=(LabelRequirement(key="no", operator="DoesNotExist"),)), True),
        (LabelSelector(match_expressions=(LabelRequirement(key="gpu", operator="DoesNotExist"),)), False),
    ],
)
def test_matches_selects_as_kubernetes_does(selector, expected):
    """Operators know these rules by heart; NotIn holds for an absent label."""
    assert matches(selector, {"gpu": "h100", "zone": "a"}) is expected


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        (NodeSelection(), False),
        (NodeSelection(selector=LabelSelector()), False),
        (NodeSelection(match_all=True), True),
        (NodeSelection(selector=LabelSelector(), match_all=True), True),
        (NodeSelection(selector=LabelSelector(match_labels={"gpu": "h100"})), True),
        (NodeSelection(selector=LabelSelector(match_labels={"gpu": "a100"}), match_all=True), False),
    ],
)
def test_selects_wants_all_nodes_spelled_out(nodes, expected):
    """A forgotten selector must not touch the whole cluster."""
    assert selects(nodes, {"gpu": "h100"}) is expected


@pytest.mark.parametrize(
    ("condition", "truth", "line"),
    [
        (
            ConditionView("KernelDeadlock", "True", "DockerHung", "task  hung\nfor 120 s"),
            Truth.TRUE,
            "KernelDeadlock=True: DockerHung: task hung for 120 s",
        ),
        (ConditionView("KernelDeadlock", "False", "Fine"), Truth.FALSE, "KernelDeadlock=False: Fine"),
        (ConditionView("KernelDeadlock", "Unknown"), Truth.UNKNOWN, "KernelDeadlock=Unknown"),
        (ConditionView("Other", "True"), Truth.UNKNOWN, "no condition KernelDeadlock"),
    ],
)
def test_condition_matcher_is_three_valued(condition, truth, line):
    """An absent condition is no good sign: its detector may be dead."""
    matcher = Matcher(id="m", node_condition=NodeConditionMatch(type="KernelDeadlock", status="True"))

    found = judge(matcher, Scene(node=a_node(condition)))

    assert (found.truth, found.line) == (truth, line)
    assert bool(found.evidence) is (truth is Truth.TRUE)


def test_condition_matcher_may_ask_for_unknown():
    """Ready=Unknown is what a dead kubelet looks like; there it is the signal itself."""
    matcher = Matcher(id="m", node_condition=NodeConditionMatch(type="Ready", status="Unknown"))

    truths = [
        judge(matcher, Scene(node=a_node(ConditionView("Ready", status)))).truth
        for status in ("Unknown", "False", "True")
    ]

    assert truths == [Truth.TRUE, Truth.FALSE, Truth.FALSE]


def test_condition_matcher_takes_another_reason_as_unknown():
    """The status is still bad: that is no cure, and not our fault either."""
    match = NodeConditionMatch(type="KernelDeadlock", status="True", reasons=("DockerHung",))
    matcher = Matcher(id="m", node_condition=match)

    found = judge(matcher, Scene(node=a_node(ConditionView("KernelDeadlock", "True", "Other"))))

    assert found.truth is Truth.UNKNOWN


@pytest.mark.parametrize(
    ("op", "value", "truth"),
    [
        ("==", 5, True),
        ("!=", 5, False),
        (">", 5, False),
        (">", 4, True),
        (">=", 5, True),
        ("<", 5, False),
        ("<=", 5, True),
    ],
)
def test_metric_matcher_compares(op: Op, value, truth):
    """Each operator at its edge."""
    matcher = Matcher(id="m", gpu_metric=GpuMetricMatch(field=PENDING, op=op, value=value))

    found = judge(matcher, Scene(node=a_node(), reading=a_page(a_gpu(values=((PENDING, 5.0),)))))

    assert found.truth is (Truth.TRUE if truth else Truth.FALSE)


@pytest.mark.parametrize(
    ("scene", "truth", "unpublished"),
    [
        (Scene(node=a_node(), no_reading="page is 60 s old"), Truth.UNKNOWN, False),
        (Scene(node=a_node(), reading=a_page()), Truth.UNKNOWN, False),
        (Scene(node=a_node(), reading=a_page(a_gpu())), Truth.UNKNOWN, True),
        (
            Scene(node=a_node(), reading=a_page(a_gpu(0, values=((PENDING, 0.0),)), a_gpu(1))),
            Truth.UNKNOWN,
            False,
        ),
        (
            Scene(node=a_node(), reading=a_page(a_gpu(0), a_gpu(1, values=((PENDING, 1.0),)))),
            Truth.TRUE,
            False,
        ),
        (Scene(node=a_node(), reading=a_page(a_gpu(values=((PENDING, 0.0),)))), Truth.FALSE, False),
        (
            Scene(node=a_node(), reading=a_page(a_gpu(values=((PENDING, 0.0),))), missing=("GPU-7",)),
            Truth.UNKNOWN,
            False,
        ),
        (
            Scene(node=a_node(), reading=a_page(a_gpu(values=((PENDING, 1.0),))), missing=("GPU-7",)),
            Truth.TRUE,
            False,
        ),
    ],
    ids=[
        "no page",
        "no GPU",
        "nobody reports it",
        "one GPU silent",
        "worst wins",
        "good",
        "one GPU gone",
        "gone and bad",
    ],
)
def test_metric_matcher_needs_every_gpu_to_be_good(scene, truth, unpublished):
    """One bad GPU is a fault, one silent GPU is not health; a field that is not exported is no wait."""
    found = judge(Matcher(id="m", gpu_metric=GpuMetricMatch(field=PENDING, op=">", value=0)), scene)

    assert (found.truth, found.unpublished) == (truth, unpublished)


def test_metric_matcher_sees_both_ends_of_mig_instances():
    """A margin that one instance has lost is lost, whichever way the comparison goes."""
    reading = a_page(a_gpu(values=((PENDING, 9.0), (PENDING, 1.0))))

    matches_ = (
        GpuMetricMatch(field=PENDING, op=">", value=8),
        GpuMetricMatch(field=PENDING, op="<", value=2),
    )
    for match in matches_:
        matcher = Matcher(id="m", gpu_metric=match)
        assert judge(matcher, Scene(node=a_node(), reading=reading)).truth is Truth.TRUE


def test_xid_matcher_explains_itself():
    """The on-call reads this line first."""
    latch = Latch(
        gpu="GPU-5", code=79, boot_id="boot", node_uid="u", state="Fault", at="2026-11-22T00:00:00Z"
    )
    scene = Scene(node=a_node(), reading=a_page(a_gpu(5, xid=79)), latches=(latch,))

    found = judge(Matcher(id="m", xid=XidMatch(codes=(79,))), scene)

    assert (found.truth, found.line, found.since) == (Truth.TRUE, "xid 79 on GPU 5 (GPU-5)", T0)
    assert (found.evidence[0].gpu, found.evidence[0].code) == ("GPU-5", 79)


@pytest.mark.parametrize(
    ("scene", "truth", "unpublished"),
    [
        (Scene(node=a_node()), Truth.UNKNOWN, False),
        (Scene(node=a_node(), reading=a_page()), Truth.UNKNOWN, False),
        (Scene(node=a_node(), reading=a_page(a_gpu(xid=None))), Truth.UNKNOWN, True),
        (Scene(node=a_node(), reading=a_page(a_gpu(xid=45))), Truth.FALSE, False),
        (Scene(node=a_node(), reading=a_page(a_gpu(xid=79))), Truth.FALSE, False),
        (Scene(node=a_node(), reading=a_page(a_gpu()), missing=("GPU-7",)), Truth.UNKNOWN, False),
    ],
    ids=["no page", "no GPU", "no sample", "other code", "known code", "one GPU gone"],
)
def test_xid_matcher_without_a_latch_is_no_fault(scene, truth, unpublished):
    """The level of the gauge is never the signal; blindness is still not health."""
    found = judge(Matcher(id="m", xid=XidMatch(codes=(79,))), scene)

    assert (found.truth, found.unpublished) == (truth, unpublished)


def test_playbooks_stand_by_priority_and_disabled_ones_not_at_all():
    """The highest playbook that matches owns the fault."""
    given = [
        a_playbook("b"),
        a_playbook("a"),
        a_playbook("top", priority=900),
        a_playbook("off", mode="Disabled"),
    ]

    assert [playbook.name for playbook in compile_playbooks(given)] == ["top", "a", "b"]


def test_bind_indexes_what_each_playbook_reads():
    """A node's change must ask only those whom it concerns, and a page read only what is asked."""
    condition = Matcher(id="c", node_condition=NodeConditionMatch(type="KernelDeadlock", status="True"))
    metric = Matcher(id="m", gpu_metric=GpuMetricMatch(field="DCGM_FI_DEV_ROW_REMAP_FAILED", op=">", value=0))

    compiled = compile_playbooks(
        [a_playbook("p", condition, metric, Matcher(id="x", xid=XidMatch(codes=(79, 95))))]
    )
    book = bind(compiled)

    assert [matcher.id for _, matcher in book.by_condition["KernelDeadlock"]] == ["c"]
    assert [matcher.id for _, matcher in book.by_page] == ["m", "x"]
    assert book.codes == frozenset({79, 95})
    assert book.fields == frozenset({"DCGM_FI_DEV_ROW_REMAP_FAILURE"})
    assert compiled[0].uses_exporter


def test_compile_names_the_matcher_that_matches_nothing():
    """The API server refuses it; a file may still hold it."""
    with pytest.raises(ValueError, match="playbook 'p', matcher 'm': none of"):
        compile_playbooks([a_playbook("p", Matcher(id="m"))])
