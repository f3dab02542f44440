"""What people do to nodes and objects by command: small preconditioned writes with their own credentials.

It decides nothing about the fleet and impersonates nobody. A write that meets somebody else's is
read again and decided again, at most five times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final, Literal, TypeVar

import msgspec
from msgspec import UNSET, Struct
from msgspec.structs import replace

from remediator.adapters.kube.bodies import new_object
from remediator.adapters.kube.errors import check_read, classify_write
from remediator.adapters.kube.records import LEDGERS, PLAYBOOKS, POLICIES, POOLS, RUNS
from remediator.adapters.kube.writer import MERGE_PATCH, WRITE_TIMEOUT_S
from remediator.app.lookup import NotFoundError
from remediator.core.account import run_state
from remediator.core.lifecycle import ended
from remediator.core.people import write_hold
from remediator.errors import TransientError
from remediator.model.instant import write_instant
from remediator.model.keys import ANNOTATION_HOLD, POLICY_NAME
from remediator.model.ledger import Adopt, ManagedNode, ManagedNodeSpec, ManualRequest
from remediator.model.meta import ObjectMeta
from remediator.model.playbook import Playbook
from remediator.model.policy import RemediationPolicy
from remediator.model.pool import ResourcePool
from remediator.model.remediation import Remediation
from remediator.ports import Lane, Outcome, Refusal, Transport

TRIES_MAX: Final = 5
NODES: Final = "/api/v1/nodes"
LINE_MAX: Final = 256

T = TypeVar("T")
Scope = Literal["policy", "pool", "playbook"]


class _Node(Struct):
    metadata: ObjectMeta


class People:
    """The verbs of one person.

    Args:
        transport: carries the person's own credentials.
        by: the person's name, as the API server knows it.
    """

    def __init__(self, transport: Transport, *, by: str) -> None:
        self._transport = transport
        self._by = (by or "unknown user")[:LINE_MAX]

    async def hold(self, node: str, until: datetime, reason: str) -> bool:
        """Ask that nobody touches the node until then; a hold that is there is replaced.

        Raises (as every verb):
            NotFoundError: no such object.
            PermanentError: the server refuses, for good; a 403 names the missing rule.
            TransientError: the server is away, or the object changed at every try.
        """
        text = write_hold(write_instant(until), self._by, reason)[:LINE_MAX]

        def decide(_: _Node) -> Mapping[str, object]:
            return {"metadata": {"annotations": {ANNOTATION_HOLD: text}}}

        return await self._change(f"{NODES}/{node}", f"node {node}", _Node, decide)

    async def unhold(self, node: str) -> bool:
        """Take the hold away. False: there was none."""

        def decide(found: _Node) -> Mapping[str, object] | None:
            annotations = found.metadata.annotations
            if annotations is UNSET or ANNOTATION_HOLD not in annotations:
                return None
            return {"metadata": {"annotations": {ANNOTATION_HOLD: None}}}

        return await self._change(f"{NODES}/{node}", f"node {node}", _Node, decide)

    async def pause(self, scope: Scope, name: str, reason: str, until: datetime | None) -> bool:
        """Stop new steps under the policy, one pool or one playbook."""
        pause = {
            "by": self._by,
            "reason": reason[:LINE_MAX],
            "until": write_instant(until) if until is not None else None,
        }
        return await self._pause(scope, name, lambda _: {"spec": {"pause": pause}})

    async def resume(self, scope: Scope, name: str) -> bool:
        """Take the pause away. False: there was none."""

        def decide(found: RemediationPolicy | ResourcePool | Playbook) -> Mapping[str, object] | None:
            return None if found.spec.pause is UNSET else {"spec": {"pause": None}}

        return await self._pause(scope, name, decide)

    async def _pause(
        self,
        scope: Scope,
        name: str,
        decide: Callable[[RemediationPolicy | ResourcePool | Playbook], Mapping[str, object] | None],
    ) -> bool:
        if scope == "pool":
            return await self._change(f"{POOLS}/{name}", f"pool {name}", ResourcePool, decide)
        if scope == "playbook":
            return await self._change(f"{PLAYBOOKS}/{name}", f"playbook {name}", Playbook, decide)
        what = "RemediationPolicy cluster (without it everything is Audit; there is nothing to pause)"
        return await self._change(f"{POLICIES}/{POLICY_NAME}", what, RemediationPolicy, decide)

    async def cancel(self, run: str, reason: str) -> bool:
        """Ask that the run ends and leaves nothing behind. False: it has ended, or was asked already."""
        cancel = {"by": self._by, "reason": reason[:LINE_MAX]}

        def decide(found: Remediation) -> Mapping[str, object] | None:
            if ended(run_state(found)) or found.spec.cancel is not UNSET:
                return None
            return {"spec": {"cancel": cancel}}

        return await self._change(f"{RUNS}/{run}", f"run {run}", Remediation, decide)

    async def request(self, machine: str, asked: ManualRequest) -> None:
        """Ask for a run on a machine, as this person."""
        asked = replace(asked, by=self._by)
        # A merge patch merges: what an earlier request said must not survive in this one.
        optional = {"planHash": asked.plan_hash or None, "returnTo": asked.return_to or None}
        patch = {**msgspec.to_builtins(asked), **optional}
        await self._tell_machine(machine, ManagedNodeSpec(request=asked), {"spec": {"request": patch}})

    async def adopt(self, machine: str, until: datetime, reason: str) -> None:
        """Declare a machine known out until then: it leaves every limit's numerator and denominator."""
        adopt = Adopt(until=write_instant(until), by=self._by, reason=reason[:LINE_MAX])
        patch = {"until": adopt.until, "by": adopt.by, "reason": adopt.reason or None}
        await self._tell_machine(machine, ManagedNodeSpec(adopt=adopt), {"spec": {"adopt": patch}})

    async def _tell_machine(self, machine: str, spec: ManagedNodeSpec, patch: Mapping[str, object]) -> None:
        """Change what people say of a machine; its object is made where it has none yet."""
        path = f"{LEDGERS}/{machine}"
        for _ in range(TRIES_MAX):
            try:
                await self._change(path, f"machine {machine}", ManagedNode, lambda _: patch)
                return
            except NotFoundError:
                body = new_object(ManagedNode(metadata=ObjectMeta(name=machine), spec=spec))
                written = classify_write(
                    await self._transport.request(
                        "POST", LEDGERS, body=body, timeout_s=WRITE_TIMEOUT_S, lane=Lane.NORMAL
                    ),
                    f"POST {LEDGERS}",
                )
                if written.outcome is Outcome.APPLIED:
                    return
                if written.refusal is not Refusal.EXISTS:
                    raise TransientError(f"machine {machine}: {written.message}") from None
        raise TransientError(f"machine {machine}: changed at every one of {TRIES_MAX} tries; try again")

    async def _change(
        self, path: str, what: str, type_: type[T], decide: Callable[[T], Mapping[str, object] | None]
    ) -> bool:
        """Read, decide, patch with the version that was read. False: nothing had to change."""
        for _ in range(TRIES_MAX):
            response = await self._transport.request("GET", path, timeout_s=WRITE_TIMEOUT_S, lane=Lane.NORMAL)
            if response.status == 404:
                raise NotFoundError(f"no {what}")
            body = check_read(response, f"GET {path}")
            patch = decide(msgspec.json.decode(body, type=type_))
            if patch is None:
                return False
            version = msgspec.json.decode(body, type=_Node).metadata.resource_version
            if await self._patch(path, what, patch, version):
                return True
        raise TransientError(f"{what}: changed at every one of {TRIES_MAX} tries; try again")

    async def _patch(self, path: str, what: str, patch: Mapping[str, object], version: str) -> bool:
        """Send one patch; False: somebody else wrote first."""
        metadata = patch.get("metadata", {})
        assert isinstance(metadata, Mapping)
        body = msgspec.json.encode({**patch, "metadata": {**metadata, "resourceVersion": version}})
        response = await self._transport.request(
            "PATCH",
            path,
            headers={"Content-Type": MERGE_PATCH},
            body=body,
            timeout_s=WRITE_TIMEOUT_S,
            lane=Lane.NORMAL,
        )
        written = classify_write(response, f"PATCH {path}")
        if written.outcome is Outcome.APPLIED:
            return True
        if written.refusal is Refusal.CONFLICT:
            return False
        if written.refusal is Refusal.GONE:
            raise NotFoundError(f"no {what}")
        raise TransientError(f"{what}: {written.message} (look before you try again)")
