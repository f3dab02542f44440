"""From the condition's commit to the taint's commit, one fault at a time, ours and bare in turns.

Both times are the API server's own, from its audit log. Trials come in blocks: the product's, then
the baseline's, so that whatever else the machine does meets both. Within a block no node is used
twice and nothing is taken back; between blocks everything is, and the fleet is idle again.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Final

import msgspec

from bench import bare
from bench.context import Context
from bench.join import Timed, Trial, join
from bench.results import Finding, Series, a_series, at_most
from bench.scene import BARE_USER, CONDITION, GRANTS_MAX, TAINT_SUFFIX, NodeSize, Scene
from bench.wire import STRATEGIC_PATCH, RawApi
from remediator.adapters.audit import AuditRecord
from remediator.testbed.audit import Mark
from remediator.testbed.node_edits import timestamp
from remediator.testbed.stage import NODES, USER
from remediator.testbed.waiting import WaitExpiredError

BLOCK: Final = 20
WARM_UP: Final = 10
PAUSE_S: Final = (0.25, 0.45)  # between two trials; a random phase against everything periodic
LOOK_S: Final = 0.05
ANSWER_S_MAX: Final = 5.0
REST_S: Final = 1.0
TYPES: Final = {USER: CONDITION, BARE_USER: bare.CONDITION}
NAMES: Final = {USER: "remediator", BARE_USER: "bare"}


class Player:
    """Sets conditions and takes everything back."""

    def __init__(self, scene: Scene, raw: RawApi, rng: Random) -> None:
        self._scene = scene
        self._raw = raw
        self._rng = rng
        self._order = deque(spec.name for spec in scene.specs)
        rng.shuffle(self._order)
        self.trials: list[Trial] = []
        self._position: Mark = scene.audit.mark()

    async def block(self, user: str, size: int) -> None:
        """Play ``size`` trials for one user on nodes that rested longest, and take all back."""
        nodes = [self._next() for _ in range(size)]
        for node in nodes:
            await self._trial(user, node)
            await asyncio.sleep(self._rng.uniform(*PAUSE_S))
        await asyncio.to_thread(self._check_grants)
        await self.take_back(user, nodes)

    async def take_back(self, user: str, nodes: Sequence[str]) -> None:
        """End the fault of these nodes, and wait until the fleet is idle again."""
        for node in nodes:
            await self._set(node, TYPES[user], "False", audit_id="")
        if user == BARE_USER:
            await asyncio.to_thread(self._untaint, nodes)
        await asyncio.to_thread(self._scene.wait_idle)
        await asyncio.sleep(REST_S)

    def _next(self) -> str:
        """The node that rested longest; a block is smaller than the fleet, so none comes twice in one."""
        self._order.rotate(-1)
        return self._order[-1]

    async def _trial(self, user: str, node: str) -> None:
        trial = Trial(user, node, f"bench-{len(self.trials)}-{self._rng.getrandbits(64):016x}")
        self.trials.append(trial)
        await self._set(node, TYPES[user], "True", audit_id=trial.audit_id)
        deadline = time.monotonic() + ANSWER_S_MAX
        # The file is read, not the server asked: looking must not slow down what is looked at.
        while not self._answered(trial):
            if time.monotonic() > deadline:
                self._scene.check_bare()
                raise WaitExpiredError(
                    f"{NAMES[user]} did not taint {node} within {ANSWER_S_MAX:g} s:\n{self._scene.log_tail()}"
                )
            await asyncio.sleep(LOOK_S)

    def _answered(self, trial: Trial) -> bool:
        end = self._scene.audit.mark()
        seen = self._scene.audit.since(self._position, end)
        found = any(_is_patch(record, trial) for record in seen)
        self._position = end
        return found

    async def _set(self, node: str, type_: str, status: str, *, audit_id: str) -> None:
        at = timestamp()
        condition = {
            "type": type_,
            "status": status,
            "reason": "Bench",
            "message": "set by a benchmark",
            "lastHeartbeatTime": at,
            "lastTransitionTime": at,
        }
        body = msgspec.json.encode({"status": {"conditions": [condition]}})
        path = f"{NODES}/{node}/status"
        await self._raw.send("PATCH", path, body, content_type=STRATEGIC_PATCH, audit_id=audit_id)

    def _check_grants(self) -> None:
        held = self._scene.open_grants()
        if held > GRANTS_MAX:
            raise RuntimeError(f"{held} grants are open, at most {GRANTS_MAX} may be")

    def _untaint(self, nodes: Sequence[str]) -> None:
        for name in nodes:
            taints = self._scene.node(name)["spec"].get("taints") or []
            kept = [each for each in taints if not each["key"].endswith(TAINT_SUFFIX)]
            kept = [each for each in kept if each["key"] != "node.kubernetes.io/unschedulable"]
            patch = {"spec": {"taints": kept, "unschedulable": None}}
            self._scene.api.merge_patch(f"{NODES}/{name}", patch)


def _is_patch(record: AuditRecord, trial: Trial) -> bool:
    about = record.object_ref
    return (
        record.committed
        and record.verb == "patch"
        and (record.username, about.resource, about.subresource) == (trial.user, "nodes", "")
        and about.name == trial.node
    )


def measure(context: Context, *, nodes: int, size: NodeSize) -> Finding:
    """Play all trials on a fleet of ``nodes`` and report both sides."""
    with Scene(context.directory / "scene", context.binaries, nodes=nodes, size=size) as scene:
        scene.start_controller(pages=False)
        timed = asyncio.run(_play(scene, context))
        bytes_per_node = len(msgspec.json.encode(scene.node(scene.specs[0].name)))
    return _finding(context, timed, nodes=nodes, size=size, bytes_per_node=bytes_per_node)


async def _play(scene: Scene, context: Context) -> list[Timed]:
    rng = Random(context.seed)
    async with RawApi(Path(scene.cluster.kubeconfig)) as raw:
        player = Player(scene, raw, rng)
        await player.block(USER, 1)
        scene.start_bare(scene.runs()[0])
        for user in (USER, BARE_USER):
            await player.block(user, WARM_UP)
        first = len(player.trials)
        mark = scene.audit.mark()
        for done in range(0, context.trials, BLOCK):
            size = min(BLOCK, context.trials - done)
            for user in (USER, BARE_USER):
                await player.block(user, size)
            context.tell(f"{done + size} of {context.trials} trials a side")
        return join(scene.audit.since(mark), player.trials[first:], taint=TAINT_SUFFIX)


def _finding(
    context: Context, timed: Sequence[Timed], *, nodes: int, size: NodeSize, bytes_per_node: int
) -> Finding:
    missing = [each.trial.node for each in timed if each.total is None]
    if missing:
        raise RuntimeError(f"{len(missing)} trials have no taint in the audit log: {missing[:5]}")
    ours, plain = (_series(timed, user) for user in (USER, BARE_USER))
    p50 = ours[0].summary.p50 / plain[0].summary.p50
    p99 = ours[0].summary.p99 / plain[0].summary.p99
    return Finding(
        series=(*ours, *plain),
        checks=(at_most("P50 to bare P50", p50, 1.25), at_most("P99 to bare P99", p99, 2.5)),
        conditions={
            "nodes": nodes,
            "nodeSize": size,
            "bytesPerNode": bytes_per_node,
            "pods": 0,
            "trialsPerSide": context.trials,
            "blockSize": BLOCK,
            "openGrantsMax": BLOCK,
            "faultsAtOnce": 1,
            "for": "0s",
            "limits": "budgets 100 %, rate 10,000/m, breaker 10,000",
            "exporters": "none",
            "apiLatency": "loopback, etcd without fsync",
            "account": "ours under the shipped ServiceAccount and RBAC; bare under one of its own",
        },
        notes=(
            "Times are the API server's, from the commit of the condition to the commit of the taint.",
            "Both processes watch all nodes during both kinds of blocks.",
            "notice + intent + turn + patch is the whole; intent of remediator is POST and grant together.",
        ),
    )


def _series(timed: Sequence[Timed], user: str) -> list[Series]:
    mine = [each for each in timed if each.trial.user == user]
    parts = {
        "": [each.total or 0.0 for each in mine],
        ", notice": [each.notice for each in mine],
        ", intent": [each.intent for each in mine],
        ", turn": [each.turn for each in mine],
        ", patch": [each.patch for each in mine],
    }
    return [a_series(f"{NAMES[user]}{part}", "ms", samples) for part, samples in parts.items()]
