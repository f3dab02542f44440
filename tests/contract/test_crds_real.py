"""The CRDs on a real API server: good objects in, bad ones refused with words that help."""

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from remediator.adapters.files.kinds import KIND_BY_NAME, KINDS
from remediator.adapters.files.rules import IMMUTABLE, IMMUTABLE_OPTIONAL
from remediator.model.keys import GROUP, VERSION
from remediator.testbed.api import Api, ApiError
from tests.contract.live import install_crds
from tests.unit.adapters.files.examples import (
    AT,
    BAD,
    DROP,
    OBJECTS,
    Bad,
    Json,
    a_managed_node,
    a_playbook,
    a_remediation,
)
from tests.unit.adapters.files.full_examples import merged

ROOT = Path(__file__).resolve().parents[2]
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
# Nothing is kept: the control plane is shared with other suites.
STRICT = "?fieldValidation=Strict&dryRun=All"

pytestmark = pytest.mark.real_server


@pytest.fixture(scope="module")
def installed(api: Api) -> Api:
    """The shipped CRDs, as they stand in deploy/, served, and nothing wrong with their schemas."""
    install_crds(api)
    for kind in KINDS:
        conditions = api.get(f"{CRDS}/{kind.plural}.{GROUP}")["status"]["conditions"]
        found = {each["type"]: each["status"] for each in conditions}
        assert found["Established"] == "True"
        assert found.get("NonStructuralSchema", "False") == "False"
    return api


def collection(kind: str) -> str:
    return f"/apis/{GROUP}/{VERSION}/{KIND_BY_NAME[kind].plural}"


@pytest.fixture
def run(installed: Api) -> Iterator[Json]:
    """A stored Remediation."""
    made = installed.create(
        collection("Remediation"), merged(a_remediation(), {"spec": {"by": "alice", "returnTo": "buffer"}})
    )
    yield made
    installed.delete(f"{collection('Remediation')}/{made['metadata']['name']}")


def refusal(api: Api, path: str, body: Json) -> str:
    with pytest.raises(ApiError) as caught:
        api.create(path, body)
    assert caught.value.status in (400, 422), caught.value
    return str(caught.value)


@pytest.mark.parametrize("make", OBJECTS, ids=lambda make: make.__name__)
def test_server_accepts_an_example_of_every_kind(installed: Api, make):
    """The model's own words must be the server's, or the controller cannot write them."""
    made = make()

    stored = installed.create(collection(made["kind"]) + STRICT, made)

    assert _contains(stored["spec"], made["spec"])


def _contains(stored: object, wanted: object) -> bool:
    if isinstance(stored, dict) and isinstance(wanted, dict):
        return all(key in stored and _contains(stored[key], value) for key, value in wanted.items())
    if isinstance(stored, list) and isinstance(wanted, list):
        return len(stored) == len(wanted) and all(map(_contains, stored, wanted))
    return stored == wanted


@pytest.mark.parametrize(
    "body",
    [
        body
        for path in sorted((ROOT / "playbooks").glob("*.yaml"))
        for body in YAML(typ="safe").load_all(path)
    ],
    ids=lambda body: body["metadata"]["name"],
)
def test_server_accepts_the_shipped_playbooks(installed: Api, body):
    """What we ship must install."""
    installed.create(collection("Playbook") + STRICT, body)


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_server_refuses_in_words_that_help(installed: Api, bad: Bad):
    """For somebody with kubectl alone the server's text is the only documentation."""
    made = bad.spoiled()

    assert bad.refused in refusal(installed, collection(made["kind"]) + STRICT, made)


def test_server_refuses_a_misspelt_action_even_when_lenient(installed: Api):
    """Without strict validation unknown fields are dropped: the step would do nothing, silently."""
    made = a_playbook()
    made["spec"]["steps"][1] = {"id": "swap", "swop": {}}

    assert "set exactly one of" in refusal(installed, collection("Playbook") + "?dryRun=All", made)


@pytest.mark.parametrize("field", IMMUTABLE)
def test_run_never_changes_after_birth(installed: Api, run: Json, field):
    """The record that is audited must be the record that was decided on."""
    other: dict[str, object] = {
        "trigger": "Manual", "mode": "Audit", "term": 8, "plan": ["nothing"], "evidence": [],
        "node": {"name": "gpu-a-03", "uid": "other"}, "spare": {"name": "other", "uid": "x"},
        "playbook": {"name": "example", "generation": 4, "text": "{}"}, "severity": "Soft",
        "firstSeen": "2026-11-23T12:00:01Z",
    }  # fmt: skip
    changed = copy.deepcopy(run)
    changed["spec"][field] = other.get(field, "other")
    path = f"{collection('Remediation')}/{run['metadata']['name']}"

    with pytest.raises(ApiError, match=f"spec.{field} cannot change after birth"):
        installed.replace(path, changed)
    if field in IMMUTABLE_OPTIONAL:
        del changed["spec"][field]
        with pytest.raises(ApiError, match="complete at birth"):
            installed.replace(path, changed)


def test_run_can_be_cancelled_once(installed: Api, run: Json):
    """Cancelling is the one thing a person may still say; nobody may take it back."""
    path = f"{collection('Remediation')}/{run['metadata']['name']}"

    installed.merge_patch(path, {"spec": {"cancel": {"by": "alice", "reason": "known"}}})

    with pytest.raises(ApiError, match="a cancelled run stays cancelled"):
        installed.merge_patch(path, {"spec": {"cancel": {"by": "bob"}}})
    with pytest.raises(ApiError, match="cannot be un-cancelled"):
        installed.merge_patch(path, {"spec": {"cancel": None}})
    with pytest.raises(ApiError, match="complete at birth"):
        installed.merge_patch(path, {"spec": {"by": None}})


def test_run_takes_the_largest_playbook(installed: Api):
    """A run carries a copy of its playbook: 32 KB must fit the server's budget for rules."""
    made = a_remediation()
    made["spec"]["playbook"]["text"] = "x" * 32_768
    made["metadata"]["name"] = "large-1"

    installed.create(collection("Remediation") + STRICT, made)


def test_status_is_its_own_door(installed: Api, run: Json):
    """A person who may edit specs must not be able to write a status, nor the controller a spec."""
    path = f"{collection('Remediation')}/{run['metadata']['name']}"

    whole = installed.merge_patch(path, {"status": {"state": "Returned"}})
    status = installed.merge_patch(path, {"status": {"state": "Granted"}}, subresource="status")

    assert "status" not in whole
    assert status["status"] == {"state": "Granted"}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_kubectl_lists_every_kind_by_its_short_name(installed: Api, kind):
    """Short names and columns are what on-call types and reads."""
    group = installed.get(f"/apis/{GROUP}/{VERSION}")
    served = {each["name"]: each for each in group["resources"]}[kind.plural]

    assert served["shortNames"] == [kind.short]
    assert served["categories"] == ["remediator"]
    assert served["namespaced"] is False
    assert f"{kind.plural}/status" in {each["name"] for each in group["resources"]}


def test_runs_can_be_selected_by_node(installed: Api, run: Json):
    """The runs of one node must not cost a list of all of them."""
    found = installed.list(collection("Remediation"), field_selector="spec.node.name=gpu-a-03")
    others = installed.list(collection("Remediation"), field_selector="spec.node.name=gpu-a-04")

    assert [each["metadata"]["name"] for each in found] == [run["metadata"]["name"]]
    assert others == []


def test_ledger_holds_its_bounds(installed: Api):
    """A ledger that grows without bound would one day be refused in the middle of a run."""
    made = a_managed_node()
    name = made["metadata"]["name"]
    installed.create(collection("ManagedNode"), made)
    entry = {"run": "gpu-a-03-1", "faultClass": "gpu.bus", "outcome": "Returned", "at": AT}
    path = f"{collection('ManagedNode')}/{name}"
    try:
        installed.merge_patch(path, {"status": {"history": [entry] * 20}}, subresource="status")
        with pytest.raises(ApiError, match="must have at most 20 items"):
            installed.merge_patch(path, {"status": {"history": [entry] * 21}}, subresource="status")
    finally:
        installed.delete(path)


def test_bad_table_drops_what_it_says():
    """The table is data; a row that spoils nothing would prove nothing."""
    assert all(bad.spoiled() != bad.make() for bad in BAD)
    assert any(bad.value is DROP for bad in BAD)
