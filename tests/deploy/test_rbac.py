"""What the manifests allow: exactly the table, nothing by accident, and no harm in Audit."""

from collections.abc import Iterator

import pytest

from remediator.adapters.files import rbac
from remediator.adapters.kube.bodies import EVENT_NAMESPACE
from remediator.app.settings import Settings
from remediator.core.actions import ACTIONS, Rule
from tests.deploy.manifests import DEPLOY, RBAC_FILES, ROOT, Json, load, one

ROLES = ("ClusterRole", "Role")
READS = {"get", "list", "watch"}


def documents() -> list[Json]:
    return [each for file in RBAC_FILES for each in load(DEPLOY / file)]


def granted(role: Json) -> Iterator[tuple[str, str, str]]:
    for rule in role["rules"]:
        assert set(rule) == {"apiGroups", "resources", "verbs"}
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                yield from ((group, resource, verb) for verb in rule["verbs"])


def bound_to_the_controller() -> dict[str, list[Json]]:
    """Its roles by the folder that binds them."""
    found: dict[str, list[Json]] = {}
    for file in RBAC_FILES:
        objects = load(DEPLOY / file)
        for binding in (each for each in objects if each["kind"].endswith("Binding")):
            role = one(objects, binding["roleRef"]["kind"], binding["roleRef"]["name"])
            assert role["metadata"].get("namespace") == binding["metadata"].get("namespace")
            found.setdefault(file.rpartition("/")[0], []).append(role)
    return found


@pytest.mark.parametrize("path", rbac.generated_files(), ids=str)
def test_generated_rbac_is_fresh(path: str):
    """A table that says one thing and a manifest that grants another would be the worst of both."""
    assert (ROOT / path).read_text("utf-8") == rbac.generated_files()[path]


def test_every_rbac_object_of_deploy_is_generated():
    """A role written by hand beside the table would be checked by nothing."""
    folders = ("base", "examples", "overlays/enforce", "overlays/repair-job", "overlays/testbed")
    made = {ROOT / path for path in rbac.generated_files()}
    by_hand = [
        path
        for folder in folders
        for path in (DEPLOY / folder).glob("*.yaml")
        if path not in made and "rbac.authorization.k8s.io/v1" in path.read_text("utf-8")
    ]

    assert by_hand == []


def test_no_role_holds_a_wildcard():
    """A star grants what does not exist yet."""
    for role in (each for each in documents() if each["kind"] in ROLES):
        for grant in granted(role):
            assert not any("*" in part for part in grant), (role["metadata"]["name"], grant)


@pytest.mark.parametrize(
    ("resource", "verbs"),
    [
        ("secrets", None),
        ("configmaps", None),
        ("serviceaccounts/token", None),
        ("pods/exec", None),
        ("pods/attach", None),
        ("pods/ephemeralcontainers", None),
        ("nodes/proxy", None),
        ("nodes/status", None),
        ("pods", {"create", "update", "patch", "delete", "deletecollection"}),
        ("nodes", {"create", "update", "delete", "deletecollection"}),
        ("remediationpolicies", {"create", "update", "delete"}),
        ("playbooks", {"create", "update", "patch", "delete"}),
        ("users", None),
        ("clusterroles", None),
        ("roles", None),
        ("clusterrolebindings", None),
    ],
)
def test_no_role_grants_what_nobody_here_needs(resource: str, verbs: set[str] | None):
    """Evicting is asking; deleting, exec and secrets would make this account worth stealing."""
    for role in (each for each in documents() if each["kind"] in ROLES):
        found = {verb for _, name, verb in granted(role) if name == resource}
        assert not (found if verbs is None else found & verbs), role["metadata"]["name"]


def test_audit_writes_neither_nodes_nor_pods():
    """In Audit the API server itself must stop us, not our own good will."""
    for role in bound_to_the_controller()["base"]:
        for group, resource, verb in granted(role):
            if group in ("", "policy", "batch", "apps"):
                assert verb in READS, (role["metadata"]["name"], group, resource, verb)


def test_enforce_adds_two_rights_only():
    """Whoever reviews the switch to Enforce reviews these two lines."""
    (role,) = bound_to_the_controller()["overlays/enforce"]

    assert set(granted(role)) == {("", "nodes", "patch"), ("", "pods/eviction", "create")}


def test_repair_rights_stay_in_their_namespace():
    """Creating Jobs there is root on every node, so nothing may carry it elsewhere."""
    (role,) = bound_to_the_controller()["overlays/repair-job"]
    jobs = [each for each in documents() if each["kind"] in ROLES and ("batch", "jobs") in pairs(each)]

    assert role["kind"] == "Role"
    assert role["metadata"]["namespace"] == "remediator-repair"
    assert jobs == [role]


def pairs(role: Json) -> set[tuple[str, str]]:
    return {(group, resource) for group, resource, _ in granted(role)}


def test_manifests_grant_exactly_the_rules_that_the_program_claims():
    """``controller_rules`` is what the start-up check asks for; the files must hold the same."""
    found = {
        (role["metadata"].get("namespace", ""), *grant)
        for roles in bound_to_the_controller().values()
        for role in roles
        for grant in granted(role)
    }
    claimed = {
        (rule.namespace, rule.group, rule.resource, verb)
        for rule in rbac.controller_rules(enforce=True, repair=True)
        for verb in rule.verbs
    }

    assert found == claimed


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_has_its_rules(action: str):
    """An action without its right would fail in the middle of a run."""
    have = {
        (rule.namespace, rule.group, rule.resource): set(rule.verbs)
        for rule in rbac.controller_rules(enforce=True, repair=True)
    }
    for rule in ACTIONS[action].rules:
        namespace = rbac.NAMESPACES[rule.namespace] if rule.namespace else ""
        assert set(rule.verbs) <= have[namespace, rule.group, rule.resource]


def test_rules_follow_the_namespaces_that_they_are_told():
    """Installed under another name, the start-up check must ask about that one."""
    rules = rbac.controller_rules(enforce=False, namespaces={**rbac.NAMESPACES, "own": "gpu-care"})

    assert Rule("coordination.k8s.io", "leases", ("get", "create", "update"), "gpu-care") in rules
    assert not any(rule.namespace == "remediator" for rule in rules)


def test_namespaces_are_those_of_the_program():
    """Two constants that must agree, in packages that may not see each other."""
    assert rbac.NAMESPACES["events"] == EVENT_NAMESPACE
    assert rbac.NAMESPACES["own"] == Settings().namespace


def test_no_cluster_role_of_ours_but_the_viewer_is_aggregated():
    """Whoever may edit in a namespace must not come by the policy or by nodes."""
    aggregated = [
        each["metadata"]["name"]
        for each in documents()
        if any("aggregate" in key for key in each["metadata"]["labels"])
    ]

    assert aggregated == ["remediator-viewer"]
    viewer = one(documents(), "ClusterRole", "remediator-viewer")
    assert {(group, verb) for group, _, verb in granted(viewer)} == {
        ("remediator.dev", verb) for verb in READS
    }
