"""Which keys of a pool are not ours to write."""

from __future__ import annotations

import pytest

from remediator.core.own_keys import keys_of, not_ours
from remediator.model.meta import Taint
from tests.unit.core.builders import BUFFER, NODE_KEYS, TRAIN, a_pool, a_projection


def test_keys_of_a_pool_are_membership_and_the_whole_projection():
    """What is forgotten here is refused by the server in the middle of a run."""
    pool = a_pool(
        projection=a_projection(
            Taint(key="t", effect="NoSchedule"), labels={"l": "x"}, annotations={"a": "x"}
        )
    )

    assert keys_of(pool.spec) == {"example.com/pool", "t", "l", "a"}
    assert keys_of(a_pool().spec) == {"example.com/pool"}


@pytest.mark.parametrize(
    ("key", "listed", "expected"),
    [
        ("example.com/x", (), ("example.com/x",)),
        ("example.com/x", ("example.com/x",), ()),
        ("example.com/x", ("example.com/",), ("example.com/x",)),
        ("remediator.dev/x", (), ()),
        ("remediator.dev.example.com/x", (), ("remediator.dev.example.com/x",)),
        ("topology.kubernetes.io/zone", ("topology.kubernetes.io/zone",), ("topology.kubernetes.io/zone",)),
        ("kubernetes.io/hostname", ("kubernetes.io/hostname",), ("kubernetes.io/hostname",)),
        ("node-role.kubernetes.io/gpu", ("node-role.kubernetes.io/gpu",), ()),
    ],
)
def test_a_key_is_ours_by_our_group_or_by_the_list(
    key: str, listed: tuple[str, ...], expected: tuple[str, ...]
):
    """Whole keys, no prefixes; and what a node physically is no list gives away."""
    pool = a_pool(projection=a_projection(labels={key: "x"}))

    assert not_ours(pool.spec, (*listed, "example.com/pool")) == expected


def test_without_a_list_only_our_own_group_is_ours():
    """A missing list is the tightest one."""
    assert not_ours(TRAIN.spec, ()) == ("example.com/pool", "nvidia.com/gpu", "team")
    assert not_ours(TRAIN.spec, NODE_KEYS) == not_ours(BUFFER.spec, NODE_KEYS) == ()
