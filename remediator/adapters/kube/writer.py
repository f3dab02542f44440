"""The one door for writes to nodes, pods and Jobs, and the sender that both doors share.

Sends each write once, never again; what became of it is said by its answer, or only by looking.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from remediator.adapters.kube import bodies
from remediator.adapters.kube.caller import user_agent
from remediator.adapters.kube.errors import check_read, classify_write, unanswered
from remediator.errors import TransientError
from remediator.model.action import Attribution, CreateJob, EvictPod, PatchNode, SetCondition, WorldAction
from remediator.ports import Lane, Outcome, Refusal, Transport, Written

WRITE_TIMEOUT_S: Final = 10.0
JSON: Final = "application/json"
MERGE_PATCH: Final = "application/merge-patch+json"
STRATEGIC_PATCH: Final = "application/strategic-merge-patch+json"  # conditions are a list by type


class Sender:
    """Adds to each write who sends it, asks whether we may still write, and reads the answer.

    Args:
        transport: the seam to the API server; it gives each request its Audit-ID.
        may_write: the reason not to write, such as a lease that ran out, or None.
    """

    def __init__(self, transport: Transport, *, may_write: Callable[[], str | None]) -> None:
        self._transport = transport
        self._may_write = may_write

    async def send(
        self,
        method: str,
        path: str,
        body: bytes,
        attribution: Attribution,
        *,
        lane: Lane,
        content_type: str = JSON,
    ) -> Written:
        """Send one write.

        Raises:
            PermanentError: it will not work until a person changes something.
        """
        if (reason := self._may_write()) is not None:
            return Written(Outcome.REFUSED, Refusal.FENCED, reason)
        try:
            response = await self._transport.request(
                method,
                path,
                headers={**self.headers(attribution), "Content-Type": content_type},
                body=body,
                timeout_s=WRITE_TIMEOUT_S,
                lane=lane,
            )
        except TransientError as error:
            return unanswered(error)
        return classify_write(response, f"{method} {path}")

    async def read(self, path: str, attribution: Attribution, *, lane: Lane) -> bytes:
        """GET one object that a write is made from.

        Raises:
            TransientError: try again later.
            PermanentError: no permission, or the object does not exist.
        """
        response = await self._transport.request(
            "GET", path, headers=self.headers(attribution), timeout_s=WRITE_TIMEOUT_S, lane=lane
        )
        return check_read(response, f"GET {path}")

    def headers(self, attribution: Attribution) -> dict[str, str]:
        """Name the writer, so that the server's audit log alone can prove each rule."""
        return {"Accept": JSON, "User-Agent": user_agent(attribution)}


class KubeWriter:
    """``ports.Writer`` and ``ports.Proofs`` to an API server. Arguments as of ``Sender``."""

    def __init__(self, transport: Transport, *, may_write: Callable[[], str | None]) -> None:
        self._sender = Sender(transport, may_write=may_write)

    async def apply(self, action: WorldAction, attribution: Attribution) -> Written:
        """Send one write; see ``ports.Writer``. A repair Job needs its PodTemplate read first."""
        match action:
            case PatchNode(name=name):
                body = bodies.node_patch(action, attribution.term)
                path = f"/api/v1/nodes/{name}"
                return await self._sender.send(
                    "PATCH", path, body, attribution, lane=Lane.URGENT, content_type=MERGE_PATCH
                )
            case EvictPod(namespace=namespace, name=name):
                path = f"/api/v1/namespaces/{namespace}/pods/{name}/eviction"
                body = bodies.eviction(action, attribution.term)
                return await self._sender.send("POST", path, body, attribution, lane=Lane.NORMAL)
            case CreateJob():
                return await self._create_job(action, attribution)

    async def prove(self, action: SetCondition, attribution: Attribution) -> Written:
        """Set one condition of ours; see ``ports.Proofs``."""
        body = bodies.node_condition(action, attribution.term)
        path = f"/api/v1/nodes/{action.name}/status"
        return await self._sender.send(
            "PATCH", path, body, attribution, lane=Lane.NORMAL, content_type=STRATEGIC_PATCH
        )

    async def _create_job(self, action: CreateJob, attribution: Attribution) -> Written:
        source = f"/api/v1/namespaces/{action.namespace}/podtemplates/{action.template}"
        try:
            template = await self._sender.read(source, attribution, lane=Lane.NORMAL)
        except TransientError as error:  # only a read was lost, so nothing has changed
            return Written(
                Outcome.REFUSED, Refusal.OVERLOAD, str(error)[:512], retry_after_s=error.retry_after_s
            )
        body = bodies.job(action, template, attribution.term)
        path = f"/apis/batch/v1/namespaces/{action.namespace}/jobs"
        return await self._sender.send("POST", path, body, attribution, lane=Lane.NORMAL)
