"""When those who wait will be let in, as far as only the clock keeps them out."""

from __future__ import annotations

from remediator.core.joins.decide import decide_joins
from remediator.core.joins.preflight import Verdict
from remediator.model.joins import JoinRate, JoinsSpec, PoolJoins
from remediator.model.meta import Rate
from tests.unit.core.builders import a_pool, text
from tests.unit.core.joins.builders import a_look, a_newcomer, books, new_node

SPEC = JoinsSpec(mode="Enforce", rate=Rate(count=6, per="1m", burst=2))


def test_each_waits_for_its_own_token():
    """Two go in at once, and then one every ten seconds; who is not fit takes nobody's turn."""
    waiting = [a_newcomer(new_node(f"n{number}", created_s=number)) for number in range(4)]
    unfit = a_newcomer(new_node("bad", created_s=-1), verdict=Verdict("Unknown", "NotReady", ""))

    expected = decide_joins(a_look([unfit, *waiting], spec=SPEC)).expected

    assert expected == {"n0": 0.0, "n1": 0.0, "n2": 10.0, "n3": 20.0}


def test_a_slow_pool_makes_its_nodes_wait_longer():
    """Both buckets have to have a token."""
    pools = {"train": a_pool(joins=PoolJoins(rate=Rate(count=1, per="1m"))).spec}
    rates = (JoinRate(tokens=0.0, at=text(0)), JoinRate(pool="train", tokens=0.0, at=text(0)))
    waiting = [a_newcomer(new_node(f"n{number}", created_s=number)) for number in range(2)]

    look = a_look(waiting, spec=SPEC, pools=pools, status=books(rates=rates))

    assert decide_joins(look).expected == {"n0": 60.0, "n1": 120.0}
