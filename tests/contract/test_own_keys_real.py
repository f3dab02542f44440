"""The shipped policies about our own keys on a real API server: what we can't do, and what we do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from remediator.app.cleanup import leftovers
from remediator.core import patches
from remediator.core.prior import Prior, read_prior
from remediator.model.meta import Taint
from remediator.model.views import NodeView
from remediator.ports import Outcome
from tests.contract.guarded import CORDONED, TERM, Guarded, refusal
from tests.contract.live import NODES
from tests.unit.core.builders import BUFFER, REPAIR, a_pool, a_projection

pytestmark = [pytest.mark.real_server, pytest.mark.timeout(120)]

OURS = {"key": "remediator.dev/quarantine", "value": "gpu", "effect": "NoSchedule"}
THEIRS = {
    "key": "vendor.com/x",
    "value": "v",
    "effect": "NoExecute",
    "timeAdded": "2026-01-01T00:00:00Z",
}
SYSTEM = {"key": "node.kubernetes.io/made-up", "effect": "NoSchedule"}
OFF = {"key": "node.kubernetes.io/out-of-service", "value": "remediator", "effect": "NoExecute"}
POOL = {"key": "example.com/pool", "value": "train", "effect": "NoSchedule"}
RUN, PRIOR = "remediator.dev/run", "remediator.dev/prior"
MARKS = {RUN: "r-1/fence", PRIOR: "{}"}
FOREIGN = {**MARKS, PRIOR: '{"unschedulable":true}'}
HELD = {"taints": [OURS], "unschedulable": True}

TRAIN = a_pool(
    "train",
    projection=a_projection(
        msgspec.convert(POOL, Taint), labels={"team": "train"}, annotations={"example.com/note": "t"}
    ),
)
SPARE = {"key": "example.com/spare", "effect": "NoSchedule"}
SPARES = a_pool("buffer", "Buffer", projection=a_projection(msgspec.convert(SPARE, Taint)))


def meta(**parts: object) -> dict[str, Any]:
    return {"metadata": parts}


# What a node is like, what our account sends, and the words in which the server refuses it.
REFUSED: dict[str, tuple[dict[str, Any], Mapping[str, Any], str]] = {
    "foreign label added": ({}, meta(labels={"vendor.com/new": "x"}), "label vendor.com/new"),
    "foreign label changed": ({}, meta(labels={"vendor.com/rack": "r2"}), "label vendor.com/rack"),
    "foreign label dropped": ({}, meta(labels={"vendor.com/rack": None}), "label vendor.com/rack"),
    "all labels dropped": ({}, meta(labels=None), "label"),
    "topology relabelled": ({}, meta(labels={"topology.kubernetes.io/zone": "b"}), "topology.kubernetes.io"),
    "hostname relabelled": ({}, meta(labels={"kubernetes.io/hostname": "b"}), "labels of kubernetes.io"),
    "foreign annotation added": ({}, meta(annotations={"vendor.com/new": "x"}), "annotation vendor.com/new"),
    "foreign annotation changed": (
        {"notes": {"vendor.com/a": "1"}}, meta(annotations={"vendor.com/a": "2"}), "annotation vendor.com/a",
    ),
    "foreign annotation dropped": (
        {"notes": {"vendor.com/a": "1"}}, meta(annotations={"vendor.com/a": None}), "annotation vendor.com/a",
    ),
    "foreign taint added": ({}, {"spec": {"taints": [THEIRS]}}, "taint vendor.com/x"),
    "foreign taint dropped": ({"taints": [THEIRS]}, {"spec": {"taints": []}}, "taint vendor.com/x"),
    "all taints dropped": ({"taints": [THEIRS]}, {"spec": {"taints": None}}, "taint vendor.com/x"),
    "foreign taint's effect changed": (
        {"taints": [THEIRS]},
        {"spec": {"taints": [{**THEIRS, "effect": "NoSchedule"}]}},
        "taint vendor.com/x",
    ),
    "foreign taint's time dropped": (
        {"taints": [THEIRS]},
        {"spec": {"taints": [{key: THEIRS[key] for key in ("key", "value", "effect")}]}},
        "taint vendor.com/x",
    ),
    "system taint dropped": ({"taints": [SYSTEM]}, {"spec": {"taints": []}}, "taints of node.kubernetes.io"),
    "a person's out-of-service dropped": (
        {"taints": [{**OFF, "value": "nodeshutdown"}]},
        {"spec": {"taints": []}},
        "taints of node.kubernetes.io",
    ),
    "finalizer added": ({}, meta(finalizers=["vendor.com/hold"]), "finalizers"),
    "owner added": (
        {},
        meta(ownerReferences=[{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "1"}]),
        "ownerReferences",
    ),
    "providerID set": ({}, {"spec": {"providerID": "kwok://x"}}, "providerID"),
    "podCIDR set": ({}, {"spec": {"podCIDR": "10.9.0.0/24", "podCIDRs": ["10.9.0.0/24"]}}, "pod addresses"),
    "hold written": ({}, meta(annotations={"remediator.dev/hold": "by=us"}), "are people's"),
    "hold taken away": (
        {"notes": {"remediator.dev/hold": "by=jo"}},
        meta(annotations={"remediator.dev/hold": None}),
        "are people's",
    ),
    "opt-out written": ({}, meta(labels={"remediator.dev/opt-out": "true"}), "are people's"),
    "fenced claimed": ({}, meta(annotations={"remediator.dev/fenced": "uid"}), "the word of a person"),
    "cordon without quarantine": ({}, {"spec": {"unschedulable": True}}, "only together with its own"),
    "quarantine without a record": ({}, {"spec": HELD}, "has to name its run"),
    "plain foreign cordon lifted": ({"unschedulable": True}, {"spec": {"unschedulable": None}}, "lift"),
    "foreign cordon lifted with the quarantine": (
        {**HELD, "notes": FOREIGN},
        {**meta(annotations={RUN: None, PRIOR: None}), "spec": {"taints": [], "unschedulable": None}},
        "lift a cordon only",
    ),
    "own cordon lifted, quarantine kept": (
        {**HELD, "notes": MARKS}, {"spec": {"unschedulable": None}}, "lift a cordon only",
    ),
    "own cordon lifted, mark kept": (
        {**HELD, "notes": MARKS}, {"spec": {"taints": [], "unschedulable": None}}, "lift a cordon only",
    ),
    "foreign cordon taken as ours": (
        {"unschedulable": True},
        {**meta(annotations=MARKS), "spec": {"taints": [OURS]}},
        "cordoned by somebody else",
    ),
    "foreign cordon made ours later": (
        {**HELD, "notes": FOREIGN}, meta(annotations={PRIOR: "{}"}), "cordoned by somebody else",
    ),
    "record dropped before the cordon": (
        {**HELD, "notes": FOREIGN}, meta(annotations={PRIOR: None}), "may only go together",
    ),
}  # fmt: skip


def keeping_the_servers_own(stood: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
    """The body with the taint that a cordon brings, so that each case is about one thing."""
    spec = dict(body.get("spec", {}))
    if "taints" in spec:
        own = [each for each in stood["spec"].get("taints", ()) if each["key"] == CORDONED]
        spec["taints"] = [*(spec["taints"] or ()), *own]
    return {**body, "spec": spec}


@pytest.mark.parametrize("case", REFUSED)
def test_our_account_may_not(guarded: Guarded, case: str):
    """Each of these is somebody else's to write, and the refusal names what it is about."""
    before, body, words = REFUSED[case]
    before = dict(before)
    name = guarded.node("keys", notes=before.pop("notes", None), **before)
    stood = guarded.get(name)

    said = refusal(guarded.account, name, keeping_the_servers_own(stood, body))

    assert words in said
    assert (
        "denied request: remediator" in said
        or "denied request: a quarantine" in said
        or "the node was" in said
    )
    found = guarded.get(name)
    assert (found["spec"], found["metadata"].get("labels")) == (
        stood["spec"],
        stood["metadata"].get("labels"),
    )


@pytest.mark.parametrize("case", REFUSED)
def test_a_person_may(guarded: Guarded, case: str):
    """The policies bind our account and nobody else; kubelets and controllers least of all."""
    before, body, _ = REFUSED[case]
    before = dict(before)
    name = guarded.node("keys", notes=before.pop("notes", None), **before)

    assert refusal(guarded.person, name, body, term=None) == ""
    guarded.admin.merge_patch(f"{NODES}/{name}", {"metadata": {"finalizers": None}})


def test_foreign_taints_may_stand_in_another_order(guarded: Guarded):
    """Undo puts a pool's taint back at the end of the list; order means nothing."""
    name = guarded.node("keys", taints=[THEIRS, POOL])

    assert refusal(guarded.account, name, {"spec": {"taints": [POOL, THEIRS]}}) == ""


# -- what the program does, by its own builders and through its own door


def an_older_cordon(node: NodeView) -> Prior:
    return read_prior(node) or Prior(unschedulable=node.unschedulable)


async def done(guarded: Guarded, name: str, patch: Mapping[str, object]) -> NodeView:
    """Send it, expect it to be taken, and return the node as it is then."""
    written = await guarded.write(guarded.view(name), patch)
    assert written.outcome is Outcome.APPLIED, written.message
    return guarded.view(name)


async def quarantined(guarded: Guarded, name: str, *, cordon: bool = True) -> NodeView:
    node = guarded.view(name)
    prior = Prior(unschedulable=node.unschedulable or not cordon)
    patch = patches.quarantine(node, mark="r-1/fence", value="gpu", cordon=cordon, prior=prior, because="x")
    return await done(guarded, name, patch)


async def detached(guarded: Guarded, name: str) -> NodeView:
    node = guarded.view(name)
    prior = patches.what_detach_takes(node, TRAIN.spec, an_older_cordon(node), REPAIR.spec)
    patch = patches.detach(node, mark="r-1/detach", pool=TRAIN.spec, repair=REPAIR.spec, prior=prior)
    return await done(guarded, name, patch)


@pytest.mark.asyncio
@pytest.mark.parametrize("was_cordoned", [False, True], ids=["free", "cordoned before us"])
async def test_a_whole_run_is_taken(guarded: Guarded, was_cordoned: bool):
    """Quarantine, detach to the Repair pool, return with probation: every patch of a run that goes well."""
    name = guarded.node("run", taints=[POOL, THEIRS], unschedulable=was_cordoned)
    guarded.settled(name)
    await quarantined(guarded, name)
    guarded.settled(name)
    out = await detached(guarded, name)
    assert out.labels["example.com/pool"] == "repair"
    prior = read_prior(out)
    assert prior is not None
    patch = patches.give_back(
        out, target=SPARES.spec, leaving=(REPAIR.spec,), prior=prior, probation_until="2026-12-01T00:00:00Z"
    )

    back = await done(guarded, name, patch)

    assert (back.labels["example.com/pool"], back.unschedulable) == ("buffer", was_cordoned)
    assert {taint.key for taint in back.taints} >= {"vendor.com/x", "example.com/spare"}
    assert RUN not in back.annotations


@pytest.mark.asyncio
async def test_a_hand_over_is_taken(guarded: Guarded):
    """The spare leaves the buffer and becomes a member, label, taint and annotation in one patch."""
    name = guarded.node("spare", taints=[SPARE])
    guarded.admin.merge_patch(f"{NODES}/{name}", meta(labels={"example.com/pool": "buffer", "team": None}))

    spare = await done(
        guarded, name, patches.hand_over(guarded.view(name), pool=TRAIN.spec, buffer=SPARES.spec)
    )

    assert (spare.labels["example.com/pool"], [each.key for each in spare.taints]) == (
        "train",
        ["example.com/pool"],
    )


@pytest.mark.asyncio
@pytest.mark.parametrize("how", ["after quarantine", "after detach", "taint taken by a person", "soft"])
async def test_an_undo_is_taken(guarded: Guarded, how: str):
    """A person's No has to be carried out from wherever the run was."""
    name = guarded.node("undo", taints=[POOL, THEIRS])
    node = await quarantined(guarded, name, cordon=how != "soft")
    guarded.settled(name)
    if how == "after detach":
        await detached(guarded, name)
    if how == "taint taken by a person":
        kept = [each for each in guarded.get(name)["spec"]["taints"] if each["key"] != OURS["key"]]
        guarded.person.merge_patch(f"{NODES}/{name}", {"spec": {"taints": kept}})
    node = guarded.view(name)
    prior = read_prior(node)
    assert prior is not None

    free = await done(guarded, name, patches.restore(node, prior, (REPAIR.spec,)))

    assert not free.unschedulable
    assert free.labels["example.com/pool"] == "train"
    assert {each.key for each in free.taints if "kubernetes.io" not in each.key} == {
        POOL["key"],
        THEIRS["key"],
    }


@pytest.mark.asyncio
async def test_out_of_service_and_back_is_taken(guarded: Guarded):
    """The one taint of Kubernetes that we set, and a person's word that we take away with it."""
    name = guarded.node("keys", notes={**MARKS, "remediator.dev/fenced": "uid"}, taints=[OURS])

    gone = await done(guarded, name, patches.out_of_service(guarded.view(name)))
    back = await done(guarded, name, patches.in_service(gone))

    assert gone.taint(OFF["key"]) is not None
    assert back.taint(OFF["key"]) is None
    assert "remediator.dev/fenced" not in back.annotations


@pytest.mark.asyncio
async def test_a_sweep_is_taken(guarded: Guarded):
    """Marks whose run is gone, without a record of what stood before: the cordon stays."""
    name = guarded.node("orphan", notes={RUN: "gone-1/fence"}, **HELD)
    node = guarded.view(name)
    patch = patches.restore(node, read_prior(node) or Prior(unschedulable=node.unschedulable))

    free = await done(guarded, name, patch)

    assert free.unschedulable
    assert free.taint(OURS["key"]) is None


@pytest.mark.asyncio
async def test_the_touch_of_a_new_leader_is_taken(guarded: Guarded):
    """At takeover every node in flight gets the new term, whatever it looks like."""
    for notes, spec in (
        (MARKS, HELD),
        (FOREIGN, HELD),
        ({RUN: "r-1/fence"}, HELD),
        ({}, {"unschedulable": True}),
    ):
        name = guarded.node("touch", notes=notes, **spec)
        guarded.settled(name)
        touched = await done(guarded, name, {})

        assert touched.annotations["remediator.dev/term"] == str(TERM)


def test_cleanup_by_a_person_is_taken(guarded: Guarded):
    """The way out works under a person's account, with the policies still there."""
    name = guarded.node("cleanup", notes=MARKS, **HELD)
    (left,) = leftovers([guarded.view(name)], {"buffer": BUFFER}, {})

    said = refusal(guarded.person, name, msgspec.json.decode(msgspec.json.encode(left.patch)), term=None)

    assert said == ""
    assert not guarded.get(name)["spec"].get("unschedulable")
