"""One node under watch, with playbooks, pages and conditions, for the tests of diagnosis."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from remediator.core.diagnose import DiagnoseInput, Diagnosis, FaultClock, diagnose
from remediator.core.edges import GpuMemory, merge_latches
from remediator.core.match import Book, bind, compile_playbooks
from remediator.model.ledger import ManagedNodeStatus
from remediator.model.meta import LabelSelector
from remediator.model.playbook import (
    GpuMetricMatch,
    Match,
    Matcher,
    NodeConditionMatch,
    NodeSelection,
    PlaybookInForce,
    PlaybookSpec,
    ReportStep,
    Step,
    XidMatch,
)
from remediator.model.signal import GpuReading, PageReading
from remediator.model.views import ConditionView, NodeView

T0 = datetime(2026, 11, 22, tzinfo=UTC)
PENDING = "DCGM_FI_DEV_ROW_REMAP_PENDING"
CODES = frozenset({62, 79})

XID = Matcher(id="xid", xid=XidMatch(codes=(62, 79)))
REMAP = Matcher(id="remap", gpu_metric=GpuMetricMatch(field=PENDING, op=">", value=0))
DEADLOCK = Matcher(id="deadlock", node_condition=NodeConditionMatch(type="KernelDeadlock", status="True"))


def lasting(matcher, for_):
    return Matcher(**{name: getattr(matcher, name) for name in matcher.__struct_fields__} | {"for_": for_})


def a_playbook(*matchers, name="p", priority=500, severity="Soft", fault_class="gpu.bad", pool=""):
    selector = NodeSelection(selector=LabelSelector(match_labels={"pool": pool}), match_all=not pool)
    spec = PlaybookSpec(
        summary="x",
        mode="Enforce",
        fault_class=fault_class,
        severity=severity,
        priority=priority,
        nodes=selector if pool else NodeSelection(match_all=True),
        match=Match(any_of=matchers),
        steps=(Step(id="tell", report=ReportStep()),),
    )
    return PlaybookInForce(name=name, generation=1, spec=spec, text="{}")


def a_book(*playbooks) -> Book:
    return bind(compile_playbooks(playbooks))


def a_gpu(uuid="GPU-0", *, xid: int | None = 0, pending: float | None = 0.0):
    values = ((PENDING, pending),) if pending is not None else ()
    return GpuReading(uuid=uuid, index="0", xid=xid, values=values)


class Ward:
    """One node under watch. The ledger keeps what each diagnosis asks for, unless told otherwise."""

    def __init__(self, *playbooks, baselined=CODES):
        self.book = a_book(*playbooks)
        self.baselined = baselined
        self.ledger = ManagedNodeStatus()
        self.clock, self.gpus = FaultClock(), GpuMemory()
        self.now = T0
        self.uid, self.boot = "uid-1", "boot-1"
        self.conditions: tuple[ConditionView, ...] = (ConditionView("Ready", "True"),)
        self.gpu: tuple[GpuReading, ...] | None = (a_gpu(),)
        self.labels: dict[str, str] = {}

    def look(self, after_s: float = 15.0, *, explain=False, page_age_s=0.0) -> Diagnosis:
        self.now += timedelta(seconds=after_s)
        monotonic = (self.now - T0).total_seconds()
        reading = None
        if self.gpu is not None:
            reading = PageReading(node="n", at=self.now, at_monotonic=monotonic - page_age_s, gpus=self.gpu)
        found = diagnose(
            DiagnoseInput(
                machine="m",
                node=NodeView(
                    name="n",
                    uid=self.uid,
                    resource_version="1",
                    boot_id=self.boot,
                    labels=self.labels,
                    conditions=self.conditions,
                ),
                book=self.book,
                now=self.now,
                monotonic=monotonic,
                reading=reading,
                ledger=self.ledger,
                clock=self.clock,
                gpus=self.gpus,
                baselined=self.baselined,
                explain=explain,
            )
        )
        self.clock, self.gpus = found.clock, found.gpus
        latches = merge_latches(self.ledger.latches, found.latches_to_add, self.boot)
        self.ledger = ManagedNodeStatus(latches=latches, suspicions=found.records)
        return found

    def restart(self):
        self.clock, self.gpus = FaultClock(), GpuMemory()

    def reboot(self):
        self.boot += "+"

    def condition(self, status, reason="DockerHung", message=""):
        ready = ConditionView("Ready", "True")
        self.conditions = (
            (ready, ConditionView("KernelDeadlock", status, reason, message)) if status else (ready,)
        )


def answer(found: Diagnosis) -> str:
    """fault, hidden (confirmed, signal unknown now), suspicion, or none."""
    if found.faults:
        return "fault" if found.faults[0].known else "hidden"
    return "suspicion" if found.suspicions else "none"
