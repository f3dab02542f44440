"""The one door for our own objects and for Events: intent, results, ledger, grants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec import UNSET

from remediator.adapters.kube import bodies
from remediator.adapters.kube.wire import resource_version_of
from remediator.adapters.kube.writer import MERGE_PATCH, Sender
from remediator.model.action import (
    Attribution,
    CreateLedger,
    CreateRun,
    DeleteRun,
    PublishEvent,
    RecordAction,
    SaveLedger,
    SavePlaybookStatus,
    SavePolicy,
    SavePoolStatus,
    SaveRun,
)
from remediator.model.keys import API_VERSION, POLICY_NAME
from remediator.model.ledger import ManagedNodeStatus
from remediator.ports import Lane, Outcome, Transport, Written

ROOT: Final = f"/apis/{API_VERSION}"
RUNS: Final = f"{ROOT}/remediations"
LEDGERS: Final = f"{ROOT}/managednodes"
POOLS: Final = f"{ROOT}/resourcepools"
PLAYBOOKS: Final = f"{ROOT}/playbooks"
POLICIES: Final = f"{ROOT}/remediationpolicies"
EVENTS: Final = f"/apis/events.k8s.io/v1/namespaces/{bodies.EVENT_NAMESPACE}/events"

_StatusAction = SaveRun | SaveLedger | SavePoolStatus | SavePlaybookStatus


class KubeRecords:
    """``ports.Records`` to an API server.

    Args:
        transport, may_write: as of ``writer.Sender``.
        instance: who we are among our replicas, for Events.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        may_write: Callable[[], str | None],
        instance: str,
    ) -> None:
        self._sender = Sender(transport, may_write=may_write)
        self._instance = instance

    async def save(self, action: RecordAction, attribution: Attribution) -> Written:
        """Send one write; see ``ports.Records``.

        ``CreateRun`` creates without status, since the server drops it. ``CreateLedger`` is
        followed by a write of the status where there is one: it is ``APPLIED`` when both are, and
        ``UNKNOWN`` when only the first is known to be.
        """
        match action:
            case SaveRun():
                return await self._save_status(RUNS, action, attribution, Lane.NORMAL)
            case SaveLedger():
                return await self._save_status(LEDGERS, action, attribution, Lane.BULK)
            case SavePoolStatus():
                return await self._save_status(POOLS, action, attribution, Lane.BULK)
            case SavePlaybookStatus():
                return await self._save_status(PLAYBOOKS, action, attribution, Lane.BULK)
            case CreateLedger():
                return await self._create_ledger(action, attribution)
            case CreateRun(run=run):
                body = bodies.new_object(run)
                return await self._sender.send("POST", RUNS, body, attribution, lane=Lane.URGENT)
            case DeleteRun(name=name):
                body = bodies.delete_options(action)
                return await self._sender.send("DELETE", f"{RUNS}/{name}", body, attribution, lane=Lane.BULK)
            case SavePolicy():
                path = f"{POLICIES}/{POLICY_NAME}/status"
                body = bodies.policy_status_put(action)
                return await self._sender.send("PUT", path, body, attribution, lane=Lane.URGENT)
            case PublishEvent():
                body = bodies.event(action, self._instance)
                return await self._sender.send("POST", EVENTS, body, attribution, lane=Lane.BULK)

    async def _save_status(
        self, collection: str, action: _StatusAction, attribution: Attribution, lane: Lane
    ) -> Written:
        body = bodies.status_patch(action.before, action.status, action.resource_version)
        path = f"{collection}/{action.name}/status"
        return await self._sender.send("PATCH", path, body, attribution, lane=lane, content_type=MERGE_PATCH)

    async def _create_ledger(self, action: CreateLedger, attribution: Attribution) -> Written:
        node = action.node
        created = await self._sender.send(
            "POST", LEDGERS, bodies.new_object(node), attribution, lane=Lane.BULK
        )
        status = node.status
        if created.outcome is not Outcome.APPLIED or status is UNSET:
            return created
        save = SaveLedger(
            name=node.metadata.name,
            resource_version=resource_version_of(created.body),
            before=ManagedNodeStatus(),
            status=status,
        )
        saved = await self._save_status(LEDGERS, save, attribution, Lane.BULK)
        if saved.outcome is Outcome.APPLIED:
            return saved
        # A refusal would say that nothing has changed, but the object is there now.
        return Written(Outcome.UNKNOWN, message=f"created without status: {saved.message}")
