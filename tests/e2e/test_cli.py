"""The commands of people against a real control plane: what they say, what they write, how they end."""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from remediator.core.gates import GATES
from remediator.fleet.node_objects import Object
from remediator.testbed import kubeconfig
from remediator.testbed.binaries import Binaries
from remediator.testbed.launcher import ControlPlane
from remediator.testbed.stage import GROUP, LEDGERS, NODES, POLICY, Stage
from remediator.testbed.waiting import wait_until
from tests.e2e.access import as_user

pytestmark = pytest.mark.timeout(240)  # each command is a process of its own, on a machine that is shared

BLOCKED, STALE, UNREACHABLE, TIMED_OUT, CHANGES = 11, 14, 20, 124, 10
HOLD = "remediator.dev/hold"
WIDTH = 120

HAND_TO_PEOPLE: Object = {
    "apiVersion": "remediator.dev/v1alpha1",
    "kind": "Playbook",
    "metadata": {"name": "hand-to-people"},
    "spec": {
        "summary": "Empty the node and give it to people.",
        "mode": "Audit",
        "faultClass": "manual.look",
        "severity": "Hard",
        "nodes": {"selector": {"matchLabels": {"nvidia.com/gpu.present": "true"}}},
        "match": {"anyOf": [{"id": "never", "nodeCondition": {"type": "NobodySetsThis", "status": "True"}}]},
        "steps": [
            {"id": "fence", "quarantine": {"value": "look"}},
            {"id": "drain", "drain": {"deadline": "30m"}},
            {"id": "people", "repair": {"handoff": {"queue": "hardware"}}},
        ],
    },
}


@pytest.fixture(scope="module")
def world(shared_stage: Stage) -> Stage:
    """The shared stage, with a playbook in Audit whose fault nobody has: only people start it."""
    shared_stage.api.create(f"{GROUP}/playbooks", HAND_TO_PEOPLE)
    return shared_stage


@pytest.fixture(scope="module")
def bare_cluster(
    control_plane_binaries: Binaries, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ControlPlane]:
    """A cluster that has never heard of us."""
    with ControlPlane(tmp_path_factory.mktemp("bare") / "cluster", control_plane_binaries) as started:
        yield started


def good(done: subprocess.CompletedProcess[str], code: int = 0) -> str:
    """Its output, after the checks that hold for every command."""
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stdout


def bad(done: subprocess.CompletedProcess[str], code: int) -> str:
    """Its complaint: on stderr, and nowhere else."""
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr


# -- what they say


def test_status_fits_the_screen_and_names_the_leader(world: Stage) -> None:
    """The first thing that anybody types."""
    out = good(world.cli("status"))

    assert all(len(line) <= WIDTH for line in out.splitlines())
    assert "66 managed nodes, 512 GPUs" in out
    assert "leader " in out
    assert "term 1" in out
    for row in ("train   Enforce", "infer   Enforce", "buffer"):
        assert row in out
    assert "\x1b[" not in out


def test_why_of_a_well_node_says_that_nothing_is_wrong(world: Stage, victim: str) -> None:
    """No news is said as no news, with exit code 0."""
    out = good(world.cli("why", victim))

    assert "Nothing is wrong that a playbook looks for." in out
    assert "unknown" not in out, "the pages of this fleet can be read from here"


def test_why_shows_every_gate_and_exits_with_11_when_one_stops(world: Stage, victim: str) -> None:
    """The mode of this playbook is Audit, the pool's and the policy's are not."""
    out = good(world.cli("why", victim, "--playbook", "hand-to-people"), BLOCKED)

    gates = [line.split()[1] for line in out.splitlines() if line[:2].strip().isdigit()]
    assert gates == [name for name, _ in GATES]
    assert out.count("STOP <") == 1
    assert "playbook says Audit" in out


def test_plan_needs_no_right_to_write_and_its_json_is_whole(
    world: Stage, victim: str, tmp_path: Path
) -> None:
    """A dry run that could write would be none; so who may only read gets the whole plan."""
    kinds = ("playbooks", "remediations", "resourcepools", "remediationpolicies", "managednodes")
    resources = ",".join(
        ("nodes", "pods", "poddisruptionbudgets.policy", *(f"{kind}.remediator.dev" for kind in kinds))
    )
    world.cluster.kubectl("create", "clusterrole", "cli-reader", "--verb=get,list", f"--resource={resources}")
    reader = as_user(world, "rita", tmp_path / "kubeconfig", role="cli-reader")
    words = ("plan", victim, "--playbook", "gpu-off-bus", "-o", "json", "--detailed-exitcode")
    found = json.loads(good(world.cli(*words, kubeconfig=reader), CHANGES))

    assert found["format_version"] == "1.0"
    assert [step["action"] for step in found["steps"]][:2] == ["quarantine", "swap"]
    assert found["spare"]
    assert {gate["gate"]: gate["verdict"] for gate in found["gates"]}["coverage"] == "ok"


def test_plan_text_fits_the_screen(world: Stage, victim: str) -> None:
    out = good(world.cli("plan", victim, "--playbook", "gpu-off-bus"))

    assert all(len(line) <= WIDTH for line in out.splitlines())
    assert "RUN IT" in out
    assert "SPARE" in out


def test_plan_without_fault_and_playbook_has_nothing_to_do(world: Stage, victim: str) -> None:
    """With --detailed-exitcode 0 means: nothing to do."""
    assert "nothing to plan" in good(world.cli("plan", victim, "--detailed-exitcode"))


# -- what they write


def test_hold_and_unhold_write_the_node_s_annotation(world: Stage, victim: str) -> None:
    """The hold says who, and the server says who we are."""
    assert f"node/{victim} held until" in good(
        world.cli("hold", victim, "--for", "4h", "--reason", "vendor; on site")
    )
    text = world.node(victim)["metadata"]["annotations"][HOLD]
    assert text.endswith(";by=admin;reason=vendor, on site")
    assert "gate hold stops it" in good(world.cli("why", victim, "--playbook", "gpu-off-bus"), BLOCKED)

    assert f"node/{victim} unheld" in good(world.cli("unhold", victim))
    assert HOLD not in world.node(victim)["metadata"]["annotations"]
    assert "unchanged" in good(world.cli("unhold", victim))


@pytest.mark.parametrize(
    ("words", "path", "shown"),
    [
        ((), POLICY, "remediationpolicy/cluster"),
        (("--pool", "infer"), f"{GROUP}/resourcepools/infer", "resourcepool/infer"),
        (("--playbook", "gpu-gsp"), f"{GROUP}/playbooks/gpu-gsp", "playbook/gpu-gsp"),
    ],
    ids=["policy", "pool", "playbook"],
)
def test_pause_and_resume_write_the_spec(world: Stage, words: tuple[str, ...], path: str, shown: str) -> None:
    """A kill switch has to work at the first try."""
    try:
        out = good(world.cli("pause", *words, "--reason", "big run", "--for", "3d"))
        pause = world.api.get(path)["spec"]["pause"]
    finally:
        resumed = good(world.cli("resume", *words))

    assert out.startswith(f"{shown} paused until")
    assert (pause["by"], pause["reason"]) == ("admin", "big run")
    assert resumed == f"{shown} resumed\n"
    assert "pause" not in world.api.get(path)["spec"]


def test_remediate_by_plan_runs_that_very_plan_and_waits_for_its_end(world: Stage, victim: str) -> None:
    """Plan, gate and run agree on the hash, and a person passes the mode gate."""
    plan = json.loads(good(world.cli("plan", victim, "--playbook", "hand-to-people", "-o", "json")))
    out = good(
        world.cli(
            "remediate", victim, "--playbook", "hand-to-people", "--plan", plan["hash"], "--wait",
            "--timeout", "50s",
        )
    )  # fmt: skip
    run = world.wait_run(victim, "HandedOff", timeout_s=20)

    assert "HandedOff" in out
    assert run["spec"]["planHash"] == plan["hash"]
    assert (run["spec"]["trigger"], run["spec"]["by"]) == ("Manual", "admin")
    assert "HandedOff" in good(world.cli("show", victim))
    assert (
        json.loads(good(world.cli("show", victim, "-o", "json")))["metadata"]["name"]
        == run["metadata"]["name"]
    )
    assert good(world.cli("show", run["metadata"]["name"], "-o", "md")).startswith(
        f"# {run['metadata']['name']}"
    )
    wait_until(
        lambda: "people have to look" in good(world.cli("status")), timeout_s=45, what="news in status"
    )
    assert "Kept out since" in good(world.cli("why", victim))


def test_remediate_with_a_stale_plan_exits_with_14_and_asks_for_nothing(world: Stage, victim: str) -> None:
    """What was approved is run, or nothing is."""
    error = bad(world.cli("remediate", victim, "--playbook", "hand-to-people", "--plan", "12345678"), STALE)

    assert "is stale" in error
    assert not any(
        each["status"].get("node") == victim for each in world.api.list(LEDGERS) if "status" in each
    )
    assert world.runs(victim) == []


def create_playbook(world: Stage, name: str, verify: Object) -> None:
    """One that gives the node back after this proof."""
    made = copy.deepcopy(HAND_TO_PEOPLE)
    made["metadata"]["name"] = name
    made["spec"]["faultClass"] = f"manual.{name}"
    made["spec"]["steps"][2:] = [{"id": "prove", "verify": verify}, {"id": "back", "return": {}}]
    world.api.create(f"{GROUP}/playbooks", made)


@pytest.fixture
def paused(world: Stage) -> Iterator[Callable[[], None]]:
    """Nothing new begins until the test, or its end, resumes it."""
    good(world.cli("pause", "--reason", "a test"))

    def resume() -> None:
        good(world.cli("resume"))

    yield resume
    if "pause" in world.api.get(POLICY)["spec"]:
        resume()


def test_remediate_that_waits_too_long_exits_with_124_and_the_request_stands(
    world: Stage, victim: str, paused: Callable[[], None]
) -> None:
    """Who waited must know that it is not over."""
    asked = ("remediate", victim, "--playbook", "hand-to-people", "--wait", "--timeout", "2s")
    done = world.cli(*asked)

    assert "requested on" in good(done, TIMED_OUT)
    assert "waits at gate pause" in done.stderr
    assert "the request stands" in done.stderr
    paused()
    world.wait_run(victim, "HandedOff", timeout_s=40)
    good(world.cli("adopt", victim, "--until", "1h", "--reason", "frees its place in the budget"))


def test_plan_that_becomes_stale_before_its_grant_exits_with_14(
    world: Stage, victim: str, paused: Callable[[], None]
) -> None:
    """Between the request and the grant somebody edits the playbook: another plan is not the one approved."""
    plan = json.loads(good(world.cli("plan", victim, "--playbook", "hand-to-people", "-o", "json")))
    asked = ("remediate", victim, "--playbook", "hand-to-people", "--plan", plan["hash"], "--wait")
    with ThreadPoolExecutor(1) as beside:
        waiting = beside.submit(world.cli, *asked, "--timeout", "60s")
        ledger = f"{LEDGERS}/{plan['machine']}"
        wait_until(lambda: world.api.find(ledger), timeout_s=30, what="the request")
        steps = copy.deepcopy(HAND_TO_PEOPLE["spec"]["steps"])
        steps[1]["drain"]["deadline"] = "31m"
        world.patch_playbook("hand-to-people", {"steps": steps})
        paused()
        done = waiting.result()

    assert done.returncode == STALE, (done.stdout, done.stderr)
    assert "the plan became stale before it was granted; nothing was done" in done.stderr
    assert world.runs(victim) == []


def test_run_that_fails_under_wait_exits_with_1(world: Stage, victim: str) -> None:
    """A script that goes on after a failed repair would put work on a broken machine."""
    create_playbook(world, "never-well", {"quietFor": "1s", "timeout": "2s", "bootChanged": True})
    out = good(world.cli("remediate", victim, "--playbook", "never-well", "--wait", "--timeout", "60s"), 1)

    assert " Failed\n" in out
    assert world.runs(victim)[0]["status"]["reason"] == "VerifyFailed"
    good(world.cli("adopt", victim, "--until", "1h", "--reason", "frees its place in the budget"))


def test_cancel_ends_a_run_that_waits_and_restores_the_node(world: Stage, victim: str) -> None:
    """A bare pod is nothing that a drain may take, so the run waits; then a person says no."""
    world.api.create(
        "/api/v1/namespaces/default/pods",
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"bare-{victim}", "namespace": "default"},
            "spec": {
                "nodeName": victim,
                "tolerations": [{"operator": "Exists"}],
                "containers": [{"name": "main", "image": "registry.example.com/bare:v1"}],
            },
        },
    )
    assert "no controller: Held" in good(world.cli("plan", victim, "--playbook", "hand-to-people"))
    good(world.cli("remediate", victim, "--playbook", "hand-to-people"))
    world.wait_run(victim, "Blocked", timeout_s=30)

    assert f"bare-{victim}" in good(world.cli("why", victim), BLOCKED)
    assert victim in good(world.cli("status")).split("POOL")[0], "a blocked run needs a person"
    assert "is open on" in bad(world.cli("remediate", victim, "--playbook", "hand-to-people"), BLOCKED)
    assert "cancel requested" in good(world.cli("cancel", victim, "--reason", "false alarm"))
    world.wait_run(victim, "Cancelled", timeout_s=30)
    spec = world.node(victim)["spec"]
    assert not spec.get("unschedulable")
    assert all("remediator.dev" not in taint["key"] for taint in spec["taints"])
    assert "no open run" in bad(world.cli("cancel", victim, "--reason", "again"), 1)


def test_adopt_cordoned_frees_the_budget_and_writes_no_node(world: Stage, victim: str) -> None:
    """The first day's baseline has a way out."""
    world.cluster.kubectl("cordon", victim)
    try:
        wait_until(lambda: world.node(victim)["spec"].get("unschedulable"), timeout_s=20, what="the cordon")
        before = world.node(victim)["metadata"].get("annotations", {})
        out = good(world.cli("adopt", "--cordoned", "--until", "7d", "--reason", "RMA"))

        assert f"adopted (node {victim})" in out
        assert "known out   1 machine, adopted by admin" in good(world.cli("status"))
        assert world.node(victim)["metadata"].get("annotations", {}) == before
        assert "gate hold stops it (KnownOut)" in good(
            world.cli("why", victim, "--playbook", "gpu-off-bus"), BLOCKED
        )
    finally:
        world.cluster.kubectl("uncordon", victim)


# -- bad input


def test_unknown_names_are_told_with_what_is_near(world: Stage, victim: str) -> None:
    """One wrong digit at three in the morning."""
    assert f"did you mean {victim}" in bad(world.cli("why", victim.replace("-0", "-")), 1)
    assert "did you mean gpu-off-bus" in bad(world.cli("plan", victim, "--playbook", "gpu-of-bus"), 1)
    assert "did you mean train" in bad(world.cli("pause", "--pool", "trian", "--reason", "x"), 1)
    assert "did you mean" in bad(
        world.cli("hold", victim.replace("-0", "-"), "--for", "1h", "--reason", "x"), 1
    )
    assert "no run" in bad(world.cli("show", "nothing-of-this-name-1"), 1)
    assert "does not select" in bad(world.cli("plan", "system-01", "--playbook", "gpu-off-bus"), 1)


def test_wrong_authority_is_named(world: Stage, bare_cluster: ControlPlane, tmp_path: Path) -> None:
    """Two clusters, and the certificate of the other one."""
    mine, other = kubeconfig.read(world.cluster.kubeconfig), kubeconfig.read(bare_cluster.kubeconfig)
    path = tmp_path / "kubeconfig"
    kubeconfig.write(
        path, "admin", kubeconfig.Access(server=mine.server, authority=other.authority, pair=mine.pair)
    )

    assert "certificate" in bad(world.cli("status", kubeconfig=path), UNREACHABLE)


def test_server_away_is_named(world: Stage, tmp_path: Path) -> None:
    mine = kubeconfig.read(world.cluster.kubeconfig)
    path = tmp_path / "kubeconfig"
    kubeconfig.write(
        path,
        "admin",
        kubeconfig.Access(server="https://127.0.0.1:1", authority=mine.authority, pair=mine.pair),
    )

    assert "127.0.0.1:1" in bad(world.cli("status", kubeconfig=path), UNREACHABLE)


def test_unreadable_kubeconfig_is_wrong_usage(world: Stage, tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text("clusters:\n  - {name: [\n")

    assert str(path) in bad(world.cli("status", kubeconfig=path), 2)
    assert "no such file" in bad(world.cli("status", kubeconfig=tmp_path / "nowhere"), 2)


def test_cluster_without_our_kinds_names_the_command_that_installs_them(
    world: Stage, bare_cluster: ControlPlane
) -> None:
    error = bad(world.cli("status", kubeconfig=bare_cluster.kubeconfig), UNREACHABLE)

    assert "kubectl apply -f deploy/crds" in error


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (("status",), "get remediationpolicies remediator.dev"),
        (("why", "gpu-a-01"), "get remediationpolicies remediator.dev"),
        (("hold", "gpu-a-01", "--for", "1h", "--reason", "x"), "get nodes core"),
        (("pause", "--reason", "x"), "get remediationpolicies remediator.dev"),
        (("cancel", "gpu-a-01-1", "--reason", "x"), "list remediations remediator.dev"),
    ],
    ids=["status", "why", "hold", "pause", "cancel"],
)
def test_missing_right_is_named(world: Stage, tmp_path: Path, words: tuple[str, ...], rule: str) -> None:
    """Who may not must learn what to ask for."""
    nobody = as_user(world, "mallory", tmp_path / "kubeconfig")
    error = bad(world.cli(*words, kubeconfig=nobody), UNREACHABLE)

    assert "missing RBAC rule: " in error
    assert rule in error


def test_shipped_operator_role_is_enough_for_every_verb_of_people(
    world: Stage, tmp_path: Path, victim: str
) -> None:
    """The role is made for exactly these commands; by is the person's own name."""
    alice = as_user(world, "alice", tmp_path / "kubeconfig", role="remediator-operator")

    status = good(world.cli("status", kubeconfig=alice))
    assert "nobody leads" not in status, "a Lease that may not be read is no vacancy"
    good(world.cli("hold", victim, "--for", "1h", "--reason", "x", kubeconfig=alice))
    assert ";by=alice;" in world.node(victim)["metadata"]["annotations"][HOLD]
    good(world.cli("unhold", victim, kubeconfig=alice))
    good(world.cli("pause", "--pool", "infer", "--reason", "x", kubeconfig=alice))
    good(world.cli("resume", "--pool", "infer", kubeconfig=alice))
    good(world.cli("plan", victim, "--playbook", "gpu-off-bus", kubeconfig=alice))
    good(world.cli("adopt", victim, "--until", "1h", "--reason", "x", kubeconfig=alice))
    good(world.cli("pause", "--reason", "x", kubeconfig=alice))
    assert world.api.get(POLICY)["spec"]["pause"]["by"] == "alice"
    good(world.cli("resume", kubeconfig=alice))


def test_shipped_operator_role_may_ask_for_a_run_and_end_it(
    world: Stage, tmp_path: Path, victim: str
) -> None:
    """And read what came of it; the record names the person both times."""
    bob = as_user(world, "bob", tmp_path / "kubeconfig", role="remediator-operator")
    create_playbook(world, "slow-look", {"quietFor": "10m", "timeout": "1h"})
    good(world.cli("remediate", victim, "--playbook", "slow-look", kubeconfig=bob))
    world.wait_run(victim, "Verifying", timeout_s=40)
    assert "is under way" in good(world.cli("why", victim, kubeconfig=bob))
    good(world.cli("cancel", victim, "--reason", "enough", kubeconfig=bob))
    spec = world.wait_run(victim, "Cancelled", timeout_s=30)["spec"]

    assert (spec["by"], spec["cancel"]["by"]) == ("bob", "bob")
    assert "Cancelled" in good(world.cli("show", victim, kubeconfig=bob))


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (("hold", "gpu-a-01", "--for", "1h", "--reason", "x"), "get nodes core"),
        (("pause", "--reason", "x"), "patch remediationpolicies remediator.dev"),
        (("adopt", "gpu-a-01", "--until", "1h", "--reason", "x"), "nodes core"),
    ],
    ids=["hold", "pause", "adopt"],
)
def test_shipped_viewer_role_shows_records_and_changes_nothing(
    world: Stage, tmp_path: Path, words: tuple[str, ...], rule: str
) -> None:
    """Who may look learns which right it would take to act."""
    user = f"viewer-{words[0]}"
    viewer = as_user(world, user, tmp_path / "kubeconfig", role="remediator-viewer")
    run = world.runs()[0]["metadata"]["name"]

    assert run in good(world.cli("show", run, kubeconfig=viewer))
    assert rule in bad(world.cli(*words, kubeconfig=viewer), UNREACHABLE)


# -- the way out


def test_cleanup_lists_refuses_under_a_leader_and_then_leaves_nothing(world: Stage, victim: str) -> None:
    """Whoever leaves us must not find our marks a year later."""
    good(world.cli("remediate", victim, "--playbook", "hand-to-people", "--wait", "--timeout", "50s"))
    listed = good(world.cli("cleanup", "--dry-run"))
    assert f"node/{victim}: taint remediator.dev/quarantine, our cordon" in listed
    assert "still leads" in world.cli("cleanup", "--yes").stderr
    assert world.node(victim)["spec"]["unschedulable"]

    world.stop_controller()
    out = good(world.cli("cleanup", "--yes"))

    assert f"node/{victim} cleaned" in out
    assert "stays: " in out
    for node in world.api.list(NODES):
        carried = {**node["metadata"].get("annotations", {}), **node["metadata"].get("labels", {})}
        assert not [key for key in carried if key.startswith("remediator.dev/")], node["metadata"]["name"]
        taints = node["spec"].get("taints", [])
        assert not [taint for taint in taints if taint["key"].startswith("remediator.dev/")]
    assert not world.node(victim)["spec"].get("unschedulable")
    assert not world.api.get(POLICY)["status"].get("grants")
    assert "nothing to take away" in good(world.cli("cleanup", "--yes"))
    assert "no leader" in good(world.cli("status"))
