"""What each check of the doctor says of what was read."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from remediator.adapters.files.crds import structural_schema
from remediator.adapters.files.kinds import KIND_BY_NAME, KINDS
from remediator.adapters.kube.discovery import Installed
from remediator.adapters.kube.neighbours import Admission, Beat, Toleration, Workload
from remediator.app.doctor import installation, neighbours, signals
from remediator.app.doctor.finding import Finding, Level, Unseen, worst_first
from remediator.app.leadership import Leadership
from remediator.model.keys import TAINT_QUARANTINE
from remediator.model.meta import LabelSelector, ObjectMeta
from remediator.model.playbook import GpuMetricMatch, Match, Matcher, Playbook
from remediator.model.policy import ExporterSpec
from remediator.model.signal import Coverage, GpuReading, PageReading
from tests.unit.core.builders import T0, a_policy, a_pool, a_spec, at

GOOD = Installed(server_version="v1.36.4", missing=(), watch_list=True)
GUARD = Admission(("true",), "Ignore", bound=True, actions=("Deny",), param="cluster")
DENIED = Unseen("GET /x: 403: the account lacks list daemonsets apps")
EXISTS = Toleration(key=TAINT_QUARANTINE, operator="Exists")


def levels(findings: Iterable[Finding]) -> list[Level]:
    return [each.level for each in findings]


@pytest.mark.parametrize(
    ("version", "level"),
    [
        ("v1.36.4", Level.OK),
        ("v1.31.0", Level.OK),
        ("v1.30.9-gke.1", Level.FAILURE),
        ("v2.0.0", Level.OK),
        ("", Level.UNKNOWN),
    ],
)
def test_server_must_be_new_enough(version: str, level: Level) -> None:
    """Kinds with selectable fields are refused, or lose them, on an older server."""
    assert levels(installation.server(replace(GOOD, server_version=version))) == [level]


def test_kinds_of_another_version_are_named_by_their_fields() -> None:
    """A field that the server does not know is dropped from every write, silently."""
    schemas: dict[str, Any] = {kind.name: structural_schema(kind) for kind in KINDS}
    assert levels(installation.kinds(GOOD, schemas, KINDS)) == [Level.OK]

    del schemas["Remediation"]["properties"]["status"]["properties"]["repairBootId"]
    found = list(installation.kinds(GOOD, schemas, KINDS))
    assert levels(found) == [Level.FAILURE]
    assert "Remediation is of another version: it lacks .status.repairBootId," in found[0].says


def test_kinds_that_are_missing_are_named_once_each() -> None:
    """Subresources are no kinds."""
    (found,) = installation.kinds(replace(GOOD, missing=("playbooks", "playbooks/status")), {}, KINDS)
    assert found.says == "the API server does not serve playbooks"
    assert found.fix == "kubectl apply -f deploy/crds"


def test_kinds_that_may_not_be_read_are_no_failure() -> None:
    """Most people may not read CustomResourceDefinitions; that says nothing about them."""
    found = list(installation.kinds(GOOD, {"Playbook": DENIED}, [KIND_BY_NAME["Playbook"]]))
    assert levels(found) == [Level.UNKNOWN]
    assert "remediator-doctor" in found[0].fix


@pytest.mark.parametrize(
    ("guard", "level", "word"),
    [
        (GUARD, Level.OK, "denies"),
        (None, Level.FAILURE, "is missing"),
        (replace(GUARD, bound=False), Level.FAILURE, "judges nothing"),
        (replace(GUARD, expressions=()), Level.FAILURE, "judges nothing"),
        (replace(GUARD, actions=("Audit", "Warn")), Level.FAILURE, "only does Audit, Warn"),
        (replace(GUARD, param="other"), Level.FAILURE, "RemediationPolicy/other"),
        (replace(GUARD, warnings=("undefined\n field 'term'",)), Level.FAILURE, "undefined field 'term'"),
        (DENIED, Level.UNKNOWN, "could not look"),
    ],
)
def test_guard_must_deny(guard: Admission | Unseen | None, level: Level, word: str) -> None:
    """Each of these lets a replaced leader write as if it still led."""
    found = list(installation.guards({"remediator-fencing": guard}))
    assert levels(found) == [level]
    assert word in found[0].says


def test_leader_that_went_away_is_told_with_its_age() -> None:
    """Nobody leads: nothing else on this page matters then."""
    gone = Leadership(holder="a", acquired=at(-600), renewed=at(-60), lease_s=15)
    assert levels(installation.leader(replace(gone, renewed=at(-3)), T0)) == [Level.OK]
    (found,) = installation.leader(gone, T0)
    assert found.level is Level.FAILURE
    assert "a renewed the Lease 1m ago, and it holds 15 s" in found.says
    assert levels(installation.leader(Leadership(problem="denied", known=False), T0)) == [Level.UNKNOWN]


# -- signals


def a_page(node: str, *fields: str) -> PageReading:
    gpu = GpuReading(uuid="GPU-1", index="0", xid=0, values=tuple((name, 0.0) for name in fields))
    return PageReading(node=node, at=T0, at_monotonic=0.0, gpus=(gpu,))


def some_pages(fresh: int, *, expected: int = 10) -> signals.Pages:
    return signals.Pages(
        asked=10,
        all_=expected,
        coverage=Coverage("exporter", {"train": fresh}, {"train": 10}),
        readings=tuple(a_page(f"n{number}") for number in range(fresh)),
        problems=(),
    )


@pytest.mark.parametrize(
    ("fresh", "level"),
    [(10, Level.OK), (8, Level.OK), (7, Level.FAILURE), (0, Level.UNKNOWN)],
)
def test_pages_must_cover_the_pool(fresh: int, level: Level) -> None:
    """Below the policy's coverage nothing is acted on; none at all says only that we are outside."""
    policy = a_policy(coverage=80, exporter=ExporterSpec(address="http://{node}"))
    assert levels(signals.pages(policy, some_pages(fresh))) == [level]


def test_sample_is_told_as_one() -> None:
    """Who reads "256 pages" must know that 2,500 nodes have one."""
    policy = a_policy(exporter=ExporterSpec(address="http://{node}"))
    (found,) = signals.pages(policy, some_pages(10, expected=2_500))
    assert found.says == "10 pages with a GPU, of 10 of 2500 nodes"


def test_policy_without_exporter_sees_no_xid() -> None:
    """That is allowed, and nobody should learn it from an incident."""
    assert levels(signals.pages(a_policy(), some_pages(0))) == [Level.WARNING]


def a_reader(name: str, field: str, **fields: Any) -> Playbook:
    match = Match(any_of=(Matcher(id="m", gpu_metric=GpuMetricMatch(field=field, op=">", value=0.0)),))
    return Playbook(metadata=ObjectMeta(name=name), spec=a_spec(match=match, **fields))


def test_field_that_no_page_has_comes_with_the_line_to_add() -> None:
    """dcgm-exporter leaves some fields out by default; the playbook is blind until somebody adds the line."""
    pending = a_reader("gpu-row-remap", "DCGM_FI_DEV_ROW_REMAP_PENDING")
    pages = [a_page("a", "DCGM_FI_DEV_GPU_TEMP")]
    (found,) = signals.fields({"gpu-row-remap": pending}, pages)
    assert found.level is Level.WARNING
    assert "gpu-row-remap/m reads" in found.says
    assert found.fix == "add to the exporter's CSV: DCGM_FI_DEV_ROW_REMAP_PENDING, gauge, row remap pending"

    better = [a_page("a", "DCGM_FI_DEV_ROW_REMAP_PENDING")]
    assert levels(signals.fields({"p": pending}, better)) == [Level.OK]
    disabled = a_reader("p", "DCGM_FI_DEV_ROW_REMAP_PENDING", mode="Disabled")
    assert levels(signals.fields({"p": disabled}, pages)) == []
    assert levels(signals.fields({"p": pending}, [])) == []


def test_field_in_its_new_name_is_the_same_field() -> None:
    """Pages are read into the old names, whatever name a playbook uses."""
    renamed = a_reader("p", "DCGM_FI_DEV_ROW_REMAP_FAILED")
    pages = [a_page("a", "DCGM_FI_DEV_ROW_REMAP_FAILURE")]
    assert levels(signals.fields({"p": renamed}, pages)) == [Level.OK]


def a_beat(node: str, skew_s: float) -> Beat:
    return Beat(node, said=T0 + timedelta(seconds=skew_s), noted=T0.replace(microsecond=0))


def test_clock_that_is_off_is_named_with_its_sign() -> None:
    """Slow or fast, the worst first."""
    beats = (a_beat("good", 0.9), a_beat("slow", -90.0), a_beat("fast", 3_600.0))
    (found,) = signals.clocks(beats)
    assert found.level is Level.WARNING
    assert "2 of 3 nodes' clocks differ from the API server's: fast +3600 s, slow -90 s" in found.says
    assert levels(signals.clocks((a_beat("good", 0.9),))) == [Level.OK]
    assert levels(signals.clocks(())) == [Level.UNKNOWN]


# -- neighbours


def a_daemon(name: str, *tolerations: Toleration, **labels: str) -> Workload:
    return Workload("DaemonSet", "gpu", name, tolerations=tolerations, labels=labels)


@pytest.mark.parametrize(
    ("toleration", "stands"),
    [
        (Toleration(operator="Exists"), True),
        (EXISTS, True),
        (replace(EXISTS, effect="NoSchedule"), True),
        (replace(EXISTS, effect="NoExecute"), False),
        (Toleration(key=TAINT_QUARANTINE, value="xid-79"), False),
        (Toleration(key="nvidia.com/gpu", operator="Exists"), False),
    ],
)
def test_toleration_must_hold_for_every_playbook(toleration: Toleration, stands: bool) -> None:
    """Each playbook gives the taint its own value, so one value is not enough."""
    assert neighbours.tolerates([toleration]) is stands


def test_exporter_must_stand_the_taint() -> None:
    """Without its page the node can never be verified; any other DaemonSet is the site's own business."""
    exporter = ExporterSpec(namespace="gpu", pod_selector=LabelSelector(match_labels={"app": "dcgm"}))
    sets = (a_daemon("dcgm", app="dcgm"), a_daemon("logs"), a_daemon("agent", EXISTS))
    found = list(neighbours.daemon_sets(sets, exporter))
    assert levels(found) == [Level.FAILURE, Level.NOTE]
    assert "gpu/dcgm is the exporter" in found[0].says
    assert "gpu/logs" in found[1].says

    assert levels(neighbours.daemon_sets((a_daemon("dcgm", EXISTS, app="dcgm"),), exporter)) == [Level.OK]


def test_autoscaler_must_know_the_taint() -> None:
    """Else it builds its picture of a new node from a quarantined one."""
    ca = Workload("Deployment", "kube-system", "ca", images=("registry/cluster-autoscaler:v1.36",))
    assert levels(neighbours.autoscalers((ca,))) == [Level.WARNING]
    told = replace(ca, words=("./cluster-autoscaler", f"--status-taint={TAINT_QUARANTINE}"))
    assert levels(neighbours.autoscalers((told,))) == [Level.OK]
    assert levels(neighbours.autoscalers(())) == []


def test_node_pool_must_not_make_nodes_that_look_quarantined() -> None:
    """We would take a new node for one that we have taken out."""
    found = list(neighbours.node_pools({"gpu": frozenset({TAINT_QUARANTINE})}, [a_pool()]))
    assert levels(found) == [Level.FAILURE]
    assert levels(neighbours.node_pools(Unseen("404", missing=True), [a_pool()])) == []
    assert levels(neighbours.node_pools(Unseen("403"), [a_pool()])) == [Level.UNKNOWN]


def test_rivals_are_found_by_what_they_run() -> None:
    """Two that drain for the same fault take twice the budget."""
    karpenter = Workload("Deployment", "k", "karpenter", images=("karpenter/controller",))
    gated = replace(karpenter, words=("--feature-gates=NodeRepair=true",))
    draino = Workload("Deployment", "k", "draino", images=("planetlabs/draino:450a853",))
    none = Unseen("404", missing=True)
    assert levels(neighbours.rivals((karpenter,), none)) == [Level.OK]
    assert levels(neighbours.rivals((gated, draino), none)) == [Level.WARNING] * 2
    assert levels(neighbours.rivals((), ("nhc-gpu",))) == [Level.WARNING]
    assert levels(neighbours.rivals(DENIED, none)) == [Level.UNKNOWN]


def test_worst_comes_first() -> None:
    """A screen is read from its top."""
    every = tuple(Finding("x", level, "") for level in reversed(Level))
    assert levels(worst_first(every)) == list(Level)
