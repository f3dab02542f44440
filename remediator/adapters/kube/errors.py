"""Turns replies of the API server into bodies, refusals and the program's own exceptions.

The only place that knows which status means what. It sends nothing and retries nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import msgspec

from remediator.errors import PermanentError, TransientError
from remediator.ports import Outcome, Refusal, Response, Written

MESSAGE_CHARS_MAX = 512
RETRY_AFTER_S_MAX = 300.0
GROUP = "remediator.dev"
INSTALL_CRDS = "kubectl apply -f deploy/crds"
OUR_POLICIES = "ValidatingAdmissionPolicy 'remediator-"  # deploy/base/fencing.yaml and own-keys.yaml
REPLACED = "another leader has taken over"  # what they say of an older term, and of nothing else

# Source: Kubernetes, staging/src/k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/errors.go.
_RBAC_DENIED = re.compile(
    r'cannot (?P<verb>\S+) resource "(?P<resource>[^"]+)" in API group "(?P<group>[^"]*)"'
    r'(?: in the namespace "(?P<namespace>[^"]+)")?'
)
_KIND_UNKNOWN = ("the server could not find the requested resource", "404 page not found")
_TWO_BUDGETS = "more than one PodDisruptionBudget"


class NotSentError(TransientError):
    """The request certainly never reached the server: no connection, or no turn in the limiter."""


class Cause(msgspec.Struct, frozen=True):
    reason: str | None = None
    message: str | None = None
    field: str | None = None


class Details(msgspec.Struct, frozen=True, rename="camel"):
    name: str | None = None
    group: str | None = None
    kind: str | None = None
    causes: list[Cause] | None = None
    retry_after_seconds: int | None = None


class Status(msgspec.Struct, frozen=True):
    """The part of a ``meta/v1 Status`` that decides; everything else is ignored."""

    message: str | None = None
    reason: str | None = None
    details: Details | None = None


_decoder = msgspec.json.Decoder(Status)


class _Returned(msgspec.Struct):
    """Any object; reading it proves that the answer is whole."""


_returned = msgspec.json.Decoder(_Returned)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A reply that is not a success, read once.

    ``message`` is the server's text, at most ``MESSAGE_CHARS_MAX`` characters, one line.
    """

    status: int
    reason: str
    message: str
    causes: tuple[str, ...]
    object_name: str
    retry_after_s: float | None

    @property
    def kind_unknown(self) -> bool:
        """The server does not serve this kind at all; not: this object does not exist."""
        if self.status != 404 or self.object_name:
            return False
        return any(text in self.message for text in _KIND_UNKNOWN)

    @property
    def fenced(self) -> bool:
        # Whatever else our policies say (no term yet, none in the write, a key that is not ours) is a
        # fault of the installation or of ours, and must not look like a lost leadership.
        return self.status in (403, 422) and OUR_POLICIES in self.message and REPLACED in self.message


def read_verdict(response: Response) -> Verdict:
    """Read the Status object of a failed reply; text that is not one is kept as the message."""
    try:
        status = _decoder.decode(response.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # A proxy's HTML page, plain text, or half an answer.
        status = Status(message=response.body[: 4 * MESSAGE_CHARS_MAX].decode("utf-8", "replace"))
    details = status.details or Details()
    return Verdict(
        status=response.status,
        reason=status.reason or "",
        message=" ".join((status.message or "").split())[:MESSAGE_CHARS_MAX],
        causes=tuple(cause.reason or "" for cause in details.causes or ()),
        object_name=details.name or "",
        retry_after_s=_retry_after_s(response, details),
    )


def _retry_after_s(response: Response, details: Details) -> float | None:
    header = response.headers.get("retry-after", "")
    # The API server only ever sends whole seconds; a date comes from a proxy and is ignored.
    seconds = float(header) if header.isascii() and header.isdigit() else details.retry_after_seconds
    return None if not seconds or seconds < 0 else min(float(seconds), RETRY_AFTER_S_MAX)


def check_read(response: Response, what: str) -> bytes:
    """Return the body of a read that succeeded.

    Args:
        response: the complete reply.
        what: verb and path, for the message: ``"GET /api/v1/nodes"``.

    Raises:
        TransientError: 401 (a token between two rotations), 408, 429 or 5xx; carries Retry-After.
        PermanentError: any other status, with that status; for 403 the RBAC rule that is missing.
    """
    if 200 <= response.status < 300:
        return response.body
    verdict = read_verdict(response)
    if response.status in (401, 408, 429) or response.status >= 500:
        raise TransientError(describe(verdict, what), retry_after_s=verdict.retry_after_s)
    raise PermanentError(describe(verdict, what), status=response.status)


def classify_write(response: Response, what: str) -> Written:
    """Say what is known about a write from its reply.

    Args:
        response: the complete reply; a reply that never came is ``unanswered``.
        what: verb and path, for the message: ``"PATCH /api/v1/nodes/a"``.

    Returns:
        ``APPLIED`` on 2xx with the returned object; ``REFUSED`` on 409, 429, 401, the 404 of an
        object, the fencing policy's denial and the eviction 500 for two budgets; ``UNKNOWN`` on
        408 and any other 5xx, because the server may have committed, and where the object that it
        returned can't be read: something between it and us has spoilt the answer.

    Raises:
        PermanentError: 400, 403, 405, 413, 415, 422, a kind that is not served, a redirect.

    Source: Kubernetes docs, "API-initiated Eviction"; the eviction 500 has no reason, only text.
    """
    if 200 <= response.status < 300:
        if _is_object(response.body):
            return Written(Outcome.APPLIED, body=response.body)
        return Written(Outcome.UNKNOWN, message=f"HTTP {response.status}: the answer can't be read")
    verdict = read_verdict(response)
    refusal = _refusal(verdict)
    message = f"HTTP {verdict.status}: {verdict.message}"[:MESSAGE_CHARS_MAX]
    if refusal is not Refusal.NONE:
        return Written(Outcome.REFUSED, refusal, message, retry_after_s=verdict.retry_after_s)
    if response.status == 408 or response.status >= 500:
        return Written(Outcome.UNKNOWN, message=message, retry_after_s=verdict.retry_after_s)
    raise PermanentError(describe(verdict, what), status=response.status)


def _is_object(body: bytes) -> bool:
    try:
        _returned.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
    return True


def unanswered(error: TransientError) -> Written:
    """Say what is known about a write that ended in ``error`` instead of a reply."""
    message = str(error)[:MESSAGE_CHARS_MAX]
    if isinstance(error, NotSentError):
        return Written(Outcome.REFUSED, Refusal.OVERLOAD, message, retry_after_s=error.retry_after_s)
    return Written(Outcome.UNKNOWN, message=message, retry_after_s=error.retry_after_s)


def _refusal(verdict: Verdict) -> Refusal:
    match verdict.status:
        case 409:
            return Refusal.EXISTS if verdict.reason == "AlreadyExists" else Refusal.CONFLICT
        case 404 if not verdict.kind_unknown:
            return Refusal.GONE
        case 429 if "DisruptionBudget" in verdict.causes:
            return Refusal.BUDGET
        case 500 if _TWO_BUDGETS in verdict.message:
            return Refusal.BUDGET
        case 429 | 401:
            # 401: authentication comes before anything else, so nothing has changed; the next
            # try reads the token again.
            return Refusal.OVERLOAD
    return Refusal.FENCED if verdict.fenced else Refusal.NONE


def describe(verdict: Verdict, what: str) -> str:
    """One line for people: verb, path, status, the server's text and the fix where there is one."""
    text = f"{what}: HTTP {verdict.status}: {verdict.message or verdict.reason or 'no message'}"
    fix = _fix(verdict, what)
    return f"{text} ({fix})" if fix else text


def _fix(verdict: Verdict, what: str) -> str:
    if verdict.status == 401:
        return "the server does not accept our credentials; check the token or client certificate"
    if verdict.status == 403 and (rule := missing_rule(verdict.message)):
        return f"missing RBAC rule: {rule}"
    if verdict.kind_unknown and f"/apis/{GROUP}/" in what:
        return f"the custom resources are not installed: {INSTALL_CRDS}"
    if verdict.kind_unknown:
        return "this server does not serve that kind or version"
    if 300 <= verdict.status < 400:
        return "redirects are not followed; set the server URL to the API server itself"
    return ""


def missing_rule(message: str) -> str:
    """Read ``verb resource group`` out of a 403, or return "" where it names none.

    The core group is written ``core``; a namespaced denial ends in ``namespace=NAME``.
    """
    if not (found := _RBAC_DENIED.search(message)):
        return ""
    rule = f"{found['verb']} {found['resource']} {found['group'] or 'core'}"
    return f"{rule} namespace={found['namespace']}" if found["namespace"] else rule
