from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from bench.failover import first_term
from remediator.adapters.audit import AuditRecord
from tests.unit.bench.test_join import T0, a_record


def a_policy(at_ms: float, term: int, *, code: int = 200) -> AuditRecord:
    record = a_record(at_ms, verb="update", resource="remediationpolicies", subresource="status", code=code)
    body = msgspec.Raw(msgspec.json.encode({"status": {"term": term}}))
    return msgspec.structs.replace(record, request_object=body)


def test_successor_leads_from_its_first_write_of_the_highest_term():
    """The old leader's last words, and what was refused, are no leadership."""
    records = [a_policy(5, 4), a_policy(20, 5, code=409), a_policy(30, 5), a_policy(40, 5), a_record(1)]

    assert first_term(records) == T0 + timedelta(milliseconds=30)


def test_nobody_led_is_no_figure():
    """A gap without an end must not be published as a short one."""
    with pytest.raises(ValueError, match="no write of a term"):
        first_term([a_record(1)])
