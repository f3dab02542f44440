"""The join gate on a real API server, under our account as shipped: what it may do, and what it may not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from remediator.core import patches
from remediator.core.joins.gate import write_mark
from remediator.core.joins.preflight import PREFLIGHT
from remediator.model.action import Attribution, SetCondition
from remediator.model.joins import GATE_KEY
from remediator.model.keys import ANNOTATION_JOINED
from remediator.model.views import NodeView
from remediator.ports import Outcome, Written
from remediator.testbed.api import Api, ApiError
from remediator.testbed.waiting import wait_until
from tests.contract.guarded import POLICY, TERM, Guarded, refusal
from tests.contract.live import NODES, WAIT_S, a_node
from tests.deploy.manifests import DEPLOY

pytestmark = [pytest.mark.real_server, pytest.mark.timeout(120)]

GATE = {"key": GATE_KEY, "effect": "NoSchedule"}
NODE = "joining"


@pytest.fixture(scope="module")
def joining(guarded: Guarded) -> Iterator[Guarded]:
    """With joins in the policy and the component applied; both in force."""
    component = DEPLOY / "components/joins"
    guarded.plane.kubectl(
        "apply", "-f", str(component / "rbac.yaml"), "-f", str(component / "node-status.yaml")
    )
    guarded.admin.merge_patch(POLICY, {"spec": {"joins": {"mode": "Enforce"}}})
    guarded.node(NODE, taints=[GATE])
    wait_until(
        lambda: "open a join gate" in refused(guarded, {"spec": {"taints": []}}),
        timeout_s=WAIT_S,
        what="own-keys to be in force",
    )
    wait_until(
        lambda: "no other" in status_refusal(guarded.account, says("Ready", "True")),
        timeout_s=WAIT_S,
        what="node-status to be in force",
        detail=lambda: status_refusal(guarded.account, says("Ready", "True")),
    )
    yield guarded
    guarded.admin.merge_patch(POLICY, {"spec": {"joins": None}})


def refused(guarded: Guarded, body: Mapping[str, Any]) -> str:
    return refusal(guarded.account, NODE, body)


def says(type_: str, status: str) -> dict[str, Any]:
    """Another text each time: what changes nothing is refused to nobody."""
    condition = {"type": type_, "status": status, "reason": "Test", "message": uuid4().hex}
    return {"status": {"conditions": [condition]}}


def status_refusal(api: Api, body: Mapping[str, Any]) -> str:
    """Merge into the status of the Node by hand; why the server refuses it, or empty text."""
    try:
        api.merge_patch(f"{NODES}/{NODE}", dict(body), subresource="status")
    except ApiError as error:
        if error.status != 403:
            raise
        return str(error.body["message"])
    return ""


async def prove(guarded: Guarded, node: NodeView, status: str) -> Written:
    action = SetCondition(
        name=node.name,
        resource_version=node.resource_version,
        type=PREFLIGHT,
        status=status,
        reason="Test",
        message="said by a test",
        at=datetime(2026, 12, 1, 3, 14, 7, 123456, tzinfo=UTC),
        turned=True,
    )
    async with guarded.writer() as writer:
        return await writer.prove(action, Attribution(term=TERM, step="join-prove"))


@pytest.mark.asyncio
async def test_a_node_is_gated_proved_and_let_in(joining: Guarded):
    """The three writes of a join, by the program's own doors."""
    name = joining.node("newcomer")
    assert (
        await joining.write(joining.view(name), patches.shut_gate(joining.view(name), GATE_KEY))
    ).message == ""
    assert (await prove(joining, joining.view(name), "True")).outcome is Outcome.APPLIED
    node = joining.view(name)
    opened = patches.open_gate(node, GATE_KEY, write_mark(node.uid, datetime.now(UTC)))
    written = await joining.write(node, opened)

    after = joining.get(name)
    assert written.outcome is Outcome.APPLIED, written.message
    assert GATE_KEY not in [each["key"] for each in after["spec"].get("taints", ())]
    assert after["metadata"]["annotations"][ANNOTATION_JOINED].startswith(node.uid)
    said = {each["type"]: each for each in after["status"]["conditions"]}
    assert (said[PREFLIGHT]["status"], said[PREFLIGHT]["lastTransitionTime"]) == (
        "True",
        "2026-12-01T03:14:07Z",
    )
    assert "Ready" in said, "others are still there"


@pytest.mark.asyncio
async def test_a_proof_of_an_old_version_is_refused(joining: Guarded):
    """What was judged is not what is there any more."""
    node = joining.view(NODE)
    joining.admin.merge_patch(f"{NODES}/{NODE}", {"metadata": {"labels": {"vendor.com/rack": "r9"}}})

    assert (await prove(joining, node, "True")).outcome is Outcome.REFUSED


@pytest.mark.parametrize(
    ("mark", "said"),
    [({}, "open a join gate"), ({ANNOTATION_JOINED: "another-uid 2026-12-01T03:14:07Z"}, "open a join gate")],
    ids=["no mark", "of another Node"],
)
def test_a_gate_opens_only_with_its_mark(joining: Guarded, mark: Mapping[str, str], said: str):
    """Else nobody would know afterwards that it was let in, and it could be let in twice."""
    assert said in refused(joining, {"metadata": {"annotations": dict(mark)}, "spec": {"taints": []}})


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (says("Ready", "True"), "no other"),
        ({"status": {"conditions": None}}, "no other"),
        ({"status": {"allocatable": {"nvidia.com/gpu": "64"}}}, "what a node has to give"),
        ({"status": {"capacity": {"nvidia.com/gpu": "64"}}}, "what a node has to give"),
        ({"status": {"addresses": [{"type": "InternalIP", "address": "10.9.9.9"}]}}, "what a node is"),
        ({"metadata": {"labels": {"vendor.com/rack": "r2"}}}, "by way of its status"),
        ({"metadata": {"annotations": {"remediator.dev/hold": "x"}}}, "by way of its status"),
    ],
    ids=["Ready", "all conditions", "allocatable", "capacity", "addresses", "label", "annotation"],
)
def test_our_account_says_nothing_else_of_a_node(joining: Guarded, body: Mapping[str, Any], said: str):
    """Whoever may patch the status of Nodes could say that a dead one is Ready."""
    assert said in status_refusal(joining.account, body)


def test_others_are_not_held_to_it(joining: Guarded):
    """Kubelets write their own status, and people what they like."""
    assert status_refusal(joining.person, says("Ready", "True")) == ""


@pytest.fixture(scope="module")
def kubelet(joining: Guarded) -> Iterator[Api]:
    """Of a node named below, where nodes have to register with the gate."""
    manifest = str(DEPLOY / "components/joins-required/policy.yaml")
    joining.plane.kubectl("apply", "-f", manifest)
    api = joining.admin.as_user("system:node:refused", ["system:nodes", "system:authenticated"])
    wait_until(
        lambda: registered(api, []), timeout_s=WAIT_S, every_s=0.2, what="joins-required to be in force"
    )
    yield api
    joining.plane.kubectl("delete", "-f", manifest)


def registered(kubelet: Api, taints: list[dict[str, Any]]) -> str:
    """Register the Node as its kubelet does; why the server refuses it, or empty text. It does not stay."""
    node = a_node("refused", "joins", taints=taints)
    try:
        kubelet.create(f"{NODES}?dryRun=All", node)
    except ApiError as error:
        return str(error.body["message"])
    return ""


def test_a_node_registers_with_the_gate_or_not_at_all(kubelet: Api):
    """For whoever wants no node to be open before it is seen."""
    assert "register with the taint" in registered(kubelet, [])
    assert "register with the taint" in registered(kubelet, [GATE | {"effect": "PreferNoSchedule"}])
    assert registered(kubelet, [GATE]) == ""
