"""The fleet pass: never above the budget, one spare for one leaver, in any order, after any restart."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from remediator.core.budget import resolve
from remediator.core.fleet import Standing, decide_fleet, fresh_marks, label_value, standing_grants
from remediator.model.ledger import ManagedNodeStatus, Out
from remediator.model.meta import Limit, Rate
from remediator.model.playbook import PlaybookLimits
from remediator.model.policy import FaultMark, PolicyStatus
from remediator.model.pool import TopologyLevel
from remediator.model.remediation import RemediationStatus, StepStatus
from tests.unit.core.builders import (
    BUFFER,
    HARD,
    POOL_KEY,
    SOFT,
    T0,
    TRAIN,
    a_fault,
    a_fleet,
    a_fleetwide,
    a_grant,
    a_node,
    a_playbook,
    a_policy,
    a_pool,
    a_request,
    a_run,
    at,
    quarantined,
    text,
)
from tests.unit.core.tiny_world import a_spare

WIDE = {
    "max_unavailable": Limit(percent=100),
    "pool_max_unavailable": Limit(percent=100),
    "max_concurrent": 100,
    "pool_max_concurrent": 100,
    "rate": Rate(count=1_000, per="1h", burst=1_000),
}


def members(count, **fields):
    return [a_node(f"gpu-{number:02}", **fields) for number in range(count)]


def decided(nodes, requests, *, faults=(), **fields):
    return decide_fleet(a_fleet(nodes, **fields), requests, faults)


def stages(*done, intent=""):
    steps = [StepStatus(id=each, action=each, state="Done", started_at=text(0)) for each in done]
    if intent:
        steps.append(StepStatus(id=intent, action=intent, state="Intent", started_at=text(0)))
    return RemediationStatus(state="Granted", steps=tuple(steps))


fleets = st.lists(
    st.sampled_from(["ok", "ok", "ok", "cordoned", "unready", "adopted"]), min_size=1, max_size=20
)
limits = st.one_of(
    st.builds(
        lambda percent, floor: Limit(percent=percent, at_least=floor), st.integers(1, 100), st.integers(0, 3)
    ),
    st.builds(lambda count: Limit(count=count), st.integers(0, 6)),
)


@given(fleets, limits, limits, st.integers(1, 6), st.data())
def test_fleet_never_takes_more_serving_nodes_than_the_budgets_allow(kinds, pool, fleet, concurrent, data):
    """Whatever the fleet looks like and whoever asks: out of service stays within every limit."""
    nodes = [
        a_node(
            f"n-{index:02}", unschedulable=kind == "cordoned", ready="False" if kind == "unready" else "True"
        )
        for index, kind in enumerate(kinds)
    ]
    adopted = {f"n-{index:02}" for index, kind in enumerate(kinds) if kind == "adopted"}
    askers = data.draw(st.permutations(nodes))
    policy = a_policy(
        **WIDE | {"max_unavailable": fleet, "pool_max_unavailable": pool, "max_concurrent": concurrent}
    )
    requests = [a_request(node, "quarantine", "drain") for node in askers]
    decision = decided(nodes, requests, policy=policy, adopted=frozenset(adopted))

    out = {node.name for node in nodes if node.unschedulable or not node.ready}
    granted = {each.request.node.name for each in decision.granted}
    size = len(nodes) - len(adopted)
    assert not granted & adopted
    assert len(granted) <= concurrent
    if granted - out:
        assert len(out | granted) <= min(resolve(pool, size), resolve(fleet, size))


@given(st.permutations(range(6)))
def test_fleet_decides_the_same_in_any_order_of_requests(order):
    """Lists come in any order; a plan that flaps can't be believed."""
    nodes = [*members(6), a_spare(), a_spare("spare-2")]
    requests = [a_request(nodes[number], *HARD, since=at(number)) for number in range(6)]
    policy = a_policy(**WIDE)
    first = decided(nodes, requests, policy=policy)
    again = decided(nodes, [requests[number] for number in order], policy=policy)

    assert again.status == first.status
    assert [each.run for each in again.granted] == [each.run for each in first.granted]


@given(st.permutations(range(5)), st.integers(0, 5))
def test_fleet_gives_each_spare_to_one_run_only(order, spares):
    """A spare is used once, whoever asks first."""
    nodes = members(5) + [a_spare(f"spare-{number}") for number in range(spares)]
    requests = [a_request(nodes[number], *HARD, since=at(order[number])) for number in range(5)]
    decision = decided(nodes, requests, policy=a_policy(**WIDE))
    claimed = [grant.spare for grant in decision.status.grants]

    assert len(claimed) == len(set(claimed)) == min(5, spares)
    assert all(claimed)
    assert {each.blocked_by.stop for each in decision.refused} <= {"NoSpareReady"}


def test_fleet_takes_hard_before_soft_and_then_by_priority_and_age():
    """With room for one, it is the one that serves nobody."""
    nodes = members(20)
    soft = a_request(nodes[0], playbook=a_playbook("quarantine", "drain", severity="Soft", priority=999))
    old = a_request(nodes[1], "quarantine", "drain", since=at(-60))
    young = a_request(nodes[2], "quarantine", "drain")
    decision = decided(nodes, [soft, young, old], policy=a_policy(max_unavailable=Limit(count=1)))

    assert [each.request for each in decision.granted] == [old]


def test_fleet_enters_the_grant_with_the_spare_and_the_run_with_its_plan():
    """The claim is the grant, and the record is complete at birth."""
    leaver = a_node()
    decision = decided([leaver, *members(4), a_spare()], [a_request(leaver, *HARD)])
    (granted,) = decision.granted
    (grant,) = decision.status.grants

    assert (grant.run, grant.uid, grant.pool, grant.spare) == ("gpu-1-1", leaver.uid, "train", "spare-1")
    assert granted.run.spec.spare.uid == "uid-spare-1"
    assert len(granted.run.spec.plan) == len(HARD)
    assert granted.run.spec.playbook.text
    assert len(msgspec.json.encode(grant)) <= 200


def test_fleet_counts_a_playbooks_grants_of_the_same_pass():
    """maxConcurrent holds in one pass too: the runs of this pass are nobody's open runs yet."""
    nodes = members(10)
    playbook = a_playbook("quarantine", "drain", limits=PlaybookLimits(max_concurrent=1))
    requests = [a_request(node, playbook=playbook) for node in nodes]
    decision = decided(nodes, requests, policy=a_policy(**WIDE))

    assert len(decision.granted) == 1
    assert {each.blocked_by.stop for each in decision.refused} == {"PlaybookConcurrency"}


def test_fleet_counts_nodes_of_no_pool_among_each_other():
    """Outside every pool the fleet's limit is the only one there is."""
    stray = [a_node(f"stray-{number}", pool=None) for number in range(3)]
    requests = [a_request(node, "quarantine", "drain") for node in stray]
    decision = decided(
        members(20) + stray, requests, policy=a_policy(**WIDE | {"max_unavailable": Limit(count=1)})
    )

    assert len(decision.granted) == 1


def test_fleet_grants_a_node_once_while_its_run_is_not_seen():
    """A POST without an answer must not become two grants, or two spares."""
    leaver = a_node()
    nodes = [leaver, *members(20), a_spare(), a_spare("spare-2")]
    first = decided(nodes, [a_request(leaver, *HARD)])
    again = decided(nodes, [a_request(leaver, *HARD)], status=first.status, now=at(5))

    assert again.granted == ()
    assert again.status.grants == first.status.grants
    assert again.refused[0].blocked_by.stop == "RunOpen"


def test_fleet_never_claims_a_node_that_is_about_to_leave():
    """Two requests in one pass: a buffer node that is granted itself is nobody's spare."""
    leaver, spare = a_node(), a_spare()
    manual = a_request(spare, "quarantine", "drain", by="ann", trigger="Manual", since=at(-60))
    decision = decided([leaver, *members(20), spare], [manual, a_request(leaver, *HARD)])

    assert [each.request.node.name for each in decision.granted] == ["spare-1"]
    assert decision.refused[0].blocked_by.stop == "NoSpareReady"


def test_fleet_never_remediates_a_node_that_is_claimed_as_spare():
    """The other way round: a claimed spare waits until it is handed over or freed."""
    leaver, spare = a_node(), a_spare()
    manual = a_request(spare, "quarantine", "drain", by="ann", trigger="Manual")
    early = a_request(leaver, *HARD, since=at(-60))
    decision = decided([leaver, *members(20), spare], [early, manual])

    assert [each.request.node.name for each in decision.granted] == ["gpu-1"]
    assert decision.refused[0].blocked_by.stop == "ReservedAsSpare"


def test_fleet_gives_a_buffer_node_no_replacement():
    """A spare that falls sick leaves the buffer; nothing takes its place, least of all itself."""
    sick = a_spare()
    decision = decided([sick, a_spare("spare-2"), *members(20)], [a_request(sick, *HARD)])

    assert len(decision.granted) == 1
    assert decision.status.grants[0].spare == ""


def test_fleet_passes_a_spare_that_is_the_only_choice_of_another():
    """Two faults and two spares end in two swaps, also where one spare fits only one of them."""
    pool = a_pool("train", topology=(TopologyLevel(key="zone", match="Required"),))
    other = a_pool("infer")
    near = a_node("gpu-a", labels={"zone": "a"}, ready="False")
    far = a_node("gpu-b", pool="infer", labels={"zone": "b"}, ready="False")
    spares = [
        replace(a_spare("spare-1")),
        replace(a_spare("spare-2"), labels={POOL_KEY: "buffer", "zone": "z"}),
    ]
    requests = [a_request(far, *HARD, since=at(-60)), a_request(near, *HARD)]
    decision = decided([near, far, *spares], requests, pools=(pool, other, BUFFER), policy=a_policy(**WIDE))

    assert {each.run: each.spare for each in decision.status.grants} == {
        "gpu-b-1": "spare-2",
        "gpu-a-1": "spare-1",
    }


# -- Audit


def test_fleet_only_notes_what_it_would_do_in_audit():
    """The mode is a gate in core: no grant, no token, no claim is taken."""
    leaver = a_node()
    nodes = [leaver, *members(20), a_spare()]
    playbook = a_playbook(*HARD, mode="Audit")
    decision = decided(nodes, [a_request(leaver, playbook=playbook)])

    assert (decision.granted, decision.status, decision.changed) == ((), PolicyStatus(term=1), False)
    assert [each.run.spec.mode for each in decision.would_act] == ["Audit"]
    assert decision.shadows[0].spare == "spare-1"


def test_fleet_lets_shadow_grants_limit_each_other_and_nothing_real():
    """A week of Audit shows what the budgets would have done, and costs no real fault its turn."""
    nodes = [*members(20), a_spare()]
    audit = a_playbook(*HARD, name="audit", mode="Audit")
    requests = [a_request(nodes[number], playbook=audit) for number in range(3)]
    first = decided(nodes, requests)
    real = decided(nodes, [a_request(nodes[5], *HARD)], shadows=first.shadows)

    assert (len(first.would_act), len(first.refused)) == (1, 2)
    assert len(real.granted) == 1


# -- the life of a grant


def test_grant_stands_until_the_node_is_detached():
    """maxConcurrent counts from the grant to Detached, not longer."""
    node = a_node()
    states = {
        "begun": stages("quarantine", intent="drain"),
        "detached": stages("quarantine", "drain", "detach", intent="repair"),
        "ended": replace(stages("quarantine"), state="Failed"),
    }
    kept = {
        name: len(
            standing_grants(
                a_fleet(
                    [node],
                    runs={"m-1": a_run(status=status)},
                    status=PolicyStatus(grants=(a_grant(),)),
                )
            ).grants
        )
        for name, status in states.items()
    }

    assert kept == {"begun": 1, "detached": 0, "ended": 0}


def test_grant_comes_back_when_somebody_empties_the_status():
    """What is under way counts, whatever the books say."""
    run = a_run(status=stages("quarantine", intent="swap"), spare=a_spare())
    found = standing_grants(a_fleet([a_node(), a_spare()], runs={"m-1": run}))
    grants, orphans = found.grants, found.orphans

    assert [(grant.run, grant.spare) for grant in grants] == [("m-1", "spare-1")]
    assert orphans == ()


def test_grant_that_comes_back_claims_no_spare_of_another_run():
    """Two runs must never hold one spare, not even after a wipe of the books."""
    runs = {
        name: a_run(name, status=stages("quarantine", intent="swap"), spare=a_spare())
        for name in ("a-1", "b-1")
    }
    grants = standing_grants(a_fleet([a_node(), a_spare()], runs=runs)).grants

    assert sorted(grant.spare for grant in grants) == ["", "spare-1"]


def test_run_without_grant_and_without_a_step_is_an_orphan():
    """Its grant never landed, so nothing was done: it ends as NotGranted."""
    fleet = a_fleet([a_node()], runs={"m-1": a_run()})

    assert standing_grants(fleet) == Standing((), ("m-1",))
    assert standing_grants(replace(fleet, in_flight=frozenset({"m-1"}))) == Standing(())


def test_grant_of_an_unseen_run_stands_for_a_minute():
    """A POST may be answered late; a run that never appears frees its grant."""
    status = PolicyStatus(grants=(a_grant(),))
    found = [standing_grants(a_fleet([a_node()], status=status, now=at(seconds))) for seconds in (0, 59, 60)]
    ended = standing_grants(a_fleet([a_node()], status=status, ended_runs=frozenset({"m-1"})))

    assert [len(each.grants) for each in found] == [1, 1, 0]
    assert [len(each.dropped) for each in found] == [0, 0, 1], "and it is told"
    assert ended == Standing(()), "a run that ended gives its grant back, which is no news"


def test_claim_ends_after_half_an_hour_without_a_hand_over():
    """Nothing leaks: a run that stands still must not keep a spare from others."""
    run = a_run(status=stages(intent="quarantine"))
    status = PolicyStatus(grants=(a_grant(spare="spare-1"),))
    kept = [
        standing_grants(a_fleet([a_node(), a_spare()], runs={"m-1": run}, status=status, now=at(seconds)))
        .grants[0]
        .spare
        for seconds in (1_800, 1_801)
    ]

    assert kept == ["spare-1", ""]


def test_claim_ends_with_its_swap_step():
    """Also a skipped swap frees what was claimed for it."""
    for state in ("Done", "Skipped"):
        status = stages("quarantine", "swap")
        skipped = replace(status, steps=(*status.steps[:-1], replace(status.steps[-1], state=state)))
        fleet = a_fleet(
            [a_node(), a_spare()],
            runs={"m-1": a_run(status=skipped)},
            status=PolicyStatus(grants=(a_grant(spare="spare-1"),)),
        )

        assert standing_grants(fleet).grants[0].spare == ""


def test_claim_of_a_spare_that_joined_already_never_ends():
    """Else a leader that wakes up late would hand a second spare over for one leaver."""
    joined = a_node("spare-1")
    fleet = a_fleet(
        [a_node(), joined, a_spare("spare-2")],
        runs={"m-1": a_run(status=stages("quarantine", intent="swap"), spare=joined)},
        status=PolicyStatus(grants=(a_grant(spare="spare-1"),)),
        now=at(7_200),
    )

    assert decide_fleet(fleet, (), ()).status.grants[0].spare == "spare-1"


def test_fleet_swaps_a_claim_whose_spare_turned_sick():
    """Within its claim a sick spare is replaced, and the old one is free again."""
    run = a_run(status=stages("quarantine", intent="swap"), spare=a_spare())
    fleet = a_fleet(
        [a_node(), a_spare(), a_spare("spare-2")],
        runs={"m-1": run},
        status=PolicyStatus(grants=(a_grant(spare="spare-1"),)),
        fleetwide=a_fleetwide(sick={"spare-1": "xid 48"}),
    )

    assert [grant.spare for grant in decide_fleet(fleet, (), ()).status.grants] == ["spare-2"]


# -- breakers


def test_fleet_stops_new_harm_in_a_storm_and_goes_on_with_what_is_under_way():
    """Many nodes at once with one code are a job or a driver, not broken hardware."""
    nodes = members(20)
    faults = [a_fault(node.name) for node in nodes[:8]]
    requests = [a_request(node, "quarantine", "drain") for node in nodes[:8]]
    run = a_run(node=nodes[19], status=stages("quarantine", intent="drain"))
    decision = decided(
        nodes,
        requests,
        faults=faults,
        policy=a_policy(**WIDE),
        runs={"m-1": run},
        status=PolicyStatus(grants=(a_grant(node="gpu-19"),)),
    )

    assert decision.granted == ()
    assert {each.blocked_by.stop for each in decision.refused} == {"BreakerOpen"}
    assert len(decision.status.grants) == 1


def test_fleet_does_not_count_old_faults_again_after_a_restart():
    """Ten faults that are known already are not one storm."""
    known = {
        "gpu-01": ManagedNodeStatus(out=Out(run="gpu-01-1", since=text(-9), fault_class="gpu.bad")),
    }
    view = a_fleet(
        members(9),
        ledgers=known,
        runs={"gpu-02-1": a_run("gpu-02-1")},
        audited=frozenset({("gpu-03", "gpu.bad")}),
        status=PolicyStatus(recent_faults=(FaultMark(machine="gpu-04", fault_class="gpu.bad", at=text(0)),)),
    )
    faults = [a_fault(f"gpu-0{number}") for number in range(6)]
    stale = a_fault("gpu-08", confirmed_at=at(-601))

    assert [mark.machine for mark in fresh_marks(view, [*faults, stale])] == ["gpu-00", "gpu-05"]


# -- records


def test_fleet_is_unchanged_when_nothing_happens():
    """An idle fleet writes nothing: the status is compared, not rewritten."""
    run = a_run(status=stages("quarantine", intent="drain"))
    decision = decided(
        [quarantined(a_node())], (), runs={"m-1": run}, status=PolicyStatus(grants=(a_grant(),))
    )

    assert not decision.changed


def test_fleet_refuses_a_plan_that_is_not_the_one_asked_for():
    """Approval binds to the plan's hash: what changed meanwhile has to be looked at again."""
    leaver = a_node()
    request = a_request(leaver, *SOFT, by="ann", trigger="Manual", plan_hash="deadbeef")
    decision = decided([leaver, *members(20), a_spare()], [request])

    assert decision.granted == ()
    assert decision.refused[0].blocked_by.stop == "PlanStale"
    assert decision.status.grants == ()


def test_label_value_ends_in_a_letter_or_digit():
    """A cut at 63 characters in the middle of a domain name would be refused by the API server."""
    name = "a" * 62 + ".example.com"

    assert label_value(name) == "a" * 62
    assert label_value("gpu-1") == "gpu-1"


def test_fleet_without_policy_object_only_audits():
    """A missing policy puts every playbook into Audit."""
    leaver = a_node()
    decision = decided([leaver, *members(20), a_spare()], [a_request(leaver, *HARD)], policy_exists=False)

    assert decision.granted == ()
    assert len(decision.would_act) == 1


def test_fleet_looks_at_one_instant():
    """The view carries its own clock reading, the grant its time."""
    leaver = a_node()
    decision = decided([leaver, *members(20), a_spare()], [a_request(leaver, *HARD)], pools=(TRAIN, BUFFER))

    assert decision.status.grants[0].at == text(0)
    assert a_fleet([leaver]).now == T0
