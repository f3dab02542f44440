from __future__ import annotations

import pytest

from bench.burst import timed
from bench.join import Trial
from tests.unit.bench.test_join import BARE, OURS, QUARANTINE, a_record

TRIALS = [Trial(OURS, f"node-{number}", f"id-{number}") for number in (1, 2)]
CONDITIONS = [
    a_record(at, user="harness", subresource="status", name=f"node-{number}", audit_id=f"id-{number}")
    for number, at in ((1, 10), (2, 14))
]
TAINTS = [a_record(at, name=f"node-{number}", taints=(QUARANTINE,)) for number, at in ((2, 30), (1, 45))]


def test_burst_is_timed_from_the_first_condition_to_the_last_taint():
    """In whatever order the nodes come; a later patch of a node does not count."""
    again = a_record(90, name="node-1", taints=(QUARANTINE,))

    found = timed([*CONDITIONS, *TAINTS, again], TRIALS)

    assert (found.last_condition, found.first_taint, found.last_taint) == (4.0, 20.0, 35.0)


@pytest.mark.parametrize(
    "records",
    [
        [*CONDITIONS, TAINTS[0]],
        [*TAINTS, CONDITIONS[0]],
        [*CONDITIONS, TAINTS[0], a_record(45, user=BARE, name="node-1", taints=(QUARANTINE,))],
        [*CONDITIONS, TAINTS[0], a_record(45, name="node-1", taints=(QUARANTINE,), code=409)],
    ],
    ids=["no taint", "no condition", "of the other side", "refused"],
)
def test_burst_that_is_not_whole_is_no_figure(records):
    """A node that was never tainted would make the others look fast."""
    with pytest.raises(ValueError, match="of 2"):
        timed(records, TRIALS)
