"""Every gate stops what it is for, says why with numbers, and lets the rest through."""

from __future__ import annotations

import pytest
from msgspec import UNSET
from msgspec.structs import replace

from remediator.core.account import Account
from remediator.core.fleet import open_case
from remediator.core.gates import GATES, evaluate
from remediator.model.ledger import ManagedNodeStatus, Out
from remediator.model.meta import Limit, Pause
from remediator.model.playbook import PlaybookLimits
from remediator.model.policy import BreakerState, PolicyStatus, RateState
from remediator.model.remediation import RemediationStatus, StepStatus
from tests.unit.core.builders import (
    BUFFER,
    HARD,
    TRAIN,
    a_fleet,
    a_grant,
    a_node,
    a_playbook,
    a_policy,
    a_pool,
    a_request,
    a_run,
    text,
)
from tests.unit.core.tiny_world import a_spare

PAUSE = Pause(by="ann", reason="x")
LEAVER = a_node()


def verdicts(request=None, *, nodes=None, grants=(), breakers=(), **fields):
    seen = (
        [LEAVER, a_spare(), *(a_node(f"gpu-{number}") for number in range(2, 21))] if nodes is None else nodes
    )
    view = a_fleet(seen, **fields)
    asked = request or a_request(LEAVER, *HARD)
    return {
        each.gate: each
        for each in evaluate(open_case(view, Account(view, grants, breakers), asked, (asked,)))
    }


def stops(*args, **fields):
    return [each.stop for each in verdicts(*args, **fields).values() if each.stop]


def asked(**fields):
    return a_request(LEAVER, *HARD, **fields)


def veto(**fields):
    return {"ledgers": {"gpu-1": ManagedNodeStatus(veto_until=text(60), **fields)}}


def marked(**fields):
    node = a_node(**fields)
    return {
        "request": a_request(node, *HARD),
        "nodes": [node, a_spare(), *(a_node(f"n-{i}") for i in range(20))],
    }


def playbook(*actions, **fields):
    return a_request(LEAVER, playbook=a_playbook(*actions or HARD, **fields))


CASES = {
    "HoldActive": marked(annotations={"remediator.dev/hold": "by=ann"}),
    "HoldActive ": marked(labels={"remediator.dev/opt-out": "what"}),
    "VetoHold": veto(),
    "KnownOut": {"adopted": frozenset({"gpu-1"})},
    "Blind": {"blind": "the nodes were never read"},
    "Paused": {"policy": a_policy(pause=PAUSE)},
    "Paused ": {"request": playbook(pause=PAUSE)},
    "Paused  ": {"pools": (replace(TRAIN, spec=replace(TRAIN.spec, pause=PAUSE)), BUFFER)},
    "ModeAudit": {"policy": a_policy(max_mode="Audit")},
    "ModeDisabled": {"request": playbook(mode="Disabled")},
    "OwnedByOther": marked(taints=({"key": "karpenter.sh/disrupted", "effect": "PreferNoSchedule"},)),
    "ControlPlane": marked(labels={"node-role.kubernetes.io/control-plane": ""}),
    "IdentityConflict": {"conflicted": frozenset({"gpu-1"})},
    "PoolOverlap": {"pools": (TRAIN, BUFFER, a_pool("gold", membership=TRAIN.spec.membership))},
    "HostsUs": {"own_nodes": frozenset({"gpu-1"})},
    "RunOpen": {"runs": {"gpu-1-1": a_run("gpu-1-1")}},
    "RunOpen ": {"grants": (a_grant("gpu-1-1"),), "policy": a_policy(pool_max_concurrent=9)},
    "NoRepairNamespace": {"policy": a_policy(repair=UNSET)},
    "KeyNotListed": {"policy": a_policy(node_keys=("example.com/pool", "nvidia.com/gpu", "team"))},
    "NoPool": marked(pool=None),
    "ConcurrencyReached": {"grants": tuple(a_grant(f"x-{i}", f"x-{i}", pool="o") for i in range(4))},
    "PoolConcurrencyReached": {"grants": tuple(a_grant(f"x-{i}", f"x-{i}") for i in range(2))},
    "NoSpareReady": {"nodes": [LEAVER, *(a_node(f"n-{i}") for i in range(20))]},
    "RateExceeded": {"status": PolicyStatus(rates=(RateState(scope="fleet", tokens=0.9, at=text(0)),))},
    "BreakerOpen": {"breakers": (BreakerState(scope="fleet", state="Open", since=text(0)),)},
    "OldTerm": {"status": PolicyStatus(term=2)},
}


@pytest.mark.parametrize("code", sorted(CASES))
def test_gate_stops_with_its_reason_code_and_says_why(code):
    """The code is what people search for, the numbers are what they need."""
    found = verdicts(**CASES[code])

    assert code.strip() in [each.stop for each in found.values()]
    assert all(each.numbers for each in found.values())


def test_gates_let_a_healthy_case_through_in_their_order():
    """Nothing stops here, so each stop of the table above has the one cause that it names."""
    assert [*verdicts()] == [name for name, _ in GATES]
    assert stops() == []


@pytest.mark.parametrize(
    ("fields", "code"),
    [(veto(), "VetoHold"), ({"policy": a_policy(max_mode="Audit")}, "ModeAudit")],
    ids=["veto", "mode"],
)
def test_gate_lets_a_person_pass_where_only_the_machine_must_not(fields, code):
    """A person who asks knows of the hold and of the mode; no other gate opens for anybody."""
    assert code in stops(**fields)
    mine = asked(by="ann", trigger="Manual")
    assert stops(mine, **fields) == []
    assert any("ann asked for it" in each.numbers for each in verdicts(mine, **fields).values())


def test_gate_still_asks_for_the_repair_namespace_when_a_person_asks_in_audit():
    """A run that could not be carried to its end must not begin, whoever asks for it."""
    policy = a_policy(max_mode="Audit", repair=UNSET)

    assert stops(asked(by="ann", trigger="Manual"), policy=policy) == ["NoRepairNamespace"]
    assert stops(policy=policy) == ["ModeAudit"]


@pytest.mark.parametrize(
    ("keys", "code"),
    [(("nvidia.com/gpu", "team"), ["KeyNotListed"]), (a_policy().node_keys, [])],
    ids=["missing", "listed"],
)
def test_keys_gate_looks_before_anything_is_harmed(keys, code):
    """A spare that may not be relabelled in the middle of the run leaves the pool short."""
    assert stops(policy=a_policy(node_keys=keys)) == code
    audit = a_policy(node_keys=keys, max_mode="Audit")
    assert stops(policy=audit) == ["ModeAudit"]  # the record of what would have been done still comes
    assert stops(asked(by="ann", trigger="Manual"), policy=audit) == code


def test_budget_gate_counts_a_node_that_is_out_already_as_no_new_harm():
    """A node that serves nobody is bounded by concurrency, rate and breakers only."""
    node = a_node(ready="False")
    out = [a_node(f"out-{number}", unschedulable=True) for number in range(3)]
    nodes = [node, a_spare(), *out, *(a_node(f"n-{number}") for number in range(10))]
    serving = a_request(nodes[-1], *HARD)

    assert stops(a_request(node, *HARD), nodes=nodes) == []
    assert stops(serving, nodes=nodes) == ["MaxUnavailableReached"]


def test_budget_gate_shows_the_arithmetic():
    """A refusal has to be checkable by hand."""
    numbers = verdicts(policy=a_policy(pool_max_unavailable=Limit(percent=5, at_least=1)))["budget"].numbers

    assert numbers == "pool 0 + 1 <= 1 (5 % of 20, at least 1); fleet 0 + 1 <= 1 (2 % of 20, at least 1)"


def detached(*, swapped: bool):
    done = ("quarantine", "swap", "drain", "detach") if swapped else ("quarantine", "drain", "detach")
    steps = tuple(StepStatus(id=each, action=each, state="Done", started_at=text(0)) for each in done)
    return a_run("gone-1", node=a_node("gone"), status=RemediationStatus(state="Detached", steps=steps))


def test_budget_gate_counts_a_detached_machine_until_somebody_takes_its_place():
    """A hole in the pool is a node out of service, also while its machine is in repair."""
    swapped = verdicts(runs={"gone-1": detached(swapped=True)})["budget"]
    alone = verdicts(runs={"gone-1": detached(swapped=False)})["budget"]

    assert (swapped.stop, alone.stop) == ("", "MaxUnavailableReached")
    assert "of 21" in alone.numbers


def test_budget_gate_counts_a_machine_that_has_left_before_its_record_says_so():
    """The patch is seen some milliseconds before its step's end is written: no gap to slip through."""
    steps = tuple(
        StepStatus(id=each, action=each, state="Done" if each != "detach" else "Intent", started_at=text(0))
        for each in ("quarantine", "drain", "detach")
    )
    leaving = RemediationStatus(state="Draining", steps=steps)
    gone = a_run("gone-1", node=a_node("gone"), status=leaving)

    assert verdicts(runs={"gone-1": gone})["budget"].stop == "MaxUnavailableReached"


@pytest.mark.parametrize("kind", ["run", "ledger"])
def test_budget_gate_leaves_adopted_machines_out_of_both_numbers(kind):
    """A machine that people declared known out must not block the others for months."""
    out = Out(run="gone-1", since=text(0), fault_class="gpu.bad", pool="train")
    fields = {
        "run": {"runs": {"gone-1": detached(swapped=False)}},
        "ledger": {"ledgers": {"gone": ManagedNodeStatus(node="gone", out=out)}},
    }[kind]

    assert verdicts(**fields)["budget"].stop == "MaxUnavailableReached"
    assert verdicts(**fields, adopted=frozenset({"gone"}))["budget"].stop == ""


def test_budget_gate_asks_for_every_limit_and_the_tightest_wins():
    """A playbook's own limit only tightens."""
    policy = a_policy(max_unavailable=Limit(count=9), pool_max_unavailable=Limit(count=9))
    strict = playbook(limits=PlaybookLimits(max_unavailable=Limit(count=0)))
    loose = playbook(limits=PlaybookLimits(max_unavailable=Limit(count=20)))

    assert stops(strict, policy=policy) == ["MaxUnavailableReached"]
    assert stops(
        loose, policy=a_policy(max_unavailable=Limit(count=9), pool_max_unavailable=Limit(count=0))
    ) == ["MaxUnavailableReached"]


@pytest.mark.parametrize("trigger", ["Reappeared", "Return"])
def test_gates_let_healing_through_where_harm_stops(trigger):
    """A machine that comes back, by itself or by a person's word, is out already."""
    fields = {
        "breakers": (BreakerState(scope="fleet", state="Open", since=text(0)),),
        "status": PolicyStatus(rates=(RateState(scope="fleet", tokens=0.0, at=text(0)),)),
        "policy": a_policy(max_unavailable=Limit(count=0), pool_max_unavailable=Limit(count=0)),
        "nodes": [LEAVER],
    }

    assert stops(asked(trigger=trigger), **fields) == []
    assert stops(**fields) != []


def test_gates_ask_nothing_of_a_playbook_that_only_reports():
    """Telling people is no harm."""
    fields = {"breakers": (BreakerState(scope="fleet", state="Open", since=text(0)),)}

    assert stops(playbook("report"), policy=a_policy(max_unavailable=Limit(count=0)), **fields) == []


@pytest.mark.parametrize(("no_spare", "stop"), [("Wait", True), ("WithoutSpare", False)])
def test_spare_gate_follows_the_declared_policy(no_spare, stop):
    """No spare is no surprise: the playbook says what then."""
    nodes = [LEAVER, *(a_node(f"n-{number}") for number in range(20))]

    assert ("NoSpareReady" in stops(playbook(no_spare=no_spare), nodes=nodes)) is stop


def test_mode_gate_takes_the_least_of_playbook_pool_and_policy():
    """One pool can be tried before the others."""
    careful = a_pool("train", max_mode="Audit")
    found = verdicts(pools=(careful, BUFFER))["mode"]

    assert found.stop == "ModeAudit"
    assert found.numbers.startswith("pool train says Audit")
