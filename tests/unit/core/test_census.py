"""Head counts kept node by node are the same as counted at once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from remediator.core.census import Census
from remediator.model.pool import Membership
from tests.unit.core.builders import BUFFER, TRAIN, a_node, a_pool

POOLS = (TRAIN, BUFFER)
changes = st.lists(
    st.tuples(
        st.sampled_from(["n-0", "n-1", "n-2"]),
        st.one_of(
            st.none(),
            st.tuples(st.sampled_from(["train", "buffer", "other", None]), st.booleans(), st.booleans()),
        ),
    ),
    max_size=25,
)


def counted(census):
    return {
        pool.metadata.name: (
            census.size(pool.metadata.name),
            sorted(census.members(pool.metadata.name)),
            dict(census.out(pool.metadata.name)),
        )
        for pool in POOLS
    } | {name: census.home(name) for name in ("n-0", "n-1", "n-2")}


@given(changes)
def test_census_of_updates_equals_a_rebuild(history):
    """Budgets are judged by these numbers: a count that drifts is a limit that lies."""
    census, nodes = Census(), {}
    census.rebuild((), POOLS, ())
    for name, change in history:
        node = None
        if change is not None:
            pool, ready, cordoned = change
            node = a_node(name, pool=pool, ready="True" if ready else "False", unschedulable=cordoned)
        nodes[name] = node
        census.update(name, node)
    fresh = Census()
    fresh.rebuild((node for node in nodes.values() if node is not None), reversed(POOLS), ())

    assert counted(census) == counted(fresh)


GOLD = a_pool("gold", membership=Membership(key="tier", value="gold"))


def test_census_names_nodes_of_two_pools_until_they_have_one():
    """Each pool's budget would count such a node by itself, and both would be wrong."""
    census = Census()
    both = a_node("n-0", labels={"tier": "gold"})
    census.rebuild([both, a_node("n-1")], (TRAIN, BUFFER, GOLD), ())

    assert census.home("n-0") == "gold"
    assert dict(census.several) == {"n-0": ("gold", "train")}
    assert dict(census.sharing("train")) == {"gold": "n-0"}
    assert dict(census.sharing("buffer")) == {}
    census.update("n-0", a_node("n-0"))
    assert (dict(census.several), census.home("n-0")) == ({}, "train")


def test_census_of_nothing_is_empty():
    """Before the first rebuild, and for a pool that nobody knows, there is nobody."""
    census = Census()
    census.update("n-0", a_node("n-0"))

    assert (census.home("n-0"), census.size("train"), census.members("x"), census.out("x")) == (
        None,
        0,
        frozenset(),
        {},
    )


def test_census_says_why_a_member_does_not_serve():
    """Status and why name the reason, not only the number."""
    census = Census()
    census.rebuild([a_node("n-0", unschedulable=True), a_node("n-1")], POOLS, ())

    assert census.out("train") == {"n-0": "Cordoned"}
    assert census.size("train") == 2
