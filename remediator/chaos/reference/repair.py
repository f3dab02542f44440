"""One piece of work: a machine is fenced, emptied, replaced, rebooted and given back, a step for each look.

The record of a step is written before its effect where the effect could not be told afterwards, and after
it where it can be seen on the Node. So a process that dies anywhere leaves what the next one goes on from.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from remediator.chaos.reference.api import (
    FENCE,
    JOBS,
    NODES,
    PEER,
    PODS,
    POOL,
    REPAIR,
    REPAIRS,
    WORK,
    Api,
    Json,
    Reply,
    boot_of,
    condition,
    fence_of,
    has_taint,
    instant,
    opted_out,
    pool_of,
    taints,
    work_of,
)
from remediator.chaos.reference.bugs import Bug

OPEN: Final = frozenset(("Granted", "Fenced", "Drained", "Rebooting", "Verifying", "Releasing"))
FRESH: Final = timedelta(minutes=1)  # how long a grant may wait for its fence
STEP: Final = timedelta(minutes=10)  # no step takes longer
OUT: Final = "repair"  # the pool into which bugs put nodes too early
SOAK: Final = timedelta(minutes=1)
MIRROR: Final = "kubernetes.io/config.mirror"


def state_of(repair: Json) -> str:
    return str((repair.get("status") or {}).get("state") or "Waiting")


class Repairs:
    """Takes the steps. ``refused`` counts writes that the server did not take."""

    def __init__(self, api: Api, bugs: frozenset[Bug]) -> None:
        self._api = api
        self._bugs = bugs
        self._asked: set[str] = set()  # reboots, by the process that forgets
        self.refused = 0

    def is_faulty(self, node: Json) -> bool:
        shown = condition(node)
        return shown == "True" or (shown == "Unknown" and Bug.ACTS_ON_UNKNOWN in self._bugs)

    def may_touch(self, node: Json) -> bool:
        """Has nobody else said that the node is theirs?"""
        if opted_out(node) and Bug.IGNORES_OPT_OUT not in self._bugs:
            return False
        return not has_taint(node, PEER) or Bug.IGNORES_PEERS in self._bugs

    async def advance(self, repair: Json, spare: str) -> None:
        """Take the next step of one piece of work."""
        spec, state = repair["spec"], state_of(repair)
        found = await self._api.get(f"{NODES}/{spec['node']}")
        if found.code == 404:
            await self.say(repair, "Gone")
            return
        if not found.ok:
            return
        node = found.body
        if node["metadata"]["uid"] != spec["uid"]:
            if Bug.MOVES_BY_NAME in self._bugs:
                await self._patch_node(repair, node, _pool(node, "buffer"))
            if Bug.NAME_AS_KEY not in self._bugs:
                await self.say(repair, "Gone")
                return
            if not fence_of(node):
                await self._put_fence(repair, node)
                return
        if Bug.WRITES_NOTHING in self._bugs:
            marked = {"metadata": {"annotations": {f"{FENCE}-seen": "yes"}}}
            node = (await self._patch_node(repair, node, marked)).body
            if node["kind"] != "Node":
                return
        await self._step(state, repair, node, spare)

    async def _step(self, state: str, repair: Json, node: Json, spare: str) -> None:
        if state == "Granted":
            await self._fence(repair, node)
            return
        if state != "Releasing" and not self._still_ours(repair, node):
            await self._give_way(repair, node)
        elif state == "Fenced":
            await self._drain(repair, node)
        elif state == "Drained":
            await self._replace(repair, node, spare)
        elif state == "Rebooting":
            await self._reboot(repair, node)
        elif state == "Verifying":
            await self._verify(repair, node)
        else:
            await self._release(repair, node)

    def _still_ours(self, repair: Json, node: Json) -> bool:
        """Our fence and our cordon stand: nobody has said no."""
        if Bug.STATUS_FIRST in self._bugs:
            return True
        fenced = fence_of(node) == repair["metadata"]["name"] and bool(node["spec"].get("unschedulable"))
        return fenced and self.may_touch(node)

    # -- steps

    async def _fence(self, repair: Json, node: Json) -> None:
        if work_of(node) == repair["metadata"]["name"]:
            await self.say(repair, "Fenced")
            return
        trusted = Bug.TRUSTS_THE_CACHE in self._bugs
        stale = self._age(repair) > FRESH  # the limits were counted when it was granted
        if stale or not (trusted or (self.is_faulty(node) and self.may_touch(node))):
            await self.say(repair, "Done")
            return
        cordoned = bool(node["spec"].get("unschedulable"))
        if (repair.get("status") or {}).get("cordoned") != cordoned:
            await self.say(repair, "Granted", cordoned=cordoned)  # the Node won't tell afterwards
            return
        if Bug.STATUS_FIRST in self._bugs:
            await self.say(repair, "Fenced")
        if Bug.EVICTS_FIRST in self._bugs:
            await self._evict(repair, await self._leaving(node))
        if Bug.REBOOTS_FIRST in self._bugs:
            await self._ask_for_reboot(repair, node)
        await self._put_fence(repair, node)

    async def _put_fence(self, repair: Json, node: Json) -> None:
        name = repair["metadata"]["name"]
        ours = {"key": FENCE, "value": name, "effect": "NoSchedule"}
        kept = [] if Bug.DROPS_FOREIGN_TAINTS in self._bugs else taints(node)
        spec = {"taints": [*kept, ours], "unschedulable": True}
        meta: Json = {"annotations": {WORK: name}}
        if Bug.COUNTS_MEMBERS in self._bugs:
            meta["labels"] = {POOL: OUT}
        await self._patch_node(repair, node, {"metadata": meta, "spec": spec})

    async def _give_way(self, repair: Json, node: Json) -> None:
        """Somebody took fence or cordon away, or the node is another's now: take back what is left."""
        if Bug.OVERRULES_PEOPLE in self._bugs and self.may_touch(node):
            without = node | {
                "spec": node["spec"] | {"taints": [each for each in taints(node) if each["key"] != FENCE]}
            }
            await self._put_fence(repair, without)
            return
        ours = work_of(node) == repair["metadata"]["name"] or self._our_cordon(repair, node)
        if ours and not (await self._unfence(repair, node)).ok:
            return
        await self.say(repair, "Cancelled")

    async def _drain(self, repair: Json, node: Json) -> None:
        leaving = await self._leaving(node)
        if leaving is None:
            return
        if not leaving:
            await self.say(repair, "Drained")
        elif self._late(repair):
            await self.say(repair, "HandedOff")
        else:
            await self._evict(repair, leaving)

    async def _replace(self, repair: Json, node: Json, spare: str) -> None:
        """Give the place to the spare, then write down which boot is to end."""
        pool = pool_of(node)
        if Bug.LEAVES_FIRST in self._bugs and pool != OUT:
            await self._patch_node(repair, node, {"metadata": {"labels": {POOL: OUT}}})
        if spare and not await self._hand_over(repair, spare, pool):
            return
        await self.say(repair, "Rebooting", boot=boot_of(node), attempt=1)

    async def _hand_over(self, repair: Json, spare: str, pool: str) -> bool:
        found = await self._api.get(f"{NODES}/{spare}")
        if not found.ok or pool_of(found.body) != "buffer" or fence_of(found.body):
            return found.ok or found.code == 404  # it serves already, or is not to be had any more
        return (await self._patch_node(repair, found.body, _pool(found.body, pool))).ok

    async def _reboot(self, repair: Json, node: Json) -> None:
        if boot_of(node) != repair["status"]["boot"]:
            await self.say(repair, "Verifying")
        elif self._late(repair):
            await self.say(repair, "HandedOff")
        else:
            await self._ask_for_reboot(repair, node)

    async def _ask_for_reboot(self, repair: Json, node: Json) -> None:
        """Create the Job of this attempt; its name is taken if it has been created before."""
        work = repair["metadata"]["name"]
        attempt = f"{work}-{(repair.get('status') or {}).get('attempt', 0)}"
        job = _job(attempt, node["metadata"]["name"], boot_of(node))
        if Bug.REBOOTS_TWICE in self._bugs:
            if attempt in self._asked:
                return
            job["metadata"] = {"generateName": f"{attempt[-12:]}-", "labels": job["metadata"]["labels"]}
        made = await self._api.send("POST", JOBS, job, work=work)
        if made.ok:
            self._asked.add(attempt)

    async def _verify(self, repair: Json, node: Json) -> None:
        well = not self.is_faulty(node) and condition(node, "Ready") == "True"
        if well and self._age(repair) >= SOAK:
            if Bug.FORGETS_THE_FENCE in self._bugs:
                await self.say(repair, "Done")
                await self._release(repair, node)
                return
            await self.say(repair, "Releasing")
        elif self._late(repair):
            await self.say(repair, "HandedOff")

    async def _release(self, repair: Json, node: Json) -> None:
        """Into the buffer, which gave its own. From here on a missing fence is our own doing."""
        if not work_of(node) or (await self._unfence(repair, node, pool="buffer")).ok:
            await self.say(repair, "Done")

    # -- writes

    async def _unfence(self, repair: Json, node: Json, *, pool: str = "") -> Reply:
        left = [each for each in taints(node) if each["key"] != FENCE]
        change: Json = {"spec": {"taints": left}}
        if pool:
            change = _pool({**node, "spec": {**node["spec"], "taints": left}}, pool)
        change.setdefault("metadata", {})["annotations"] = {WORK: None}
        if self._our_cordon(repair, node) or Bug.LIFTS_FOREIGN_CORDON in self._bugs:
            change["spec"]["unschedulable"] = None
        return await self._patch_node(repair, node, change)

    def _our_cordon(self, repair: Json, node: Json) -> bool:
        ours = (repair.get("status") or {}).get("cordoned") is False
        return ours and bool(node["spec"].get("unschedulable"))

    async def _patch_node(self, repair: Json, node: Json, change: Json) -> Reply:
        meta = node["metadata"]
        if Bug.PATCHES_BLINDLY not in self._bugs:
            own = {**change.get("metadata", {}), "resourceVersion": meta["resourceVersion"]}
            change = {**change, "metadata": own}
        path = f"{NODES}/{meta['name']}"
        return self._taken(await self._api.send("PATCH", path, change, work=repair["metadata"]["name"]))

    async def say(self, repair: Json, state: str, **more: Any) -> Reply:
        """Write down how the work stands, on the version that was read."""
        before = repair.get("status") or {}
        since = self._api.now.isoformat() if state != before.get("state") else before["since"]
        status = {**before, "state": state, "since": since, **more}
        name = repair["metadata"]["name"]
        said = await self._api.send(
            "PUT", f"{REPAIRS}/{name}/status", {**repair, "status": status}, work=name
        )
        if said.ok:
            repair.clear()
            repair.update(said.body)
        return self._taken(said)

    def _taken(self, reply: Reply) -> Reply:
        self.refused += not reply.ok
        return reply

    # -- pods and time

    async def _leaving(self, node: Json) -> list[Json] | None:
        """Pods that have to leave the node; None where nobody can say."""
        found = await self._api.get(PODS, fieldSelector=f"spec.nodeName={node['metadata']['name']}")
        return [pod for pod in found.body["items"] if self._leaves(pod)] if found.ok else None

    def _leaves(self, pod: Json) -> bool:
        meta = pod["metadata"]
        if MIRROR in (meta.get("annotations") or {}) or REPAIR in (meta.get("labels") or {}):
            return False
        kinds = {owner["kind"] for owner in meta.get("ownerReferences") or ()}
        if "DaemonSet" in kinds and Bug.EVICTS_DAEMONS not in self._bugs:
            return False
        return pod["status"].get("phase") not in ("Succeeded", "Failed")

    async def _evict(self, repair: Json, pods: list[Json] | None) -> None:
        for pod in pods or ():
            meta = pod["metadata"]
            path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
            if "deletionTimestamp" in meta:
                if meta.get("finalizers") and Bug.STRIPS_FINALIZERS in self._bugs:
                    bare = {"metadata": {"finalizers": None}}
                    await self._api.send("PATCH", path, bare, work=repair["metadata"]["name"])
                continue
            options = {"preconditions": {"uid": meta["uid"]}}
            if Bug.EVICTS_BY_NAME in self._bugs:
                options = {}
            work = repair["metadata"]["name"]
            if Bug.DELETES_PODS in self._bugs:
                await self._api.send("DELETE", path, options, work=work)
                continue
            body = {
                "apiVersion": "policy/v1",
                "kind": "Eviction",
                "metadata": {"name": meta["name"], "namespace": meta["namespace"]},
                "deleteOptions": options,
            }
            self._taken(await self._api.send("POST", f"{path}/eviction", body, work=work))

    def _age(self, repair: Json) -> timedelta:
        return self._api.now - instant(repair["status"]["since"])

    def _late(self, repair: Json) -> bool:
        most = STEP * 3 if Bug.LATE_DEADLINE in self._bugs else STEP
        return self._age(repair) > most and Bug.NO_DEADLINE not in self._bugs


def _pool(node: Json, pool: str) -> Json:
    """The change that moves a node to another pool: its label, and the taint of the same name."""
    rest = [each for each in taints(node) if each["key"] != POOL]
    moved = [*rest, {"key": POOL, "value": pool, "effect": "NoSchedule"}]
    return {"metadata": {"labels": {POOL: pool}}, "spec": {"taints": moved}}


def _job(attempt: str, node: str, boot: str) -> Json:
    env = [{"name": "NODE_NAME", "value": node}, {"name": "EXPECTED_BOOT_ID", "value": boot}]
    pod = {
        "nodeName": node,
        "restartPolicy": "Never",
        "tolerations": [{"operator": "Exists"}],
        "containers": [{"name": "reboot", "image": "registry.example.com/reboot:v1", "env": env}],
    }
    template = {"metadata": {"labels": {REPAIR: "yes"}}, "spec": pod}
    meta = {"name": attempt, "labels": {"node": node, "attempt": attempt}}
    return {"metadata": meta, "spec": {"backoffLimit": 0, "template": template}}
