from __future__ import annotations

import pytest

from bench.hard_fault import PODS, outcome
from remediator.adapters.audit import AuditRecord
from tests.unit.bench.test_join import QUARANTINE, T0, a_record

NODE, SPARE = "gpu-a-02", "gpu-a-08"
TAINT = a_record(40, name=NODE, taints=(QUARANTINE,))
JOIN = a_record(70, name=SPARE)


def eviction(number: int, at: float, *, code: int = 201) -> AuditRecord:
    return a_record(
        at,
        verb="create",
        resource="pods",
        subresource="eviction",
        name=f"load-{NODE}-x-{number}",
        audit_id=f"e-{number}-{code}",
        code=code,
    )


EVICTIONS = [eviction(number, 100.0 + 10 * number) for number in range(PODS)]


def test_fault_is_timed_from_its_page_and_pods_by_what_the_server_accepted():
    refused = eviction(3, 105.0, code=429)
    later = a_record(900, name=SPARE)

    found = outcome("remediator", [later, *EVICTIONS, refused, JOIN, TAINT], T0, node=NODE, spare=SPARE)

    assert (found.taint_ms, found.spare_ms) == (40.0, 70.0)
    assert found.calls_per_pod == pytest.approx((PODS + 1) / PODS)
    # From when the first was received until the last was committed.
    assert found.evictions_per_s == pytest.approx(PODS / 0.291, rel=0.02)


@pytest.mark.parametrize("missing", [TAINT, JOIN, EVICTIONS[0]], ids=["taint", "spare", "a pod"])
def test_fault_that_is_not_whole_is_no_figure(missing):
    records = [each for each in (*EVICTIONS, JOIN, TAINT) if each is not missing]

    with pytest.raises(ValueError, match=NODE):
        outcome("remediator", records, T0, node=NODE, spare=SPARE)
