"""What the API server holds us to, as it stands in the files; tests/contract holds that it does."""

from __future__ import annotations

import re

import pytest

from remediator.adapters.kube.errors import OUR_POLICIES, REPLACED
from remediator.core.own_keys import PROTECTED
from tests.deploy.manifests import DEPLOY, Json, load, load_all, one

POLICY, BINDING = "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"
ACCOUNT = {"kind": "ServiceAccount", "serviceAccount": {"name": "remediator", "namespace": "remediator"}}
NAMES = ("remediator-fencing", "remediator-own-keys")


@pytest.fixture(scope="module")
def base() -> list[Json]:
    return load_all("base")


def test_kustomize_lists_every_file_of_the_base():
    """A file that is not listed is installed by nobody."""
    (kustomization,) = load(DEPLOY / "base/kustomization.yaml")
    files = {each.name for each in (DEPLOY / "base").glob("*.yaml")} - {"kustomization.yaml"}

    assert set(kustomization["resources"]) == files


def test_every_policy_is_bound_and_denies(base: list[Json]):
    """A policy without a binding does nothing, and says nothing about it."""
    assert {each["metadata"]["name"] for each in base if each["kind"] == POLICY} == set(NAMES)
    for name in NAMES:
        binding = one(base, BINDING, name)["spec"]
        assert (binding["policyName"], binding["validationActions"]) == (name, ["Deny"])


@pytest.mark.parametrize("name", NAMES)
def test_a_policy_judges_our_account_and_nobody_else(base: list[Json], name: str):
    """Kubelets, controllers and people must not even notice."""
    (condition,) = one(base, POLICY, name)["spec"]["matchConditions"]

    assert (
        condition["expression"]
        == "request.userInfo.username == 'system:serviceaccount:remediator:remediator'"
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_policy_with_a_parameter_never_fails_closed(base: list[Json], name: str):
    """The server looks for the parameter before it asks who writes: Fail would stop the whole cluster."""
    spec = one(base, POLICY, name)["spec"]

    assert spec["paramKind"] == {"apiVersion": "remediator.dev/v1alpha1", "kind": "RemediationPolicy"}
    assert spec["failurePolicy"] == "Ignore"
    ref = one(base, BINDING, name)["spec"]["paramRef"]
    assert ref == {"name": "cluster", "parameterNotFoundAction": "Allow"}


@pytest.mark.parametrize("name", NAMES)
def test_only_a_lower_term_reads_as_fenced(base: list[Json], name: str):
    """The program ends when it is fenced: no other refusal may look like it, and this one comes first."""
    validations = one(base, POLICY, name)["spec"]["validations"]
    said = [each["message"] + each.get("messageExpression", "") for each in validations]

    assert [place for place, each in enumerate(said) if REPLACED in each] == [2]
    assert said[2].count(REPLACED) == 2
    assert f"ValidatingAdmissionPolicy '{name}'".startswith(OUR_POLICIES)


def test_a_node_write_meets_one_policy(base: list[Json]):
    """For each that matches the server converts the node eight times: three made a patch twice as slow."""
    rules = {
        each["metadata"]["name"]: each["spec"]["matchConstraints"]["resourceRules"]
        for each in base
        if each["kind"] == POLICY
    }

    assert [name for name in NAMES if any("nodes" in rule["resources"] for rule in rules[name])] == [
        "remediator-own-keys"
    ]


def test_core_and_policy_protect_the_same_labels(base: list[Json]):
    """The gate has to know before a run what the server would refuse in the middle of it."""
    text = " ".join(
        each["expression"] for each in one(base, POLICY, "remediator-own-keys")["spec"]["validations"]
    )
    (pattern,) = set(re.findall(r"k\.matches\('([^']+)'\)", text))

    assert all(re.search(pattern, f"{prefix}x") for prefix in PROTECTED)
    for other in (
        "node-role.kubernetes.io/x",
        "cluster-autoscaler.kubernetes.io/x",
        "example.com/kubernetes.io",
    ):
        assert not re.search(pattern, other)


def test_flow_schemas_are_ours_and_the_lease_leads(base: list[Json]):
    """The first that matches counts: a Lease renewal must not fall into the schema of all writes."""
    schemas = {each["metadata"]["name"]: each["spec"] for each in base if each["kind"] == "FlowSchema"}
    order = sorted(schemas, key=lambda name: schemas[name]["matchingPrecedence"])
    levels = {name: spec["priorityLevelConfiguration"]["name"] for name, spec in schemas.items()}

    assert order == ["remediator-lease", "remediator-writes", "remediator-reads"]
    assert levels == {
        "remediator-lease": "leader-election",
        "remediator-writes": "remediator",
        "remediator-reads": "remediator",
    }
    assert all(rule["subjects"] == [ACCOUNT] for spec in schemas.values() for rule in spec["rules"])
    one(base, "PriorityLevelConfiguration", "remediator")
