"""An API server of a few dictionaries behind the ports: versions, preconditions, watches that may lag.

It applies what the real doors would send, byte for byte, and lets a test decide what becomes of
each write: refused, lost before or after it was stored, or a crash of the process that sent it.
"""

from __future__ import annotations

import asyncio
import copy
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from remediator.adapters.kube import bodies
from remediator.adapters.kube.projection import node_decoder
from remediator.adapters.kube.reader import kind_decoder, policy_decoder
from remediator.adapters.kube.store import Store, node_changed, object_changed
from remediator.core.owners import ANNOTATIONS
from remediator.errors import TransientError
from remediator.model.action import (
    Attribution,
    CreateJob,
    CreateLedger,
    CreateRun,
    DeleteRun,
    EvictPod,
    PatchNode,
    PublishEvent,
    RecordAction,
    SaveLedger,
    SavePlaybookStatus,
    SavePolicy,
    SavePoolStatus,
    SaveRun,
    SetCondition,
    WorldAction,
)
from remediator.model.instant import write_instant
from remediator.model.keys import API_VERSION
from remediator.model.ledger import ManagedNode
from remediator.model.meta import LabelSelector
from remediator.model.playbook import Playbook
from remediator.model.pool import ResourcePool
from remediator.model.remediation import Remediation
from remediator.model.views import EventView, JobView, LeaseView, PodView
from remediator.ports import Clock, Outcome, PodListing, PolicyObject, Refusal, Written
from remediator.runtime.world import Caches
from tests.unit.runtime.fates import Crash, Fails, Fate, First, Held, Late, Lost, Refused, Sent

Json = dict[str, Any]
Action = WorldAction | SetCondition | RecordAction
KINDS = ("nodes", "runs", "playbooks", "pools", "policies", "ledgers")
_STATUS_OF: Mapping[type, str] = {
    SaveRun: "runs",
    SaveLedger: "ledgers",
    SavePoolStatus: "pools",
    SavePlaybookStatus: "playbooks",
}


@dataclass
class Feed:
    """One kind's watch: what is stored, and what the watch has not shown yet."""

    store: Store[Any]
    decoder: Any
    objects: dict[str, Json] = field(default_factory=dict)
    pending: deque[tuple[str, Json, bool]] = field(default_factory=deque)
    lags: bool = True  # until the first list


class ApiServer:
    """``ports.Writer``, ``Records`` and ``Reader``, and the caches that its watches feed."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.version = 100
        self.pods: dict[str, PodView] = {}
        self.jobs: dict[str, JobView] = {}
        self.heartbeats: dict[str, LeaseView] = {}
        self.blocked_pods: set[str] = set()
        self.events: list[PublishEvent] = []
        self.sent: list[Sent] = []
        self.effects: Counter[str] = Counter()
        self.fates: dict[str, deque[Fate]] = {}
        self.read_errors: deque[Exception] = deque()
        self.reads: list[str] = []
        self.latency_s: Callable[[], float] = float  # of each way of each request, and of each watch
        self.on_job: Callable[[CreateJob], None] = self._reboot
        self.crash_at = 0
        self.commit_before_crash = False
        self.dead = False
        self._serial = 0
        self._watches: list[asyncio.Task[None]] = []
        self.feeds = self._fresh_feeds()

    def _fresh_feeds(self) -> dict[str, Feed]:
        clock = self.clock
        nodes = node_decoder(gpu_resource="nvidia.com/gpu", annotations=frozenset(ANNOTATIONS))
        return {
            "nodes": Feed(Store(clock=clock, changed=node_changed), nodes),
            "runs": Feed(Store(clock=clock, changed=object_changed), kind_decoder(Remediation)),
            "playbooks": Feed(Store(clock=clock, changed=object_changed), kind_decoder(Playbook)),
            "pools": Feed(Store(clock=clock, changed=object_changed), kind_decoder(ResourcePool)),
            "policies": Feed(Store(clock=clock), policy_decoder()),
            "ledgers": Feed(Store(clock=clock, changed=object_changed), kind_decoder(ManagedNode)),
        }

    # -- caches

    @property
    def caches(self) -> Caches:
        return Caches(**{kind: self.feeds[kind].store for kind in KINDS})

    def sync(self) -> None:
        """List every kind, as a reflector does first."""
        for kind in KINDS:
            self.relist(kind)

    def relist(self, kind: str) -> None:
        feed = self.feeds[kind]
        feed.pending.clear()
        feed.lags = False
        changes = [
            feed.decoder.listed(msgspec.Raw(msgspec.json.encode(each))) for each in feed.objects.values()
        ]
        views = {each.key: each.view for each in changes if each.view is not None}
        versions = {each.key: each.version for each in changes}
        bad = {each.key: each.problem for each in changes if each.view is None}
        feed.store.tell(feed.store.replace(views, versions, bad, self.version))

    def restart(self) -> None:
        """A new process: the objects are still there, the caches are empty, nothing more is lost."""
        objects = {kind: feed.objects for kind, feed in self.feeds.items()}
        self.feeds = self._fresh_feeds()
        for kind, stored in objects.items():
            self.feeds[kind].objects = stored
        self.crash_at, self.dead = 0, False

    def lag(self, *kinds: str) -> None:
        for kind in kinds:
            self.feeds[kind].lags = True

    def catch_up(self, *kinds: str) -> None:
        for kind in kinds or KINDS:
            self.feeds[kind].lags = False
            self.deliver(kind)

    def flush(self) -> None:
        """Show everything that no watch holds back."""
        for kind in KINDS:
            self.deliver(kind)

    def deliver(self, kind: str, *, up_to: int = 1_000_000) -> None:
        """Show what has happened, in its order."""
        feed = self.feeds[kind]
        while feed.pending and not feed.lags and up_to > 0:
            up_to -= 1
            name, obj, deleted = feed.pending.popleft()
            change = feed.decoder.listed(msgspec.Raw(msgspec.json.encode(obj)))
            if deleted:
                feed.store.remove(name, change.version)
            elif change.view is None:
                feed.store.mark_undecodable(name, change.version, change.problem)
            else:
                feed.store.put(name, change.version, change.view)

    def _show(self, kind: str, name: str, obj: Json, *, deleted: bool = False) -> None:
        feed = self.feeds[kind]
        feed.pending.append((name, copy.deepcopy(obj), deleted))
        if feed.lags:
            return
        late_s = self.latency_s()
        if late_s > 0:
            self._watches.append(asyncio.ensure_future(self._show_later(kind, late_s)))
            return
        try:
            asyncio.get_running_loop().call_soon(self.deliver, kind)  # the reply is faster
        except RuntimeError:
            self.deliver(kind)

    async def _show_later(self, kind: str, late_s: float) -> None:
        await self.clock.sleep(late_s)
        self.deliver(kind, up_to=1)

    # -- what people and other controllers do

    def get(self, kind: str, name: str) -> Json:
        return self.feeds[kind].objects[name]

    def names(self, kind: str) -> list[str]:
        return sorted(self.feeds[kind].objects)

    def put(self, kind: str, name: str, obj: Json) -> None:
        """Create or replace; the server fills in what is its own to say."""
        old = self.feeds[kind].objects.get(name)
        meta = {**obj.get("metadata", {}), "name": name}
        if old is None:
            self._serial += 1
            meta.setdefault("uid", f"uid-{name}-{self._serial}")
            meta["creationTimestamp"] = write_instant(self.clock.now().replace(microsecond=0))
            meta["generation"] = 1
        elif old.get("spec") != obj.get("spec"):
            meta["generation"] = old["metadata"].get("generation", 1) + 1
        self.version += 1
        meta["resourceVersion"] = str(self.version)
        self.feeds[kind].objects[name] = {**obj, "metadata": meta}
        self._show(kind, name, self.feeds[kind].objects[name])

    def change(self, kind: str, name: str, patch: Json) -> None:
        self.put(kind, name, merged(self.get(kind, name), patch))

    def delete(self, kind: str, name: str) -> None:
        obj = self.feeds[kind].objects.pop(name)
        self.version += 1
        self._show(
            kind, name, merged(obj, {"metadata": {"resourceVersion": str(self.version)}}), deleted=True
        )

    # -- what is going to happen to writes

    def fate(self, kind: str, *fates: Fate) -> None:
        """What becomes of the next writes of this kind (the action's class name)."""
        self.fates.setdefault(kind, deque()).extend(fates)

    def skip(self, kind: str, number: int, fate: Fate) -> None:
        """The same for the write after ``number`` undisturbed ones."""
        self.fate(kind, *[First(lambda: None)] * number, fate)

    async def apply(self, action: WorldAction, attribution: Attribution) -> Written:
        return await self._receive(action, attribution)

    async def save(self, action: RecordAction, attribution: Attribution) -> Written:
        return await self._receive(action, attribution)

    async def prove(self, action: SetCondition, attribution: Attribution) -> Written:
        return await self._receive(action, attribution)

    async def _receive(self, action: Action, by: Attribution) -> Written:
        sent = Sent(action, by)
        if self.dead:
            raise Crash
        self.sent.append(sent)
        lost_after = self.crash_at and len(self.sent) == self.crash_at
        if lost_after:
            self.dead = True
            if self.commit_before_crash:
                self._commit(action, by)
            raise Crash
        await self.clock.sleep(self.latency_s())
        written = await self._fated(sent)
        await self.clock.sleep(self.latency_s())
        if self.dead:
            raise Crash
        sent.outcome = written.outcome
        return written

    async def _fated(self, sent: Sent) -> Written:
        queue = self.fates.get(sent.kind)
        fate = queue.popleft() if queue else None
        match fate:
            case Refused(refusal=refusal, retry_after_s=retry_after_s):
                return Written(Outcome.REFUSED, refusal, f"{refusal.value} by script", b"", retry_after_s)
            case Fails(error=error):
                raise error
            case Lost(committed=committed):
                if committed:
                    self._commit(sent.action, sent.by)
                return Written(Outcome.UNKNOWN, message="no answer")
            case Held(until=until):
                await until.wait()
            case Late(until=until):
                written = self._commit(sent.action, sent.by)
                self.flush()
                await until.wait()
                return written
            case First(do=do):
                do()
        return self._commit(sent.action, sent.by)

    # -- storing

    def _commit(self, action: Action, by: Attribution) -> Written:
        written = self._store(action, by)
        if written.outcome is Outcome.APPLIED:
            self.effects[_effect(action)] += 1
        return written

    def _store(self, action: Action, by: Attribution) -> Written:
        match action:
            case PatchNode(name=name):
                return self._patch("nodes", name, msgspec.json.decode(bodies.node_patch(action, by.term)))
            case SetCondition():
                return self._prove(action)
            case EvictPod():
                return self._evict(action)
            case CreateJob():
                return self._create_job(action)
            case _:
                return self._record(action)

    def _record(self, action: RecordAction) -> Written:
        match action:
            case CreateRun(run=run):
                return self._create("runs", msgspec.json.decode(bodies.new_object(run)))
            case CreateLedger(node=node):
                created = self._create("ledgers", msgspec.json.decode(bodies.new_object(node)))
                if created.outcome is not Outcome.APPLIED:
                    return created
                patch = {"status": msgspec.to_builtins(node.status)}
                return self._patch("ledgers", node.metadata.name, patch)
            case SaveRun() | SaveLedger() | SavePoolStatus() | SavePlaybookStatus():
                body = bodies.status_patch(action.before, action.status, action.resource_version)
                return self._patch(_STATUS_OF[type(action)], action.name, msgspec.json.decode(body))
            case SavePolicy():
                return self._put_policy(msgspec.json.decode(bodies.policy_status_put(action)))
            case DeleteRun():
                return self._delete_run(action)
            case PublishEvent():
                self.events.append(action)
                return Written(Outcome.APPLIED)

    def _create(self, kind: str, obj: Json) -> Written:
        name = obj["metadata"]["name"]
        if name in self.feeds[kind].objects:
            return Written(Outcome.REFUSED, Refusal.EXISTS, f"{name} already exists")
        self.put(kind, name, obj)
        return self._answer(kind, name)

    def _patch(self, kind: str, name: str, patch: Json) -> Written:
        obj = self.feeds[kind].objects.get(name)
        if obj is None:
            return Written(Outcome.REFUSED, Refusal.GONE, f"{name} not found")
        wanted = patch.get("metadata", {}).get("resourceVersion", obj["metadata"]["resourceVersion"])
        if wanted != obj["metadata"]["resourceVersion"]:
            return Written(Outcome.REFUSED, Refusal.CONFLICT, f"{name}: {wanted} is not the newest version")
        self.put(kind, name, merged(obj, patch))
        return self._answer(kind, name)

    def _prove(self, action: SetCondition) -> Written:
        obj = self.feeds["nodes"].objects.get(action.name)
        said = {"type": action.type, "status": action.status, "reason": action.reason}
        others = [
            each
            for each in (obj or {}).get("status", {}).get("conditions", [])
            if each["type"] != action.type
        ]
        meta = {"resourceVersion": action.resource_version}
        return self._patch(
            "nodes", action.name, {"metadata": meta, "status": {"conditions": [*others, said]}}
        )

    def _put_policy(self, obj: Json) -> Written:
        stored = self.feeds["policies"].objects.get("cluster")
        if stored is None:
            return Written(Outcome.REFUSED, Refusal.GONE, "cluster not found")
        if stored["metadata"]["resourceVersion"] != obj["metadata"]["resourceVersion"]:
            return Written(Outcome.REFUSED, Refusal.CONFLICT, "cluster was written by somebody else")
        self.put("policies", "cluster", {**stored, "status": obj["status"]})
        return self._answer("policies", "cluster")

    def _delete_run(self, action: DeleteRun) -> Written:
        obj = self.feeds["runs"].objects.get(action.name)
        if obj is None:
            return Written(Outcome.REFUSED, Refusal.GONE)
        if obj["metadata"]["resourceVersion"] != action.resource_version:
            return Written(Outcome.REFUSED, Refusal.CONFLICT)
        self.delete("runs", action.name)
        return Written(Outcome.APPLIED)

    def _answer(self, kind: str, name: str) -> Written:
        return Written(Outcome.APPLIED, body=msgspec.json.encode(self.get(kind, name)))

    def _evict(self, action: EvictPod) -> Written:
        key = f"{action.namespace}/{action.name}"
        pod = self.pods.get(key)
        if pod is None or pod.uid != action.uid:
            return Written(Outcome.REFUSED, Refusal.GONE if pod is None else Refusal.CONFLICT)
        if key in self.blocked_pods:
            return Written(Outcome.REFUSED, Refusal.BUDGET, "Cannot evict pod: disruption budget")
        del self.pods[key]
        return Written(Outcome.APPLIED)

    def _create_job(self, action: CreateJob) -> Written:
        if action.name in self.jobs:
            return Written(Outcome.REFUSED, Refusal.EXISTS, f"{action.name} already exists")
        self.jobs[action.name] = JobView(action.namespace, action.name, f"uid-{action.name}")
        self.on_job(action)
        return Written(Outcome.APPLIED)

    def _reboot(self, action: CreateJob) -> None:
        """The Job's pod boots the machine anew, unless that happened already; all signals turn good."""
        info = self.get("nodes", action.node)["status"]["nodeInfo"]
        if info["bootID"] == action.env["EXPECTED_BOOT_ID"]:
            old = self.get("nodes", action.node)["status"]["conditions"]
            others = [{**each, "status": "False"} for each in old if each["type"] != "Ready"]
            ready = {"type": "Ready", "status": "True"}
            boot = {"nodeInfo": {"bootID": f"{info['bootID']}+"}, "conditions": [ready, *others]}
            self.change("nodes", action.node, {"status": boot})
        self.jobs[action.name] = msgspec.structs.replace(self.jobs[action.name], succeeded=True)

    # -- ports.Reader

    async def _read(self, what: str) -> None:
        if self.dead:
            raise Crash
        self.reads.append(what)
        await self.clock.sleep(self.latency_s())
        if self.read_errors:
            raise self.read_errors.popleft()

    async def pods_of(self, node: str) -> PodListing:
        await self._read(f"pods of {node}")
        return PodListing(tuple(pod for pod in self.pods.values() if pod.node == node), ())

    async def events_of(self, node: str, uid: str, *, newest: int) -> tuple[EventView, ...]:
        await self._read(f"events of {node}")
        return (EventView(None, "Warning KernelDeadlock"),)

    async def job(self, namespace: str, name: str) -> JobView | None:
        await self._read(f"job {name}")
        return self.jobs.get(name)

    async def pod_addresses(self, namespace: str, selector: LabelSelector) -> Mapping[str, tuple[str, ...]]:
        await self._read("pod addresses")
        return {}

    async def heartbeat(self, node: str) -> LeaseView | None:
        await self._read(f"heartbeat of {node}")
        return self.heartbeats.get(node)

    async def run_exists(self, name: str) -> bool:
        await self._read(f"run {name}")
        return name in self.feeds["runs"].objects

    async def policy(self) -> PolicyObject | None:
        await self._read("policy")
        obj = self.feeds["policies"].objects.get("cluster")
        if obj is None:
            return None
        view = policy_decoder().listed(msgspec.Raw(msgspec.json.encode(obj))).view
        if view is None:
            raise TransientError("the policy does not decode")
        return view


def merged(target: Json, patch: Json) -> Json:
    """RFC 7396. A copy: nothing that was shown before changes."""
    result = dict(target)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            old = result.get(key)
            result[key] = merged(old if isinstance(old, dict) else {}, value)
        else:
            result[key] = value
    return result


def _effect(action: Action) -> str:
    match action:
        case PatchNode(name=name, patch=patch):
            notes: Any = patch.get("metadata", {})
            return f"patch {name} {notes.get('annotations', {}).get('remediator.dev/run', '')}".strip()
        case EvictPod(namespace=namespace, name=name):
            return f"evict {namespace}/{name}"
        case CreateJob(name=name):
            return f"job {name}"
        case CreateRun(run=run):
            return f"run {run.metadata.name}"
        case _:
            return type(action).__name__


def a_custom(kind: str, spec: object, **status: object) -> Json:
    """An object of ours as JSON."""
    obj: Json = {"apiVersion": API_VERSION, "kind": kind, "spec": msgspec.to_builtins(spec)}
    return {**obj, "status": status} if status else obj
