"""What stood before us, as an annotation that anybody may have edited."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from remediator.core.prior import Prior, parse_prior, read_prior, write_prior
from tests.unit.core.builders import a_node

words = st.dictionaries(st.text(max_size=9), st.text(max_size=9), max_size=3)


@given(st.booleans(), words, words, st.lists(st.dictionaries(st.text(max_size=5), st.integers()), max_size=3))
def test_prior_survives_writing_and_reading(cordoned, labels, annotations, taints):
    """What is lost here is lost for the node."""
    raws = tuple(msgspec.Raw(msgspec.json.encode(each)) for each in taints)
    prior = Prior(unschedulable=cordoned, labels=labels, annotations=annotations, taints=raws)
    found = parse_prior(write_prior(prior))

    assert found is not None
    assert (found.unschedulable, found.labels, found.annotations) == (cordoned, labels, annotations)
    assert [msgspec.json.decode(each) for each in found.taints] == taints


@pytest.mark.parametrize("note", ["", "no", "[]", '{"unschedulable": 7}', '{"labels": {"a": 1}}'])
def test_prior_that_cannot_be_read_is_none(note):
    """Garbage must neither stop a run nor be taken for "nothing was there"."""
    assert parse_prior(note) is None
    assert read_prior(a_node(annotations={"remediator.dev/prior": note})) is None


def test_prior_of_a_later_version_is_read():
    """A downgrade must not break the nodes in flight."""
    assert parse_prior('{"unschedulable": true, "later": 1}') == Prior(unschedulable=True)
    assert parse_prior("{}") == Prior()
