"""remediator as a subject: everything it ships in Enforce, replicas built like the process in a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Final

from msgspec.structs import replace

from remediator.app.lifeline import Wrap, as_it_is
from remediator.app.simulation import Simulation, enforcing, shipped_objects
from remediator.chaos.draw import AROUND, FAULT_KINDS, Words
from remediator.chaos.profile import Budget, Pools, Profile, Reboots, load_profile
from remediator.chaos.subject import Candidate, Process, Subject
from remediator.fleet.layout import BUFFER, INFER, TRAIN
from remediator.fleet.node_objects import LABEL_POOL, NodeSpec, Object
from remediator.model.keys import LABEL_NODE, LABEL_REPAIR
from remediator.sim.audit import Sink
from remediator.sim.loop import VirtualClock

NODE_KEYS: Final = ("example.com/pool",)  # of the policy that is applied
HOLD_S: Final = 300.0
PER: Final = "15m"
SOAK: Final = "5m"
OUT_AT_ONCE: Final = 2  # of a pool, as the policy comes out for the 24 nodes at most of a drawn fleet
# One Job a run. On a cluster whose Remediations are deleted by hand, names of runs come again.
REBOOTS: Final = Reboots(
    resource="jobs", node=f"metadata.labels[{LABEL_NODE}]", attempt=f"metadata.labels[{LABEL_REPAIR}]"
)
POOLS: Final = Pools(label=LABEL_POOL, spare=(BUFFER,), alike=("nvidia.com/gpu.product",))
# The longest time of any shipped playbook, and the half hour that a storm may take.
LONGEST: Final[Mapping[str, float]] = {
    "Granted": 1_800.0, "Quarantined": 2_400.0, "HandedOver": 1_800.0, "Draining": 16_200.0,
    "Detached": 1_800.0, "Repairing": 3_600.0,
}  # fmt: skip

WORDS: Final = Words(
    breaks=("Xid", "Xid", "RemapPending", "Condition", "Silent"),
    others=(*AROUND, "PagesLie", "PageTrouble", "Heal"),
    conditions=("KernelDeadlock=True", "ReadonlyFilesystem=True", "FrequentKubeletRestart=True"),
    resources=("remediations", "remediationpolicies"),
    strikes=(
        *FAULT_KINDS,
        "Garbled",
        "Denied",
        "NotServed",
        "Unauthorized",
        "WatchRepeats",
        "WatchLate",
        "BookmarksMissing",
    ),
)


def shipped_profile() -> Profile:
    """Ours, with what the policy says that a history applies: keys of Nodes, and the time after a veto."""
    profile = load_profile("remediator")
    assert profile.own is not None
    own = replace(profile.own, keys=(*profile.own.keys, *NODE_KEYS))
    return replace(profile, own=own, veto_seconds=HOLD_S)


class Ours(Subject):
    """See ``Open`` for the arguments; ``raised`` is how many nodes more may be out at once."""

    def __init__(
        self, clock: VirtualClock, *, seed: int, specs: Iterable[NodeSpec], audit: Sink, raised: int = 0
    ) -> None:
        objects = [hastened(each) for each in enforcing(shipped_objects())]
        if raised:
            objects = [widened(each, raised) for each in objects]
        self._simulation = Simulation(clock, seed=seed, specs=specs, objects=objects, audit=audit)
        self.cluster = self._simulation.cluster
        self.processes: list[Process] = []

    async def start(self, wrap: Wrap = as_it_is) -> Process:
        replica = await self._simulation.start(wrap=wrap)
        self.processes.append(replica)
        return replica

    def work(self) -> Iterator[str]:
        """Work that was never granted has done nothing, and is left out."""
        for run in self._simulation.all("remediations"):
            status, spec = run.get("status") or {}, run["spec"]
            if status.get("state") == "NotGranted":
                continue
            spare = (status.get("spare") or {}).get("name", "")
            what = f"{spec['node']['name']}: {spec['faultClass']}"
            yield f"work {what}: {status.get('state', '')} {spare}".rstrip()


def hastened(item: Object) -> Object:
    """The same playbook with a quarter of what only takes time: its soak, and the hour of its rate.

    A fleet that lies is worked off in one hour instead of six, and no limit is another one.
    """
    if item["kind"] != "Playbook":
        return item
    spec = item["spec"]
    steps = [
        step | {"verify": step["verify"] | {"quietFor": SOAK}} if "verify" in step else step
        for step in spec["steps"]
    ]
    limits = spec.get("limits", {})
    if "rate" in limits:
        limits = limits | {"rate": limits["rate"] | {"per": PER}}
    return item | {"spec": spec | {"steps": steps} | ({"limits": limits} if limits else {})}


def widened(item: Object, raised: int) -> Object:
    """The same policy, or playbook, with limits by which so many nodes more may be out at once."""
    spec = item.get("spec", {})
    if item["kind"] == "RemediationPolicy":
        floor = {"atLeast": OUT_AT_ONCE + raised}
        more = {key: spec[key] | floor for key in ("maxUnavailable", "poolMaxUnavailable")}
        more |= {key: spec[key] + raised for key in ("maxConcurrent", "poolMaxConcurrent", "maxRepairs")}
        return item | {"spec": spec | more}
    if item["kind"] == "Playbook" and "limits" in spec:
        return item | {"spec": spec | {"limits": _raised(spec["limits"], raised)}}
    return item


def _raised(limits: Object, raised: int) -> Object:
    more: Object = {"maxConcurrent": limits["maxConcurrent"] + raised} if "maxConcurrent" in limits else {}
    if "rate" in limits:
        more["rate"] = limits["rate"] | {"burst": limits["rate"].get("burst", 1) + raised}
    return limits | more


def ours(raised: int = 0) -> Candidate:
    """remediator itself, with limits that are raised by so many nodes."""
    most = OUT_AT_ONCE + raised
    budgets = tuple(Budget(label=LABEL_POOL, value=pool, most=most) for pool in (TRAIN, INFER))
    profile = replace(shipped_profile(), budgets=budgets, pools=POOLS, reboots=REBOOTS, longest=LONGEST)
    return Candidate(profile, partial(Ours, raised=raised), WORDS)
