"""A rehearsal fails where it should: with the file, the line and both sides of what differs."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from remediator.adapters.files.testfile import START, Given, GivenNodes
from remediator.app.rehearsal.clock import StoryClock
from remediator.app.rehearsal.cluster import patched
from remediator.app.rehearsal.opening import open_fleet
from remediator.app.rehearsal.rehearse import CaseResult, rehearse
from remediator.app.rehearsal.words import say_patch
from remediator.cli.playbook import playbook
from remediator.errors import ContractError, InputError
from remediator.model.instant import read_instant
from remediator.model.keys import API_VERSION
from remediator.model.views import NodeView, TaintView
from tests.unit.adapters.files.examples import a_playbook, a_pool

Json = dict[str, Any]

RETURNED = {"node": "worker-1", "state": "Returned"}
XID = {"at": "1m", "nodes": ["worker-1"], "xid": {"code": 79, "gpu": 2}}
RED_HERRING = {"at": "1m", "nodes": ["worker-1"], "xid": {"code": 13}}


def a_fleet(**changes: object) -> Json:
    pool = a_pool()["spec"]
    pool["maxMode"] = "Enforce"
    key = pool["membership"]["key"]
    buffer = {"role": "Buffer", "membership": {"key": key, "value": "buffer"}}
    hardware = pool.get("hardwareClass", {}).get("labels", [])
    labels = {"nvidia.com/gpu.present": "true", **dict.fromkeys(hardware, "same")}
    topology = {each["key"]: "one" for each in pool.get("topology", [])}
    return {
        "apiVersion": API_VERSION,
        "kind": "Fleet",
        "metadata": {"name": "small"},
        "spec": {
            "pools": [
                {"name": "train", "spec": {**pool, "buffers": ["buffer"]}},
                {"name": "buffer", "spec": buffer},
            ],
            "policy": {
                "maxMode": "Enforce",
                "exporter": {"address": "http://{address}:9400/metrics"},
                "repair": {"namespace": "repair"},
            },
            "nodes": [
                {"names": ["worker-1", "worker-2"], "pool": "train"},
                {"names": ["spare-1"], "pool": "buffer"},
                {"names": ["worker-1", "worker-2", "spare-1"], "labels": {**labels, **topology}},
            ],
            "pods": [{"node": "worker-1", "name": "web", "labels": {"app": "web"}}],
            **changes,
        },
    }


def a_case(expect: Json, *timeline: Json, **changes: object) -> Json:
    return {"name": "a story", "timeline": list(timeline or (XID,)), "expect": expect, **changes}


def written(folder: Path, *cases: Json, world: Json | None = None, **spec: object) -> Path:
    (folder / "playbook.json").write_text(json.dumps(a_playbook()))
    (folder / "fleet.json").write_text(json.dumps(world or a_fleet()))
    test = {
        "apiVersion": API_VERSION,
        "kind": "PlaybookTest",
        "metadata": {"name": "small"},
        "spec": {"playbooks": ["playbook.json"], "fleet": "fleet.json", "cases": list(cases), **spec},
    }
    path = folder / "test.json"
    path.write_text(json.dumps(test, indent=1))
    return path


def played(folder: Path, *cases: Json, **more: Any) -> tuple[CaseResult, ...]:
    return rehearse([written(folder, *cases, **more)])


def test_a_story_that_goes_as_expected_passes(tmp_path: Path):
    """The frame of all other tests here: the same story, expected wrongly, must fail."""
    (result,) = played(tmp_path, a_case({"runs": [RETURNED], "never": {"notServingAbove": 1}}))

    assert result.problems == ()
    assert result.told.books.lines[0] == (
        "node worker-1: + taint remediator.dev/quarantine=gpu-bus:NoSchedule, + cordon"
    )


WRONG: tuple[tuple[str, Json, str, str], ...] = (
    ("faults", {"faults": []}, "expect.faults[0]", "expected nothing more, came 'gpu.bus on worker-1'"),
    (
        "no fault",
        {"faults": [{"node": "worker-2", "faultClass": "gpu.bus"}]},
        "expect.faults[0]",
        "on worker-2",
    ),
    ("no plan", {"plan": {"node": "worker-2"}}, "expect.plan.node", "came no run"),
    ("plan steps", {"plan": {"node": "worker-1", "steps": ["fence"]}}, "expect.plan.steps[1]", "came 'swap'"),
    ("plan spare", {"plan": {"node": "worker-1", "spare": ""}}, "expect.plan.spare", "came spare-1"),
    (
        "plan line",
        {"plan": {"node": "worker-1", "contains": ["reboot twice"]}},
        "expect.plan.contains[0]",
        "1 quarantine: worker-1 + taint",
    ),
    ("no runs", {"runs": []}, "expect.runs", "worker-1-1 of example: Returned"),
    ("state", {"runs": [{"node": "worker-1", "state": "Failed"}]}, "expect.runs[0].state", "came Returned"),
    (
        "reason",
        {"runs": [{**RETURNED, "reason": "Luck"}]},
        "expect.runs[0].reason",
        "expected Luck, came Returned",
    ),
    ("playbook", {"runs": [{**RETURNED, "playbook": "other"}]}, "expect.runs[0].playbook", "came example"),
    ("done", {"runs": [{**RETURNED, "done": ["fence"]}]}, "expect.runs[0].done", "came fence, swap, drain"),
    ("spare", {"runs": [{**RETURNED, "spare": "worker-2"}]}, "expect.runs[0].spare", "came spare-1"),
    ("says", {"runs": [{**RETURNED, "says": "hello"}]}, "expect.runs[0].says", "'hello' in what it says"),
    ("within", {"runs": [{**RETURNED, "within": "5m"}]}, "expect.runs[0].within", "came one after 25m"),
    (
        "blocked",
        {"blocked": [{"node": "worker-1", "by": "Paused"}]},
        "expect.blocked[0]",
        "came nothing more",
    ),
    ("writes", {"writes": []}, "expect.writes[0]", "- job repair/worker-1-1-repair-1: reboot on worker-1"),
    ("pool", {"nodes": [{"names": ["worker-1"], "pool": "train"}]}, "expect.nodes[0].pool", "came buffer"),
    ("no node", {"nodes": [{"names": ["other"], "clean": True}]}, "expect.nodes[0].names", "came none"),
    (
        "quarantined",
        {"nodes": [{"names": ["worker-1"], "quarantined": True}]},
        "expect.nodes[0].quarantined",
        "expected quarantined: true on worker-1, came false",
    ),
    (
        "cordoned",
        {"nodes": [{"names": ["worker-1"], "cordoned": True}]},
        "expect.nodes[0].cordoned",
        "came false",
    ),
    (
        "probation",
        {"nodes": [{"names": ["worker-1"], "probation": False}]},
        "expect.nodes[0].probation",
        "came true",
    ),
    ("clean", {"nodes": [{"names": ["worker-1"], "clean": True}]}, "expect.nodes[0].clean", "came false"),
    ("out", {"never": {"notServingAbove": 0}}, "expect.never.notServingAbove", "never above 0, came 1"),
    ("open", {"never": {"runsAbove": 0}}, "expect.never.runsAbove", "came 1"),
    ("reboots", {"never": {"rebootsAbove": 0}}, "expect.never.rebootsAbove", "came 1"),
    (
        "touched",
        {"never": {"writesTo": ["worker-2", "spare-1"]}},
        "expect.never.writesTo[1]",
        "no write to spare-1",
    ),
    ("evicted", {"never": {"evicts": True}}, "expect.never.evicts", "came default/web"),
)


@pytest.mark.parametrize(
    ("expect", "field", "says"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG]
)
def test_every_unmet_expectation_is_a_problem_with_its_place(
    tmp_path: Path, expect: Json, field: str, says: str
):
    """An expectation that cannot fail proves nothing."""
    (result,) = played(tmp_path, a_case(expect))

    (problem,) = result.problems
    assert problem.field == f"spec.cases[0].{field}"
    assert problem.line > 1
    assert says in problem.message
    assert problem.message.startswith("case 'a story': ")


def test_what_stands_in_a_case_is_laid_over_the_fleet(tmp_path: Path):
    """A key that is not in the case must keep the fleet's value, not fall back to the default."""
    given = {"policy": {"maxMode": "Audit"}, "nodes": [{"names": ["worker-2"], "gone": True}]}

    audit, enforce = played(
        tmp_path,
        a_case({"runs": [{"node": "worker-1", "state": "WouldAct"}], "writes": []}, given=given),
        a_case({"runs": [RETURNED]}),
    )

    assert audit.problems == ()
    assert set(audit.told.nodes) == {"worker-1", "spare-1"}
    assert enforce.problems == ()


def test_a_default_that_a_case_spells_out_counts(tmp_path: Path):
    """``maxConcurrent: 4`` is the default, and still not what the fleet file says."""
    fleet = a_fleet()
    fleet["spec"]["policy"]["maxUnavailable"] = {"count": 0}
    case = a_case({"runs": [RETURNED]}, given={"policy": {"maxUnavailable": {"percent": 2, "atLeast": 1}}})

    (result,) = played(tmp_path, case, world=fleet)

    assert result.problems == ()


def test_an_application_code_changes_nothing(tmp_path: Path):
    """The other half of every positive case."""
    (result,) = played(tmp_path, a_case({"faults": [], "runs": [], "writes": []}, RED_HERRING))

    assert result.problems == ()


def test_an_open_run_that_is_given_is_carried_on(tmp_path: Path):
    """What stands in a record is all that a new leader has."""
    spec = a_playbook()["spec"]
    run = {
        "metadata": {"name": "worker-1-7", "creationTimestamp": START},
        "spec": {
            "machine": "worker-1",
            "node": {"name": "worker-1", "uid": "uid-worker-1"},
            "bootId": "worker-1-boot-1",
            "pool": "train",
            "trigger": "Fault",
            "mode": "Enforce",
            "faultClass": "gpu.bus",
            "severity": "Hard",
            "playbook": {"name": "example", "text": json.dumps(spec)},
        },
        "status": {
            "state": "Granted",
            "steps": [{"id": "fence", "action": "quarantine", "state": "Intent", "startedAt": START}],
        },
    }
    case = a_case({"runs": [RETURNED]}, RED_HERRING, given={"runs": [run]})

    (result,) = played(tmp_path, case)

    assert result.problems == ()
    assert result.told.runs[0].metadata.name == "worker-1-7"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"playbooks": ["nowhere.yaml"]}, "there is no file"),
        ({"fleet": "playbook.json"}, "holds 0 objects of kind Fleet"),
        ({"playbooks": ["fleet.json"]}, "no playbook in these files"),
        ({"only": ["exampel"]}, "no playbook 'exampel' in these files: example"),
    ],
    ids=["no file", "no fleet", "no playbook", "only"],
)
def test_a_test_that_names_what_is_not_there_is_refused(tmp_path: Path, change: Json, says: str):
    """A test of nothing passes; it must not run at all."""
    with pytest.raises(InputError, match=r"test\.json:\d+:\d+") as error:
        played(tmp_path, a_case({"runs": []}), **change)

    assert says in str(error.value)


@pytest.mark.parametrize(
    ("case", "says"),
    [
        (a_case({}, {**XID, "nodes": ["worker-9"]}), "the fleet has no node 'worker-9'"),
        (a_case({}, {"at": "1m", "xid": {"code": 79}}), "happens to no node"),
        (a_case({}, {"at": "1m", "nodes": ["worker-1"]}), "found none"),
        (a_case({}, given={"nodes": [{"names": ["new"], "pool": "other"}]}), "pool 'other' is not given"),
    ],
    ids=["unknown node", "no node", "nothing happens", "unknown pool"],
)
def test_a_story_about_nothing_is_refused(tmp_path: Path, case: Json, says: str):
    """It would pass for the wrong reason: nothing happens because nothing was said."""
    with pytest.raises(InputError) as error:
        played(tmp_path, case)

    assert says in str(error.value)


def test_the_command_prints_place_and_both_sides_and_exits_with_13(tmp_path: Path):
    """Scripts read the code, people read the line."""
    path = written(tmp_path, a_case({"runs": [RETURNED]}), a_case({"writes": []}))

    result = CliRunner().invoke(playbook, ["test", str(path)])

    assert result.exit_code == 13
    assert "ok   small: a story" in result.stdout
    assert "FAIL small: a story" in result.stdout
    assert f"{path}:" in result.stdout
    assert "2 cases: 1 failed" in result.stderr


def test_the_command_gives_json_and_exits_with_0(tmp_path: Path):
    """For tools that collect results."""
    path = written(tmp_path, a_case({"runs": [RETURNED]}))

    result = CliRunner().invoke(playbook, ["test", str(path), "-o", "json"])

    assert result.exit_code == 0
    (row,) = json.loads(result.stdout)
    assert row["passed"] is True
    assert row["writes"][-1].startswith("node worker-1: - taint remediator.dev/quarantine")


def test_the_command_refuses_files_without_a_test(tmp_path: Path):
    """ "All as expected" about nothing would read as success."""
    written(tmp_path, a_case({}))

    result = CliRunner().invoke(playbook, ["test", str(tmp_path / "fleet.json")])

    assert result.exit_code == 13
    assert "no PlaybookTest in it" in result.stdout


def test_a_patch_of_a_field_that_is_not_ours_is_a_broken_rule():
    """The API server's own policy would refuse it; a rehearsal must not let it pass."""
    node = NodeView(name="a", uid="u", resource_version="1")

    with pytest.raises(ContractError, match="finalizers"):
        patched(node, {"metadata": {"finalizers": []}})
    with pytest.raises(ContractError, match="providerID"):
        patched(node, {"spec": {"providerID": "x"}})


def test_words_of_a_patch_name_every_change_in_order():
    """They are compared as text, so they must not depend on the order of a mapping."""
    before = NodeView(
        name="a",
        uid="u",
        resource_version="1",
        labels={"b": "1", "c": "1"},
        annotations={"x": "1", "remediator.dev/run": "r/s"},
        unschedulable=True,
        taints=(TaintView("t", "NoSchedule"),),
    )
    after = patched(
        before,
        {
            "metadata": {
                "labels": {"c": "2", "b": None, "a": "1"},
                "annotations": {"x": None, "remediator.dev/run": None},
            },
            "spec": {"taints": [{"key": "q", "value": "v", "effect": "NoExecute"}], "unschedulable": None},
        },
    )

    assert say_patch(before, after) == (
        "node a: - taint t:NoSchedule, + taint q=v:NoExecute, - cordon, + label a=1, - label b=1, "
        "label c: 1 -> 2, - annotation x=1"
    )


def test_a_node_given_twice_keeps_what_the_second_does_not_name():
    """Groups are laid over each other: the pool in one, the rack in the next."""
    first = GivenNodes(names=("a",), labels={"rack": "1"}, gpus=4, cordoned=True)
    second = GivenNodes(names=("a",), labels={"zone": "east"}, gpus=8)

    node = open_fleet([Given(nodes=(first, second))], []).nodes["a"]

    assert (node.labels, node.gpus, node.unschedulable) == ({"rack": "1", "zone": "east"}, 8, True)


@pytest.mark.asyncio
async def test_a_pass_that_sleeps_is_a_broken_rule():
    """Virtual time cannot go on while a pass waits, so the story would hang."""
    start = read_instant(START)
    assert start is not None

    with pytest.raises(ContractError, match=r"slept for 2\.0 s"):
        await StoryClock(start).sleep(2.0)
