"""The shipped fencing policy on a real API server: requests by hand, and the program's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from remediator.core import patches
from remediator.core.prior import Prior
from remediator.errors import PermanentError
from remediator.model.action import Attribution, CreateJob, CreateRun, EvictPod, SavePolicy
from remediator.model.policy import PolicyStatus
from remediator.model.remediation import Remediation
from remediator.ports import Outcome, Refusal
from tests.contract.guarded import POLICY, TERM, Guarded, refusal
from tests.contract.live import ROOT, WAIT_S, a_pod, fresh_namespace
from tests.unit.core.builders import a_run

pytestmark = [pytest.mark.real_server, pytest.mark.timeout(120)]
OLD, NEW = TERM - 1, TERM + 1
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
OLDER = (
    "is forbidden: ValidatingAdmissionPolicy 'remediator-own-keys' with binding 'remediator-own-keys' denied "
    f"request: term {OLD} is older than term {TERM} of RemediationPolicy/cluster; another leader has taken "
    "over"
)
MARK = {"metadata": {"annotations": {"remediator.dev/because": "test"}}}


@pytest.fixture
def node(guarded: Guarded) -> str:
    return guarded.node("fenced")


@pytest.fixture
def term_back(guarded: Guarded) -> Iterator[None]:
    """For tests that change the policy: what the others count on comes back."""
    yield
    guarded.set_term(TERM)


def quarantine(guarded: Guarded, name: str) -> Any:
    prior = Prior(unschedulable=False)
    view = guarded.view(name)
    return patches.quarantine(view, mark="r-1/fence", value="gpu", cordon=True, prior=prior, because="x")


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        (OLD, OLDER),
        (TERM, ""),
        (NEW, ""),
        (None, "carries none"),
    ],
    ids=["older", "equal", "newer", "none"],
)
def test_node_patch_by_hand_is_judged_by_its_term(
    guarded: Guarded, node: str, term: int | None, expected: str
):
    """Whatever our code believes: the server takes nothing from a leader that was replaced."""
    said = refusal(guarded.account, node, MARK, term=term)

    assert expected in said
    assert bool(said) == bool(expected)


@pytest.mark.parametrize("text", ["", "-7", "5x", "99999999999999999999", "5.0"])
def test_a_term_of_no_sense_is_none(guarded: Guarded, node: str, text: str):
    """An expression that ends in an error would let the write pass: none may."""
    body = {"metadata": {"annotations": {"remediator.dev/term": text}}}

    assert "carries none" in refusal(guarded.account, node, body, term=None)


def test_nobody_else_is_fenced(guarded: Guarded, node: str):
    """kubectl, kubelets and controllers know nothing of terms."""
    assert refusal(guarded.person, node, MARK, term=None) == ""
    assert refusal(guarded.person, node, MARK, term=1) == ""


@pytest.mark.asyncio
async def test_the_writer_reads_the_refusal_as_fenced(guarded: Guarded, node: str):
    """The program has to tell "another leads" from "a right is missing": one ends it, the other waits."""
    refused = await guarded.write(guarded.view(node), quarantine(guarded, node), term=OLD)
    untouched = guarded.get(node)
    taken = await guarded.write(guarded.view(node), quarantine(guarded, node), term=TERM)

    assert (refused.outcome, refused.refusal) == (Outcome.REFUSED, Refusal.FENCED)
    assert not untouched["spec"].get("taints")
    assert taken.outcome is Outcome.APPLIED


@pytest.mark.asyncio
async def test_a_patch_held_back_over_a_takeover_lands_nowhere(guarded: Guarded, node: str, term_back: None):
    """It was sent in time and arrives too late: after the touch even its resourceVersion is gone."""
    seen, held_back = guarded.view(node), quarantine(guarded, node)
    guarded.set_term(NEW)
    touch = await guarded.write(seen, {}, term=NEW)

    late = await guarded.write(seen, held_back, term=TERM)
    again = await guarded.write(guarded.view(node), held_back, term=TERM)

    assert touch.outcome is Outcome.APPLIED
    assert late.refusal is Refusal.CONFLICT
    assert again.refusal is Refusal.FENCED
    assert not guarded.get(node)["spec"].get("taints")


@pytest.mark.asyncio
async def test_evictions_of_an_old_term_are_refused(guarded: Guarded):
    """An eviction has no version that could go stale: the term is all that holds it."""
    namespace = fresh_namespace(guarded.admin, "fencing-evictions")
    found = guarded.admin.create(f"/api/v1/namespaces/{namespace}/pods", a_pod("work"))
    action = EvictPod(namespace=namespace, name="work", uid=found["metadata"]["uid"])
    async with guarded.writer() as writer:
        refused = await writer.apply(action, Attribution(term=OLD))
        there = guarded.admin.find(f"/api/v1/namespaces/{namespace}/pods/work")
        taken = await writer.apply(action, Attribution(term=TERM))

    assert refused.refusal is Refusal.FENCED
    assert there is not None
    assert taken.outcome is Outcome.APPLIED
    guarded.admin.create(f"/api/v1/namespaces/{namespace}/pods", a_pod("other"))
    assert guarded.account.evict(namespace, "other") == 403
    assert guarded.person.evict(namespace, "other") == 201


@pytest.mark.asyncio
async def test_repair_jobs_of_an_old_term_are_refused(guarded: Guarded, node: str):
    """A second reboot by a leader that was replaced is the worst that could slip through."""
    action = CreateJob(
        namespace="remediator-repair",
        name="fencing-1",
        template="reboot",
        node=node,
        labels={},
        env={"EXPECTED_BOOT_ID": "none"},
        deadline_s=60,
    )
    async with guarded.writer() as writer:
        refused = await writer.apply(action, Attribution(term=OLD))
        taken = await writer.apply(action, Attribution(term=TERM))

    assert refused.refusal is Refusal.FENCED
    assert taken.outcome is Outcome.APPLIED


def run_of(name: str, term: int) -> Remediation:
    made = a_run(term=term)
    return replace(made, metadata=replace(made.metadata, name=name))


@pytest.mark.asyncio
async def test_runs_and_books_of_an_old_term_are_refused(guarded: Guarded, term_back: None):
    """What permits harm is fenced too, and the books by what they replace, not by a cache."""
    async with guarded.records() as records:
        refused = await records.save(CreateRun(run_of("fencing-old", OLD)), Attribution(term=OLD))
        taken = await records.save(CreateRun(run_of("fencing-now", TERM)), Attribution(term=TERM))
        raw = msgspec.json.encode(guarded.admin.get(POLICY))
        books = SavePolicy(raw=raw, status=PolicyStatus(term=OLD))
        fallen = await records.save(books, Attribution(term=OLD))
        emptied = replace(books, status=PolicyStatus())
        with pytest.raises(PermanentError, match="carries none"):
            await records.save(emptied, Attribution(term=OLD))
        risen = await records.save(replace(books, status=PolicyStatus(term=NEW)), Attribution(term=NEW))

    assert refused.refusal is Refusal.FENCED
    assert guarded.admin.find(f"{ROOT}/remediations/fencing-old") is None
    assert taken.outcome is Outcome.APPLIED
    assert fallen.refusal is Refusal.FENCED
    assert risen.outcome is Outcome.APPLIED


def test_without_a_term_nothing_but_a_term_may_be_written(guarded: Guarded, node: str, term_back: None):
    """A policy that was made anew knows no term: until a leader has written one, nobody may act."""
    guarded.set_term(None)

    assert "has no term" in refusal(guarded.account, node, MARK, term=TERM)
    assert refusal(guarded.person, node, MARK, term=None) == ""
    guarded.account.merge_patch(POLICY, {"status": {"term": TERM}}, subresource="status")


def test_a_missing_policy_object_hurts_nobody(guarded: Guarded, node: str):
    """The server looks for the parameter before it asks who writes: a Deny would stop every kubelet."""
    kept = guarded.admin.get(POLICY)
    guarded.admin.remove(POLICY)
    guarded.admin.wait_gone(POLICY, timeout_s=WAIT_S)
    try:
        for _ in range(50):  # longer than any propagation that was seen
            assert refusal(guarded.person, node, MARK, term=None) == ""
    finally:
        again = {key: kept[key] for key in ("apiVersion", "kind", "spec")} | {"metadata": {"name": "cluster"}}
        guarded.admin.create(f"{ROOT}/remediationpolicies", again)
        guarded.set_term(TERM)


def test_the_server_finds_no_fault_in_the_expressions(guarded: Guarded):
    """Type checking tells of fields that no matched kind has; what it finds would be wrong at run time."""
    for name in ("remediator-fencing", "remediator-own-keys"):
        path = f"{ADMISSION}/validatingadmissionpolicies/{name}"
        found = guarded.admin.wait_for(
            path,
            lambda each: each.get("status", {}).get("observedGeneration") == each["metadata"]["generation"],
            timeout_s=WAIT_S,
        )
        assert not found["status"].get("typeChecking", {}).get("expressionWarnings"), name
        assert guarded.admin.find(f"{ADMISSION}/validatingadmissionpolicybindings/{name}") is not None
