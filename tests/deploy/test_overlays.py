"""Every overlay builds, and the test bed's changes nothing of a playbook but its mode and its times."""

from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from remediator.adapters.files.loader import load_text
from remediator.fleet.layout import (
    BUFFER,
    INFER,
    TRAIN,
    standard_fleet,
)
from remediator.fleet.node_objects import LABEL_ASSET, LABEL_POOL, LABEL_RACK, LABEL_ZONE, node_object
from remediator.model.duration import Duration, seconds
from remediator.model.playbook import Playbook
from remediator.model.policy import RemediationPolicy
from remediator.model.pool import ResourcePool
from remediator.testbed.binaries import Binaries
from tests.deploy.manifests import OVERLAYS, ROOT, Json, build, leaves, load, one, parse, pod_specs

pytestmark = pytest.mark.real_server  # kubectl, not a server

# Where a time stands in a playbook, by the last word of its path.
TIMES = frozenset({"for", "per", "deadline", "protectDeadline", "timeout", "quietFor", "probation"})


@pytest.fixture(scope="module")
def built(control_plane_binaries: Binaries) -> dict[str, list[Json]]:
    return {overlay: parse(build(control_plane_binaries, overlay)) for overlay in OVERLAYS}


def test_overlays_build_on_each_other(built: dict[str, list[Json]]):
    """Each step adds; none takes back what the one before it set up."""
    names = [
        {(each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"]) for each in objects}
        for objects in built.values()
    ]

    assert all(smaller < larger for smaller, larger in pairwise(names))


def test_namespaced_objects_name_their_namespace(built: dict[str, list[Json]]):
    """Without it they land in whatever namespace the reader's context points to."""
    kinds = {
        "Deployment",
        "ServiceAccount",
        "Role",
        "RoleBinding",
        "PodDisruptionBudget",
        "PodTemplate",
        "ResourceQuota",
        "NetworkPolicy",
    }
    for each in built["overlays/testbed"]:
        assert ("namespace" in each["metadata"]) == (each["kind"] in kinds), each["metadata"]["name"]


def test_one_name_for_the_image_reaches_every_pod(built: dict[str, list[Json]]):
    """Whoever names a registry names it once; a repair pod with another image would not start."""
    images = {
        container["image"]
        for _, spec in pod_specs(built["overlays/repair-job"])
        for container in spec["containers"]
    }

    assert images == {"remediator:dev"}


def test_only_the_test_bed_raises_a_mode(built: dict[str, list[Json]]):
    """Rights and modes are two decisions: the overlay that gives rights must not take the other."""
    for overlay in ("base", "overlays/enforce", "overlays/repair-job"):
        policy = one(built[overlay], "RemediationPolicy", "cluster")
        assert policy["spec"]["maxMode"] == "Audit"


def test_repair_overlay_tells_the_policy_where_jobs_go(built: dict[str, list[Json]]):
    """Without it every reboot is blocked; in the base it would point to a namespace that is not there."""
    assert "repair" not in one(built["base"], "RemediationPolicy", "cluster")["spec"]
    policy = one(built["overlays/repair-job"], "RemediationPolicy", "cluster")
    assert policy["spec"]["repair"] == {"namespace": "remediator-repair"}


def test_test_bed_changes_only_modes_and_times_of_playbooks(built: dict[str, list[Json]]):
    """What the stories prove must be true of what is shipped."""
    shipped = [each for file in sorted((ROOT / "playbooks").glob("*.yaml")) for each in load(file)]
    ours = [each for each in built["overlays/testbed"] if each["kind"] == "Playbook"]
    assert len(ours) == len([each for each in shipped if each["kind"] == "Playbook"]) == 10

    for made in ours:
        before, after = dict(leaves(one(shipped, "Playbook", made["metadata"]["name"]))), dict(leaves(made))
        assert before.keys() == after.keys()
        changed = {path for path in before if before[path] != after[path]}
        for path in changed - {("spec", "mode")}:
            assert path[-1] in TIMES, path
            assert seconds(str(after[path])) < seconds(str(before[path])), path
        assert after["spec", "mode"] == "Enforce"


def test_test_bed_objects_are_the_programs_own(built: dict[str, list[Json]], tmp_path: Path):
    """The strict loader reads what kustomize made, so a patch cannot slip in a key that nobody knows."""
    ours = [each for each in built["overlays/testbed"] if each["apiVersion"].startswith("remediator.dev/")]
    text = "---\n".join(msgspec.json.encode(each).decode() + "\n" for each in ours)

    kinds = {type(each.value) for each in load_text(text, "testbed")}

    assert kinds == {Playbook, ResourcePool, RemediationPolicy}


def test_test_bed_pools_fit_the_fleet(built: dict[str, list[Json]]):
    """Labels, taints, GPUs and topology keys are those of the fake nodes, or nobody is a member."""
    nodes = [node_object(spec, at="2026-01-01T00:00:00Z") for spec in standard_fleet()]
    policy = one(built["overlays/testbed"], "RemediationPolicy", "cluster")["spec"]
    assert len(nodes) == 66

    for name, size in ((TRAIN, 48), (INFER, 8), (BUFFER, 8)):
        pool = one(built["overlays/testbed"], "ResourcePool", name)["spec"]
        member = pool["membership"]
        members = [each for each in nodes if each["metadata"]["labels"].get(member["key"]) == member["value"]]
        assert (member, len(members)) == ({"key": LABEL_POOL, "value": name}, size)
        for node in members:
            labels = node["metadata"]["labels"]
            assert node["spec"]["taints"] == pool["projection"]["taints"]
            assert int(node["status"]["allocatable"]["nvidia.com/gpu"]) == pool["hardwareClass"]["gpus"]
            assert {*pool["hardwareClass"]["labels"], pool["hardwareClass"]["driver"]} <= set(labels)
            assert policy["identity"]["labels"] == [LABEL_ASSET]
            assert LABEL_ASSET in labels
        if pool["role"] == "Workload":
            assert [level["key"] for level in pool["topology"]] == [LABEL_ZONE, LABEL_RACK]


def test_times_are_all_the_times_of_a_playbook():
    """A new time in the model has to be named here, or the comparison above would call it a change."""
    fields = {
        field.encode_name
        for struct in _structs(Playbook)
        for field in msgspec.structs.fields(struct)
        if field.type == Duration or Duration in getattr(field.type, "__args__", ())
    }

    assert fields - {"memory", "eventsWindow"} == TIMES


def _structs(top: type[msgspec.Struct]) -> set[type[msgspec.Struct]]:
    found: set[type[msgspec.Struct]] = set()
    waiting: list[object] = [top]
    while waiting:
        each = waiting.pop()
        if isinstance(each, type) and issubclass(each, msgspec.Struct) and each not in found:
            found.add(each)
            waiting += [field.type for field in msgspec.structs.fields(each)]
        waiting += getattr(each, "__args__", ())
    return found
