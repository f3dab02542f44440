"""Asks the API server who bears a token, and whether that user may read one of our paths.

Answers are remembered for a short while, by a digest of the token; nothing else of it is kept.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Final

import msgspec
from msgspec import Struct

from remediator.adapters.kube.discovery import Rule
from remediator.adapters.kube.errors import check_read
from remediator.errors import PermanentError, TransientError
from remediator.ports import AccessRefused, Clock, Lane, Transport

TOKEN_REVIEWS: Final = "/apis/authentication.k8s.io/v1/tokenreviews"
ACCESS_REVIEWS: Final = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
REVIEW_RULES: Final = (
    Rule("authentication.k8s.io", "tokenreviews", "create"),
    Rule("authorization.k8s.io", "subjectaccessreviews", "create"),
)
ALLOWED_S: Final = 60.0  # a right that is taken away, or a token that ends, counts for so long still
REFUSED_S: Final = 10.0
REMEMBERED_MAX: Final = 256
UNDER_WAY_MAX: Final = 4  # whoever has no token must not spend our requests
TIMEOUT_S: Final = 5.0


class _User(Struct):
    username: str = ""
    uid: str = ""
    groups: list[str] | None = None
    extra: dict[str, list[str]] | None = None


class _TokenStatus(Struct):
    authenticated: bool = False
    user: _User = msgspec.field(default_factory=_User)


class _TokenReview(Struct):
    status: _TokenStatus = msgspec.field(default_factory=_TokenStatus)


class _AccessStatus(Struct):
    allowed: bool = False


class _AccessReview(Struct):
    status: _AccessStatus = msgspec.field(default_factory=_AccessStatus)


class TokenReviewer:
    """A guard for our own pages. Needs the rights of ClusterRole ``system:auth-delegator``."""

    def __init__(self, transport: Transport, *, clock: Clock) -> None:
        self._transport = transport
        self._clock = clock
        self._known: OrderedDict[tuple[str, str], tuple[float, AccessRefused | None]] = OrderedDict()
        self._under_way = 0

    async def refusal(self, authorization: str, path: str) -> AccessRefused | None:
        """Why a request with this Authorization header may not read ``path``; None: it may.

        What can't be asked is refused with 503: nobody is let in because the server is away.
        """
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return AccessRefused(401, "send a bearer token of this cluster")
        key = (hashlib.sha256(token.strip().encode()).hexdigest(), path)
        until, answer = self._known.get(key, (0.0, None))
        if self._clock.monotonic() < until:
            return answer
        if self._under_way >= UNDER_WAY_MAX:
            return AccessRefused(503, "too many tokens are being reviewed; try again")
        self._under_way += 1
        try:
            answer = await self._ask(token.strip(), path)
        except (TransientError, PermanentError, msgspec.MsgspecError) as error:
            return AccessRefused(503, f"the token can't be reviewed: {error}")
        finally:
            self._under_way -= 1
        self._remember(key, answer)
        return answer

    async def _ask(self, token: str, path: str) -> AccessRefused | None:
        spec: dict[str, object] = {"token": token}
        body = await self._review("authentication.k8s.io/v1", "TokenReview", TOKEN_REVIEWS, spec)
        bearer = msgspec.json.decode(body, type=_TokenReview).status
        if not bearer.authenticated:
            return AccessRefused(401, "the token is not one of this cluster, or has ended")
        user = bearer.user
        spec = {
            "user": user.username,
            "uid": user.uid,
            "groups": user.groups or [],
            "extra": user.extra or {},
            "nonResourceAttributes": {"path": path, "verb": "get"},
        }
        body = await self._review("authorization.k8s.io/v1", "SubjectAccessReview", ACCESS_REVIEWS, spec)
        if msgspec.json.decode(body, type=_AccessReview).status.allowed:
            return None
        return AccessRefused(403, f"{user.username} may not get {path}: bind it to remediator-metrics-reader")

    async def _review(self, version: str, kind: str, path: str, spec: dict[str, object]) -> bytes:
        response = await self._transport.request(
            "POST",
            path,
            body=msgspec.json.encode({"apiVersion": version, "kind": kind, "spec": spec}),
            timeout_s=TIMEOUT_S,
            lane=Lane.BULK,
        )
        return check_read(response, f"POST {path}")

    def _remember(self, key: tuple[str, str], answer: AccessRefused | None) -> None:
        lasts_s = ALLOWED_S if answer is None else REFUSED_S
        self._known[key] = (self._clock.monotonic() + lasts_s, answer)
        self._known.move_to_end(key)
        while len(self._known) > REMEMBERED_MAX:
            self._known.popitem(last=False)
