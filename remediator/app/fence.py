"""What deploy/base/fencing.yaml and the terms of own-keys.yaml make of the API server, for the simulated one.

The real policies are tried on a real server (tests/contract/test_fencing_real.py). Here the parameter is
known at once, where a real server may be a moment behind: see docs/fencing.md.
"""

from __future__ import annotations

import re
from typing import Any, Final

from remediator.adapters.kube.errors import REPLACED
from remediator.model.keys import ANNOTATION_TERM, GROUP, VERSION
from remediator.sim.refusal import Json, forbidden
from remediator.sim.request import Request, Route
from remediator.sim.server import Server

BOOKS: Final = "remediationpolicies"
_JUDGED: Final = frozenset(
    {
        ("create", "pods", "eviction"),
        ("create", "jobs", ""),
        ("create", "remediations", ""),
        ("update", BOOKS, "status"),
        ("patch", BOOKS, "status"),
        ("update", "nodes", ""),
        ("patch", "nodes", ""),
    }
)
_number = re.compile(r"[0-9]{1,9}").fullmatch


class TermFence:
    """Refuses what an older leader than the newest one sends.

    Args:
        server: that holds the policy.
        user: of the controller; everybody else is let through.
    """

    def __init__(self, server: Server, user: str) -> None:
        self._server = server
        self._user = user

    def __call__(self, request: Request, route: Route, old: Json | None, new: Json | None) -> None:
        """Judge one write.

        Raises:
            Refused: 403, it carries an older term than the policy, or none.
        """
        judged = (route.verb, route.kind.plural, route.subresource) in _JUDGED
        if request.user.name != self._user or not judged or new is None:
            return
        books = route.kind.plural == BOOKS
        policy = old if books else self._policy()
        if policy is None:
            return  # without a parameter nothing is judged
        newest, term = _term_of(policy), _term_of(new) if books else _carried(route, new)
        if not books and newest == 0:
            raise self._denied(route, "RemediationPolicy/cluster has no term")
        if term == 0:
            raise self._denied(route, "a write of remediator has to carry the term of its leader")
        if term < newest:
            raise self._denied(route, f"term {term} is older than term {newest}; {REPLACED}")

    def _policy(self) -> Json | None:
        kind = self._server.kind(GROUP, VERSION, BOOKS)
        entry = self._server.shelf(kind).get(("", "cluster")) if kind is not None else None
        return entry.obj if entry is not None else None

    @staticmethod
    def _denied(route: Route, why: str) -> Exception:
        policy = "remediator-own-keys" if route.kind.plural == "nodes" else "remediator-fencing"
        said = f"ValidatingAdmissionPolicy '{policy}' with binding '{policy}' denied request: {why}"
        return forbidden(route.kind.resource, route.name, said)


def _term_of(policy: Json) -> int:
    return int((policy.get("status") or {}).get("term") or 0)


def _carried(route: Route, new: Json) -> int:
    if route.kind.plural == "remediations":
        return int(new["spec"].get("term") or 0)
    found: Any = (new["metadata"].get("annotations") or {}).get(ANNOTATION_TERM, "")
    return int(found) if _number(str(found)) else 0
