"""Each lint rule fires where it should, points at the right field, and is silent on good files."""

# ruff: noqa: E501  # a row of a table is one line

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from remediator.adapters.files.catalogue import by_code, load_catalogue
from remediator.adapters.files.gpufields import KNOWN_FIELDS
from remediator.adapters.files.lint import RULES, Lint, lint
from remediator.adapters.files.loader import LoadedObject, load_objects, load_text
from remediator.core.conditions import KNOWN
from remediator.core.validity import faults_of
from remediator.model.playbook import Playbook
from remediator.model.pool import PoolStatus, ResourcePool
from tests.unit.adapters.files.examples import BAD, OBJECTS, Bad, Json, a_buffer, a_playbook, a_policy, a_pool

ROOT = Path(__file__).resolve().parents[4]
XIDS = by_code(load_catalogue())
MATCH = ("spec", "match", "anyOf")
STEPS = ("spec", "steps")


def findings(*objects: Json) -> tuple[Lint, ...]:
    # JSON Lines are a YAML stream too, once divided.
    loaded = load_text("\n---\n".join(json.dumps(each) for each in objects), "a.yaml")
    return lint(loaded, xids=XIDS, polarity=KNOWN, metric_fields=KNOWN_FIELDS)


def rules(*objects: Json) -> set[str]:
    return {each.rule for each in findings(*objects)}


def changed(made: Json, *changes: tuple[tuple[str | int, ...], object]) -> Json:
    for path, value in changes:
        at: Any = made
        for part in path[:-1]:
            at = at[part]
        at[path[-1]] = value
    return made


def xid(*codes: int) -> Json:
    return changed(a_playbook(), ((*MATCH, 0, "xid", "codes"), list(codes)))


def steps(*made: Json) -> Json:
    return changed(a_playbook(), (STEPS, list(made)))


FENCE: Json = {"id": "fence", "quarantine": {"value": "x"}}
SWAP: Json = {"id": "swap", "swap": {}}
DRAIN: Json = {"id": "drain", "drain": {}}
DETACH: Json = {"id": "detach", "detach": {}}
REBOOT: Json = {"id": "repair", "repair": {"job": {"template": "reboot"}}}
WIPE: Json = {"id": "repair", "repair": {"job": {"template": "wipe"}}}
HANDOFF: Json = {"id": "give", "repair": {"handoff": {"queue": "people"}}}
VERIFY: Json = {"id": "verify", "verify": {}}
BACK: Json = {"id": "back", "return": {}}
REPORT: Json = {"id": "tell", "report": {}}

ALONE: list[tuple[str, Json]] = [
    ("xid-unknown", xid(998)),
    ("xid-application", xid(79, 43)),
    ("xid-never-alone", xid(63)),
    ("xid-never-alone", xid(79, 94)),
    ("xid-hint", xid(74)),
    ("xid-unspecified", xid(1)),
    ("xid-for", changed(a_playbook(), ((*MATCH, 0, "for"), "5m"))),
    ("condition-unknown", changed(a_playbook(), ((*MATCH, 1, "nodeCondition", "type"), "KernelDeadlok"))),
    ("condition-is-good", changed(a_playbook(), ((*MATCH, 1, "nodeCondition", "status"), "False"))),
    ("metric-unknown", changed(a_playbook(), ((*MATCH, 0), {"id": "m", "gpuMetric": {"field": "DCGM_FI_DEV_ROW_REMAP_PENDIN", "op": "==", "value": 1}}))),
    ("metric-is-xid", changed(a_playbook(), ((*MATCH, 0), {"id": "m", "gpuMetric": {"field": "DCGM_FI_DEV_XID_ERRORS", "op": "==", "value": 79}}))),
    ("before-quarantine", steps(DRAIN, FENCE, HANDOFF)),
    ("before-drain", steps(FENCE, DETACH, DRAIN, HANDOFF)),
    ("before-drain", steps(FENCE, WIPE, DRAIN, VERIFY, BACK)),
    ("return-without-verify", steps(FENCE, DRAIN, BACK)),
    ("repair-without-verify", steps(FENCE, DRAIN, VERIFY, WIPE, BACK)),
    ("never-reached", steps(FENCE, DRAIN, HANDOFF, VERIFY)),
    ("never-reached", steps(FENCE, VERIFY, BACK, DRAIN)),
    ("report-alone", steps(FENCE, DRAIN, HANDOFF, REPORT)),
    ("no-way-out", steps(FENCE, DRAIN)),
    ("spare-late", changed(a_playbook(), (("spec", "severity"), "Soft"))),
    ("fence-late", steps(SWAP, FENCE, DRAIN, DETACH, HANDOFF)),
    ("swap-without-detach", steps(FENCE, SWAP, DRAIN, HANDOFF)),
    ("spare-unused", changed(steps(FENCE, DRAIN, HANDOFF), (("spec", "noSpare"), "WithoutSpare"))),
    ("boot-cannot-change", steps(FENCE, {"id": "verify", "verify": {"bootChanged": True}}, BACK)),
    ("boot-unchecked", steps(FENCE, DRAIN, REBOOT, VERIFY, BACK)),
    ("zero-duration", changed(a_playbook(), (("spec", "memory"), "0s"))),
    ("duration-order", changed(a_playbook(), ((*STEPS, 5, "verify"), {"quietFor": "2h", "timeout": "2h"}))),
    ("duration-order", changed(a_playbook(), ((*STEPS, 2, "drain"), {"deadline": "25h"}))),
    ("duration-order", changed(a_playbook(), ((*MATCH, 1, "for"), "14d"))),
    ("early-silence", changed(a_playbook(), ((*MATCH, 1), {"id": "silent", "nodeCondition": {"type": "Ready", "status": "Unknown"}, "for": "29s"}))),
    ("percent-rounds-to-zero", changed(a_playbook(), (("spec", "limits", "maxUnavailable"), {"percent": 4}))),
    ("limit-zero", changed(a_playbook(), (("spec", "limits", "maxUnavailable"), {"count": 0}))),
    ("runbook-missing", changed(a_playbook(), (("metadata", "annotations"), {}))),
    ("too-large", changed(a_playbook(), (MATCH, [{"id": f"m{n}", "nodeCondition": {"type": "Ready", "status": "False", "reasons": ["x" * 256] * 8}} for n in range(20)]))),
    ("pool-unknown", a_pool()),
    ("join-limits", changed(a_policy(), (("spec", "joins"), {"deadline": "0s"}))),
    ("join-limits", changed(a_policy(), (("spec", "joins"), {"rate": {"count": 5_000, "per": "1m"}}))),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "made"), ALONE, ids=[f"{n}-{rule}" for n, (rule, _) in enumerate(ALONE)])
def test_lint_finds(rule, made):
    """A rule that never fires protects nobody."""
    assert rule in rules(made)


@pytest.mark.parametrize("bad", [bad for bad in BAD if bad.rule != "form"], ids=lambda bad: bad.name)
def test_lint_refuses_what_the_server_refuses(bad: Bad):
    """Lint runs before the merge, the server after it: what passes the first must pass the second."""
    errors = {each.rule for each in findings(bad.spoiled()) if each.severity == "error"}

    assert bad.rule in errors


@pytest.mark.parametrize(
    "made", [made for _, made in ALONE if made["kind"] == "Playbook"] + [bad.spoiled() for bad in BAD if bad.rule != "form"],
)  # fmt: skip
def test_lint_refuses_what_the_controller_refuses(made):
    """A playbook that the controller would not follow must not pass review."""
    (loaded,) = load_text(json.dumps(made), "a.yaml")
    refused = isinstance(loaded.value, Playbook) and faults_of(loaded.value.spec)
    errors = [each for each in findings(made) if each.severity == "error"]

    assert errors or not refused


def test_lint_is_silent_on_good_objects():
    """A false alarm teaches people to skip the output."""
    objects = [make() for make in OBJECTS]

    assert findings(*objects) == ()


def test_shipped_playbooks_have_nothing_to_say():
    """What we ship is the example that people copy."""
    loaded = load_objects([ROOT / "playbooks"])

    assert lint(loaded, xids=XIDS, polarity=KNOWN, metric_fields=KNOWN_FIELDS) == ()


def test_finding_says_place_rule_and_fix():
    """One line must be enough to mend the file."""
    text = "\n".join(
        [
            "apiVersion: remediator.dev/v1alpha1",
            "kind: RemediationPolicy",
            "metadata: {name: mine}",
            "spec:",
            "  rate: {count: 6, per: 0s}",
        ]
    )
    found = lint(load_text(text, "a.yaml"), xids=XIDS, polarity=KNOWN, metric_fields=())

    assert [str(each) for each in found] == [
        "a.yaml:3:12: metadata.name: policy 'mine' would be refused (name it cluster) [error: policy-name]",
        "a.yaml:5:20: spec.rate.per: per is 0s (write a duration above zero) [error: zero-duration]",
    ]


@pytest.mark.parametrize(
    ("codes", "fix"),
    [((63,), "ROW_REMAP_PENDING"), ((94,), "ROW_REMAP_PENDING"), ((154,), "RECOVERY_ACTION")],
)
def test_lint_says_what_to_watch_instead(codes, fix):
    """Other tools reboot on these codes, so a bare refusal would be overruled."""
    (found,) = (each for each in findings(xid(*codes)) if each.rule == "xid-never-alone")

    assert fix in found.problem.fix


@pytest.mark.parametrize("code", [43, 63, 74])
def test_lint_lets_any_known_code_be_reported(code):
    """Telling people about an application's fault harms nobody."""
    made = changed(xid(code), (STEPS, [REPORT]))

    assert not {rule for rule in rules(made) if rule.startswith("xid-")}


def test_lint_takes_the_policys_conditions_as_known():
    """A site's own conditions are declared in the policy, not in our table."""
    made = changed(a_playbook(), ((*MATCH, 1, "nodeCondition", "type"), "OurOwnProblem"))

    assert "condition-unknown" in rules(made)
    assert "condition-unknown" not in rules(made, a_policy())


def another(**spec: object) -> Json:
    made = a_playbook()
    made["metadata"]["name"] = "other"
    made["spec"].update(spec)
    return made


@pytest.mark.parametrize(
    ("other", "rule"),
    [
        (another(), "class-owned-twice"),
        (another(priority=600), "shadowed"),
        (another(priority=600, match={"anyOf": [{"id": "a", "xid": {"codes": [48]}}]}), "class-shared"),
        (another(faultClass="gpu.else"), "signal-shared"),
        (another(mode="Disabled", priority=600), None),
        (another(nodes={"selector": {"matchLabels": {"nvidia.com/gpu.present": "false"}}}), None),
        (another(nodes={"selector": {"matchExpressions": [{"key": "nvidia.com/gpu.present", "operator": "DoesNotExist"}]}}), None),
        (another(nodes={"matchAll": True}, priority=600), "shadowed"),
        (another(nodes={"selector": {"matchLabels": {"rack": "a"}}}, priority=600), "class-shared"),
    ],
)  # fmt: skip
def test_lint_compares_owners(other, rule):
    """Two owners of one fault would fight over the node, or one would never get a turn."""
    found = rules(a_playbook(), other) & {"class-owned-twice", "class-shared", "shadowed", "signal-shared"}

    assert found == ({rule} if rule else set())


@pytest.mark.parametrize(
    ("nodes", "found"),
    [(None, True), (0, True), (19, True), (20, False)],
    ids=["unknown", "new", "19", "20"],
)
def test_percent_is_judged_by_the_pools_real_size(nodes, found, tmp_path: Path):
    """5 % of 19 nodes is nobody, 5 % of 20 is one; where nobody knows, a floor has to be written."""
    pool = changed(a_pool(), (("spec", "maxUnavailable"), {"percent": 5}), (("spec", "buffers"), []))
    loaded = load_text(json.dumps(pool), "a.yaml")[0]
    if nodes is not None:
        assert isinstance(loaded.value, ResourcePool)
        value = msgspec.structs.replace(loaded.value, status=PoolStatus(nodes=nodes))
        loaded = LoadedObject(loaded.path, loaded.kind, value, loaded.tree)

    made = lint([loaded], xids=XIDS, polarity=KNOWN, metric_fields=())

    assert ("percent-rounds-to-zero" in {each.rule for each in made}) is found


def test_lint_compares_pools():
    """A node in two pools would be counted, and lent, twice."""
    twin = changed(a_buffer(), (("spec", "membership", "value"), "train"), (("metadata", "name"), "twin"))
    borrower = changed(a_pool(), (("spec", "buffers"), ["twin"]))

    assert rules(borrower, twin) == {"pool-twice"}
    assert rules(borrower, changed(twin, (("spec", "role"), "Workload"))) == {"pool-twice", "pool-role"}


def test_every_rule_is_tested():
    """A rule without a test is a rule that may never have fired."""
    seen = {rule for rule, _ in ALONE} | {bad.rule for bad in BAD}
    seen |= {"class-owned-twice", "class-shared", "shadowed", "signal-shared", "pool-twice", "pool-role"}

    assert set(RULES) - seen == set()
