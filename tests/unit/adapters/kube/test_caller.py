"""Who asks, in every request: what the API server's audit log is read by."""

from __future__ import annotations

import uuid
from random import Random

from remediator import __version__
from remediator.adapters.kube.caller import STANDBY, Caller


def test_caller_speaks_as_its_role_until_it_has_a_term():
    """A standby's reads must not look like a leader's."""
    caller = Caller(STANDBY, rng=Random(1))
    before = caller.headers()["User-Agent"]
    caller.take_term(7)

    assert before == f"remediator/{__version__} (standby)"
    assert caller.headers()["User-Agent"] == f"remediator/{__version__} (term=7)"


def test_caller_never_uses_an_audit_id_twice():
    """Two requests of one ID would be one line of the story."""
    caller = Caller(STANDBY, rng=Random(1))
    ids = [uuid.UUID(caller.headers()["Audit-ID"]) for _ in range(100)]

    assert len(set(ids)) == 100
    assert {each.version for each in ids} == {4}


def test_audit_ids_follow_from_the_seed():
    """Whoever has the log's first line can tell our requests from those of a forger of our User-Agent."""
    ours, again = (Caller(STANDBY, rng=Random("4 pod-1")) for _ in range(2))
    other = Caller(STANDBY, rng=Random("4 pod-2"))

    assert ours.headers()["Audit-ID"] == again.headers()["Audit-ID"] != other.headers()["Audit-ID"]
