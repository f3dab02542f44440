"""What each reply of the API server means; texts are copied from a 1.36.4 server."""

from __future__ import annotations

import msgspec
import pytest

from remediator.adapters.kube.errors import NotSentError, check_read, classify_write, missing_rule, unanswered
from remediator.errors import PermanentError, TransientError
from remediator.ports import Outcome, Refusal, Response

WHAT = "PATCH /api/v1/nodes/a"
CRS = "GET /apis/remediator.dev/v1alpha1/remediations"
FENCED = (
    "nodes \"a\" is forbidden: ValidatingAdmissionPolicy 'remediator-fencing' with binding "
    "'remediator-fencing' denied request: term 3 is older than term 4 of RemediationPolicy/cluster; "
    "another leader has taken over"
)


def a_reply(status: int, message: str = "", reason: str = "", **details: object) -> Response:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": status}
    body |= {"reason": reason} if reason else {}
    return Response(status, {}, msgspec.json.encode(body | ({"details": details} if details else {})))


@pytest.mark.parametrize(
    ("reply", "outcome", "refusal"),
    [
        (Response(200, {}, b"{}"), Outcome.APPLIED, Refusal.NONE),
        (Response(201, {}, b"{}"), Outcome.APPLIED, Refusal.NONE),
        (Response(200, {}, b'{"metadata": {"na'), Outcome.UNKNOWN, Refusal.NONE),
        (Response(200, {}, b"<html>welcome</html>"), Outcome.UNKNOWN, Refusal.NONE),
        (Response(201, {}, b""), Outcome.UNKNOWN, Refusal.NONE),
        (a_reply(409, "was modified", "Conflict", name="a"), Outcome.REFUSED, Refusal.CONFLICT),
        (a_reply(409, 'pods "a" already exists', "AlreadyExists", name="a"), Outcome.REFUSED, Refusal.EXISTS),
        (a_reply(404, 'nodes "a" not found', "NotFound", name="a"), Outcome.REFUSED, Refusal.GONE),
        (
            a_reply(429, "Cannot evict pod", "TooManyRequests", causes=[{"reason": "DisruptionBudget"}]),
            Outcome.REFUSED,
            Refusal.BUDGET,
        ),
        (a_reply(429, "too many requests", "TooManyRequests"), Outcome.REFUSED, Refusal.OVERLOAD),
        (
            a_reply(500, "This pod has more than one PodDisruptionBudget, which the eviction subresource "
                    "does not support."),
            Outcome.REFUSED,
            Refusal.BUDGET,
        ),
        (a_reply(401, "Unauthorized", "Unauthorized"), Outcome.REFUSED, Refusal.OVERLOAD),
        (a_reply(403, FENCED, "Forbidden", name="a"), Outcome.REFUSED, Refusal.FENCED),
        (a_reply(422, FENCED, "Invalid", name="a"), Outcome.REFUSED, Refusal.FENCED),
        (a_reply(500, "etcdserver: request timed out", "InternalError"), Outcome.UNKNOWN, Refusal.NONE),
        (a_reply(503, "apiserver is shutting down"), Outcome.UNKNOWN, Refusal.NONE),
        (a_reply(504, "Timeout: request did not complete", "Timeout"), Outcome.UNKNOWN, Refusal.NONE),
        (Response(502, {}, b"<html>bad gateway \xff</html>"), Outcome.UNKNOWN, Refusal.NONE),
        (Response(408, {}, b""), Outcome.UNKNOWN, Refusal.NONE),
    ],
)  # fmt: skip
def test_write_reply_is_classified(reply, outcome, refusal):
    """A refusal may be tried again at once; an unknown one must be looked at first."""
    written = classify_write(reply, WHAT)

    assert (written.outcome, written.refusal) == (outcome, refusal)
    assert bool(written.body) == (outcome is Outcome.APPLIED)


@pytest.mark.parametrize("status", [301, 400, 403, 405, 410, 413, 415, 422])
def test_write_that_cannot_work_is_permanent(status):
    """Trying again would only repeat it; a person has to change something."""
    with pytest.raises(PermanentError, match=rf"{WHAT}: HTTP {status}: no way") as caught:
        classify_write(a_reply(status, "no way"), WHAT)
    assert caught.value.status == status


@pytest.mark.parametrize(
    "message",
    [
        "ValidatingAdmissionPolicy 'remediator-fencing' with binding 'b' denied request: "
        "expression 'x' resulted in error: no such key: term",
        "ValidatingAdmissionPolicy 'remediator-fencing' with binding 'b' denied request: no params found",
        "ValidatingAdmissionPolicy 'remediator-fencing' with binding 'b' denied request: "
        "RemediationPolicy/cluster has no term, and nobody may act before a leader has written one",
        "ValidatingAdmissionPolicy 'remediator-own-keys' with binding 'b' denied request: foreign taint",
        "ValidatingAdmissionPolicy 'theirs' with binding 'b' denied request: another leader has taken over",
    ],
)
def test_other_policy_denials_are_not_fencing(message):
    """A broken installation must be shown, not be taken for a newer leader."""
    with pytest.raises(PermanentError):
        classify_write(a_reply(422, message, "Invalid", name="a"), WHAT)


@pytest.mark.parametrize(
    ("headers", "details", "expected"),
    [
        ({"retry-after": "7"}, {}, 7.0),
        ({}, {"retryAfterSeconds": 10}, 10.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, {}, None),
        ({"retry-after": "-1"}, {}, None),
        ({"retry-after": "٣"}, {}, None),
        ({"retry-after": "99999999"}, {}, 300.0),
        ({}, {}, None),
    ],
)
def test_retry_after_is_read_and_bounded(headers, details, expected):
    """A wrong or hostile header must not stop the program for a day."""
    reply = Response(429, headers, a_reply(429, "slow down", **details).body)

    assert classify_write(reply, WHAT).retry_after_s == expected


@pytest.mark.parametrize(
    "body",
    [b'{"kind":"Status","message":"the server could not find the requested resource","details":{}}',
     b"404 page not found\n"],
)  # fmt: skip
def test_missing_kind_names_the_command_and_is_never_gone(body):
    """After `kubectl delete crd` every object looks deleted; that must not lift a quarantine."""
    reply = Response(404, {}, body)

    with pytest.raises(PermanentError, match="kubectl apply -f deploy/crds") as caught:
        check_read(reply, CRS)
    assert caught.value.status == 404
    with pytest.raises(PermanentError, match="does not serve"):
        classify_write(reply, "PUT /apis/example.com/v1/things/a")


def test_read_returns_the_body():
    """Success is passed on untouched."""
    assert check_read(Response(200, {}, b"{}"), CRS) == b"{}"


@pytest.mark.parametrize("status", [401, 408, 429, 500, 503, 504])
def test_read_that_may_work_later_is_transient(status):
    """These end by themselves; the caller backs off."""
    with pytest.raises(TransientError, match=str(status)) as caught:
        check_read(Response(status, {"retry-after": "3"}, b""), CRS)
    assert caught.value.retry_after_s == 3.0


def test_forbidden_read_names_the_missing_rule():
    """At three in the morning the rule to add is worth more than the text around it."""
    message = (
        'pods is forbidden: User "system:serviceaccount:remediator:remediator" cannot list resource "pods" '
        'in API group "" in the namespace "jobs"'
    )
    with pytest.raises(PermanentError, match="missing RBAC rule: list pods core namespace=jobs"):
        check_read(a_reply(403, message, "Forbidden"), "GET /api/v1/namespaces/jobs/pods")


def test_missing_rule_reads_group_and_subresource():
    """The group decides which rule has to be changed."""
    message = (
        'User "u" cannot patch resource "playbooks/status" in API group "remediator.dev" at the cluster scope'
    )

    assert missing_rule(message) == "patch playbooks/status remediator.dev"
    assert missing_rule('User "u" cannot get path "/metrics"') == ""


def test_reply_that_is_no_status_object_is_quoted_and_bounded():
    """A proxy's error page must neither crash the parser nor fill the log."""
    with pytest.raises(PermanentError) as caught:
        check_read(Response(400, {}, b"<html>\n" + b"x" * 100_000 + b"\xff"), CRS)
    assert len(str(caught.value)) < 700
    assert "<html> xxx" in str(caught.value)


def test_no_reply_is_unknown_unless_nothing_was_sent():
    """A lost reply may hide a committed write; a refused connection cannot."""
    assert unanswered(TransientError("reset")).outcome is Outcome.UNKNOWN
    assert unanswered(NotSentError("refused")).outcome is Outcome.REFUSED
