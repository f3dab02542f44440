"""Many faults at once: from the first condition's commit to the last taint's, ours and bare in turns.

Budgets are raised to all nodes: what is measured is how fast permission is written down and acted
on, not how much of it there is. Times are the API server's own, from its audit log.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Final

from msgspec import Struct

from bench.condition_to_taint import NAMES, TYPES, Player
from bench.context import Context
from bench.join import Trial, adds_taint
from bench.results import Count, Finding, Series, a_series, at_most
from bench.scene import BARE_USER, TAINT_SUFFIX, Scene
from bench.wire import RawApi
from remediator.adapters.audit import AuditRecord
from remediator.testbed.stage import USER
from remediator.testbed.waiting import WaitExpiredError

GRANTS: Final = 256  # as many as the policy's status can hold
TOGETHER: Final = 64  # conditions on their way to the server at once
END_S_MAX: Final = 120.0
LOOK_S: Final = 0.1


class Round(Struct, frozen=True):
    """One burst of one side, in ms from the first condition's commit."""

    user: str
    last_condition: float
    first_taint: float
    last_taint: float


class Bursts(Player):
    """Sets the condition on every node at once, and takes everything back."""

    async def burst(self, user: str) -> None:
        """One round, on all nodes."""
        nodes = [spec.name for spec in self._scene.specs]
        trials = [Trial(user, node, f"burst-{self._rng.getrandbits(64):016x}") for node in nodes]
        self.trials.extend(trials)
        at_once = asyncio.Semaphore(TOGETHER)

        async def begin(trial: Trial) -> None:
            async with at_once:
                await self._set(trial.node, TYPES[user], "True", audit_id=trial.audit_id)

        async with asyncio.TaskGroup() as group:
            for trial in trials:
                group.create_task(begin(trial))
        await self._wait_for(user, set(nodes))
        await self.take_back(user, nodes)

    async def _wait_for(self, user: str, missing: set[str]) -> None:
        deadline = time.monotonic() + END_S_MAX
        while missing:
            end = self._scene.audit.mark()
            for record in self._scene.audit.since(self._position, end):
                if record.username == user and record.committed and adds_taint(record, TAINT_SUFFIX):
                    missing.discard(record.object_ref.name)
            self._position = end
            if missing and time.monotonic() > deadline:
                raise WaitExpiredError(
                    f"{NAMES[user]} did not taint {len(missing)} nodes within {END_S_MAX:g} s:\n"
                    f"{self._scene.log_tail()}"
                )
            await asyncio.sleep(LOOK_S)


def measure(context: Context, *, nodes: int, rounds: int) -> Finding:
    """Play ``rounds`` bursts a side on a fleet of small nodes and report both."""
    with Scene(context.directory / "scene", context.binaries, nodes=nodes, size="small") as scene:
        wide = dict.fromkeys(("maxConcurrent", "poolMaxConcurrent", "maxRepairs"), GRANTS)
        scene.patch_policy(wide)
        scene.start_controller(pages=False)
        played = asyncio.run(_play(scene, context, rounds))
        lags = late_turns(scene.controller.ask("/metrics")[1])
    ours, plain = (_series(played, user) for user in (USER, BARE_USER))
    ratio = ours[0].summary.p50 / plain[0].summary.p50
    return Finding(
        series=(*ours, *plain),
        checks=(at_most("P50 of the last taint to bare", ratio, 1.25),),
        counts=tuple(Count(name=f"turns of the loop late by more than {le} s", value=n) for le, n in lags),
        conditions={
            "nodes": nodes,
            "nodeSize": "small",
            "roundsPerSide": rounds,
            "faultsAtOnce": nodes,
            "openGrantsMax": GRANTS,
            "limits": "budgets 100 %, rate 10,000/m, breaker 10,000",
            "apiLatency": "loopback, etcd without fsync",
            "account": "ours under the shipped ServiceAccount and RBAC; bare under one of its own",
        },
        notes=(
            "A burst of 1,000 is no figure: above 255 faults within its window the breaker opens, whatever "
            "the policy says.",
            "Times are the API server's, from the commit of the first condition of a burst.",
            "Both answer many nodes at once. Bare keeps no books: each of its nodes stands alone.",
        ),
    )


async def _play(scene: Scene, context: Context, rounds: int) -> list[Round]:
    async with RawApi(Path(scene.cluster.kubeconfig)) as raw:
        bursts = Bursts(scene, raw, Random(context.seed))
        await bursts.block(USER, 1)
        scene.start_bare(scene.runs()[0])
        found: list[Round] = []
        for number in range(rounds + 1):
            for user in (USER, BARE_USER):
                first, mark = len(bursts.trials), scene.audit.mark()
                await bursts.burst(user)
                one = timed(scene.audit.since(mark), bursts.trials[first:])
                if number:  # the first one warms up
                    found.append(one)
            context.tell(f"{number} of {rounds} rounds a side")
    return found


def timed(records: Iterable[AuditRecord], trials: Sequence[Trial]) -> Round:
    """Find one burst's times in the audit log.

    Raises:
        ValueError: a condition or a taint of it is not there.
    """
    user, ids = trials[0].user, {each.audit_id for each in trials}
    began: list[datetime] = []
    tainted: dict[str, datetime] = {}
    for record in records:
        if not record.committed:
            continue
        if record.audit_id in ids:
            began.append(record.staged_at)
        elif record.username == user and adds_taint(record, TAINT_SUFFIX):
            tainted.setdefault(record.object_ref.name, record.staged_at)
    if len(began) != len(trials) or len(tainted) != len(trials):
        raise ValueError(f"{len(began)} conditions and {len(tainted)} taints of {len(trials)}")
    zero = min(began)
    ends = (max(began), min(tainted.values()), max(tainted.values()))
    return Round(user, *((each - zero).total_seconds() * 1_000.0 for each in ends))


def late_turns(page: str) -> list[tuple[str, float]]:
    """How often the controller's event loop was late by more than each bound of its histogram, in seconds."""
    name = "remediator_event_loop_lag_seconds"
    total = float(re.findall(rf"^{name}_count (\S+)$", page, re.M)[0])
    buckets = re.findall(rf'^{name}_bucket{{le="([\d.]+)"}} (\S+)$', page, re.M)
    return [("0 (looks in all)", total), *((le, total - float(count)) for le, count in buckets)]


def _series(rounds: Sequence[Round], user: str) -> list[Series]:
    mine = [each for each in rounds if each.user == user]
    parts = {
        ", last taint": [each.last_taint for each in mine],
        ", first taint": [each.first_taint for each in mine],
        ", last condition": [each.last_condition for each in mine],
    }
    return [a_series(f"{NAMES[user]}{part}", "ms", samples) for part, samples in parts.items()]
