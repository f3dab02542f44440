"""Who is let in: the order, the books, and what becomes of a release that is on its way."""

from __future__ import annotations

import msgspec
import pytest

from remediator.core.joins.decide import Rank, decide_joins, rank_of, settles
from remediator.core.joins.gate import write_mark
from remediator.core.joins.preflight import PREFLIGHT, Verdict
from remediator.model.joins import JoinRate, JoinsSpec, PoolJoins, Release
from remediator.model.keys import ANNOTATION_JOINED
from remediator.model.meta import Rate
from tests.unit.core.builders import T0, a_node, a_pool, at, text
from tests.unit.core.joins.builders import a_look, a_newcomer, books, new_node, stops

ONE = JoinsSpec(mode="Enforce", rate=Rate(count=1, per="1m", burst=1))
PAID = Release(node="gpu-1", uid="uid-gpu-1", pool="train", at=text(0))


def order_of(look) -> list[str]:
    return [place.newcomer.node.name for place in decide_joins(look).queue]


def let_in(look) -> list[str]:
    return [release.node for release in decide_joins(look).released]


def test_the_first_that_came_is_let_in_first():
    """Whatever their names."""
    waiting = [a_newcomer(new_node(name, created_s=s)) for name, s in (("b", 3), ("c", 1), ("a", 2))]

    assert order_of(a_look(waiting)) == ["c", "a", "b"]
    assert let_in(a_look(waiting, spec=ONE)) == ["c"]


def test_what_is_missed_most_has_a_head_start_and_no_more():
    """A replacement passes growth that came up to ten minutes before it, so nobody waits for ever."""
    growth, early = new_node("growth", created_s=-599), new_node("early", created_s=-601)
    missed = a_newcomer(new_node("missed", created_s=0), rank=Rank.REPLACEMENT)
    refill = a_newcomer(new_node("refill", created_s=-302), rank=Rank.REFILL)

    waiting = [a_newcomer(growth), a_newcomer(early), missed, refill]

    assert order_of(a_look(waiting)) == ["refill", "early", "missed", "growth"]


def test_one_bad_node_does_not_stop_the_queue():
    """It keeps its place, with its reason, and those behind it are let in."""
    bad = a_newcomer(new_node("bad", created_s=0), verdict=Verdict("False", "FaultFound", "XID 79"))
    good = a_newcomer(new_node("good", created_s=1))

    decision = decide_joins(a_look([bad, good], spec=ONE))

    assert [(each.number, each.stop and each.stop.reason) for each in decision.queue] == [
        (1, "FaultFound"),
        (2, None),
    ]
    assert [each.node for each in decision.released] == ["good"]


def test_the_evidence_stands_on_the_node_before_the_gate_opens():
    """Whoever asks afterwards finds why."""
    decision = decide_joins(a_look([a_newcomer(new_node(proven=False))]))

    assert stops(decision.queue[0].stop).reason == "EvidencePending"
    assert not decision.released


def test_a_token_is_paid_in_the_books_before_anything_is_done():
    """The books name the Node by its uid, and are what is stored."""
    decision = decide_joins(a_look([a_newcomer(new_node())], spec=ONE))

    assert decision.changed
    assert decision.status.releasing == decision.released == (PAID,)
    assert decision.status.rates == (JoinRate(tokens=0.0, at=text(0)),)
    assert sum(slot.count for slot in decision.status.let_in) == 1


def test_nobody_else_is_let_in_while_one_is_on_its_way():
    """Its patch may land late: until then no other token is worth anything."""
    waiting = [a_newcomer(new_node("gpu-1")), a_newcomer(new_node("gpu-2"))]

    decision = decide_joins(a_look(waiting, status=books(releasing=(PAID,)), now=at(600)))

    assert not decision.released
    assert decision.status.releasing == (PAID,)
    assert [stops(place.stop).reason for place in decision.queue] == ["Releasing", "Releasing"]


@pytest.mark.parametrize(("after_s", "tokens"), [(0, 0.25), (15, 0.5), (60, 1.0), (6_000, 1.0)])
def test_a_release_that_has_landed_frees_the_books(after_s, tokens):
    """The bucket has filled meanwhile, but not past where it is full after a gate that opened just now."""
    inside = a_node("gpu-1", annotations={ANNOTATION_JOINED: write_mark("uid-gpu-1", T0)})
    stored = books(releasing=(PAID,), rates=(JoinRate(tokens=0.25, at=text(0)),))
    spec = JoinsSpec(mode="Enforce", rate=Rate(count=1, per="1m", burst=2))

    decision = decide_joins(a_look([], others=[inside], spec=spec, status=stored, now=at(after_s)))

    assert decision.changed
    assert decision.status.releasing == ()
    assert decision.status.rates == (JoinRate(tokens=tokens, at=text(after_s)),)


def test_what_is_still_on_its_way_counts_against_the_full_bucket_too():
    """It may land at any moment: until then no more than the rest may pile up. Of its own pool as well."""
    inside = a_node("gpu-1", annotations={ANNOTATION_JOINED: write_mark("uid-gpu-1", T0)})
    late = Release(node="gpu-2", uid="uid-gpu-2", pool="other", at=text(0))
    rates = tuple(JoinRate(pool=pool, tokens=0.0, at=text(0)) for pool in ("", "other", "train"))
    own = PoolJoins(rate=Rate(count=1, per="1s", burst=3))
    pools = {name: a_pool(name, joins=own).spec for name in ("train", "other")}
    spec = JoinsSpec(mode="Enforce", rate=Rate(count=1, per="1s", burst=5))
    stored = books(releasing=(PAID, late), rates=rates)

    look = a_look(
        [a_newcomer(new_node("gpu-2"))], others=[inside], spec=spec, pools=pools, status=stored, now=at(600)
    )
    decision = decide_joins(look)

    assert decision.status.releasing == (late,)
    assert {each.pool: each.tokens for each in decision.status.rates} == {"": 3.0, "other": 2.0, "train": 2.0}


@pytest.mark.parametrize(
    "others",
    [[], [new_node("gpu-1", uid="another")], [new_node("gpu-1", proven=False)]],
    ids=["deleted", "created anew", "found unfit"],
)
def test_a_release_that_can_not_land_any_more_is_struck_off(others):
    """One node that goes must not keep all others waiting."""
    stored = books(releasing=(PAID,))

    assert decide_joins(a_look([], others=others, status=stored)).status.releasing == ()


def test_a_new_leader_gives_up_what_filled_while_nobody_led():
    """Two leaders, two clocks: the gap is worth nothing."""
    stored = books(rates=(JoinRate(tokens=0.5, at=text(0)),))
    waiting = [a_newcomer(new_node())]

    decision = decide_joins(a_look(waiting, spec=ONE, status=stored, now=at(600), term=2))

    assert not decision.released
    assert decision.status.rates == (JoinRate(tokens=0.5, at=text(600)),)
    assert decision.status.term == 2


def test_the_first_look_puts_the_gate_into_force():
    """Whoever was there before is never gated."""
    decision = decide_joins(a_look([], status=books(mode="", gate="", since="")))

    assert (decision.status.mode, decision.status.since) == ("Enforce", text(0))
    assert decision.status.gate == ONE.gate


def test_another_key_waits_until_nobody_carries_the_old_one():
    """Else the nodes that wait would be shut for ever."""
    spec = JoinsSpec(mode="Enforce", gate="example.com/joining")

    kept = decide_joins(a_look([a_newcomer(new_node(proven=False))], spec=spec)).status
    moved = decide_joins(a_look([], spec=spec)).status

    assert kept.gate == ONE.gate
    assert (moved.gate, moved.since) == ("example.com/joining", text(0))


def test_audit_pays_and_lets_nobody_in():
    """What would have been let in counts against the rate of Audit, and no patch follows."""
    look = a_look([a_newcomer(new_node(proven=False))], mode="Audit", status=books(mode="Audit"))

    decision = decide_joins(look)

    assert [each.node for each in decision.released] == ["gpu-1"]
    assert decision.status.releasing == ()
    assert decision.status.rates[0].tokens == 9.0


def test_nothing_to_do_changes_no_books():
    """An idle cluster writes nothing."""
    assert not decide_joins(a_look([])).changed


def test_a_node_settles_until_it_serves():
    """Or for ten minutes: then it is no longer the join that keeps it."""
    mark = {ANNOTATION_JOINED: write_mark("uid-gpu-1", T0)}
    starting = a_node(ready="False", annotations=mark)

    assert settles(starting, a_pool(), (), at(10))
    assert settles(starting, None, (), at(10))
    assert not settles(starting, a_pool(), (), at(601))
    assert not settles(a_node(annotations=mark), a_pool(), (), at(10))
    assert not settles(a_node(ready="False"), a_pool(), (), at(10))


@pytest.mark.parametrize(
    ("pool", "missing", "rank"),
    [
        (a_pool(), 1, Rank.REPLACEMENT),
        (a_pool(), 0, Rank.GROWTH),
        (a_pool("buffer", "Buffer"), 1, Rank.REFILL),
        (None, 1, Rank.GROWTH),
    ],
)
def test_rank_says_what_a_new_node_is_for(pool, missing, rank):
    """A pool from which faults have taken members is served first."""
    assert rank_of(pool, missing) is rank


def test_a_node_with_no_readable_age_comes_last():
    """It is let in all the same."""
    odd = msgspec.structs.replace(new_node("odd"), created_at="")

    assert order_of(a_look([a_newcomer(odd), a_newcomer(new_node("new", created_s=50))])) == ["new", "odd"]


def test_the_condition_is_called_what_the_docs_call_it():
    """People wait for it with kubectl."""
    assert PREFLIGHT == "PreflightPassed"
