"""Says in every request who sends it, so that the API server's own audit log can prove each rule.

It adds two headers and knows nothing of what is asked.
"""

from __future__ import annotations

import uuid
from random import Random
from typing import Final

from remediator import __version__
from remediator.errors import ContractError
from remediator.model.action import Attribution

PRODUCT: Final = f"remediator/{__version__}"
STANDBY: Final = "standby"
COMMAND: Final = "command"


class Caller:
    """Who we are in reads, watches, reviews and renewals of the Lease; a write names its run as well.

    Args:
        role: what stands in the User-Agent for as long as there is no term.
        rng: dice for the Audit-IDs and for nothing else. Whoever knows their seed can tell from the
            audit log alone which requests were ours.
    """

    def __init__(self, role: str, *, rng: Random) -> None:
        self._role = role
        self._rng = rng
        self._term = 0

    def take_term(self, term: int) -> None:
        """Speak as the leader of this term from now on."""
        self._term = term

    def headers(self) -> dict[str, str]:
        """The headers of one request; the Audit-ID is never the same twice."""
        audit_id = uuid.UUID(int=self._rng.getrandbits(128), version=4)
        agent = user_agent(Attribution(term=self._term)) if self._term else f"{PRODUCT} ({self._role})"
        return {"User-Agent": agent, "Audit-ID": str(audit_id)}


def user_agent(attribution: Attribution) -> str:
    """Write ``remediator/VERSION (term=N; run=R; step=S; attempt=A)``; absent parts are left out.

    Raises:
        ContractError: a part holds a character that would end the field or the header.
    """
    parts = [f"term={attribution.term}"]
    for name, value in (("run", attribution.run), ("step", attribution.step)):
        if not value:
            continue
        if not value.isascii() or not value.isprintable() or set(value) & set(";() "):
            raise ContractError(f"attribution: {name} {value!r} is no name")
        parts.append(f"{name}={value}")
    if attribution.run:
        parts.append(f"attempt={attribution.attempt}")
    return f"{PRODUCT} ({'; '.join(parts)})"
