"""Small scenes for the tests of screens: a fleet, one fault, and what the gates say of it."""

from __future__ import annotations

from typing import Any

from remediator.app.explain import Answer, Judged
from remediator.app.leadership import Leadership
from remediator.core.diagnose import Diagnosis, FaultClock
from remediator.core.edges import GpuMemory
from remediator.core.fleet import open_books, open_case
from remediator.core.gates import evaluate
from remediator.core.plan import build_plan
from remediator.core.request import FleetView
from remediator.model.remediation import RemediationStatus, StepStatus
from remediator.model.signal import Evidence
from tests.unit.core.builders import T0, a_fault, a_fleet, a_node, a_playbook, a_policy, a_request, at, text

LEADS = Leadership(holder="remediator-7d9c", acquired=at(-3_600), renewed=at(-2), lease_s=15)
XID = Evidence(source="exporter", key="xid", text="xid 0 -> 79 on GPU 5", gpu="GPU-5", code=79)


def a_diagnosis(**fields: Any) -> Diagnosis:
    values: dict[str, Any] = (
        {
            "faults": (), "suspicions": (), "edges": (), "latches_to_add": (), "missing": (), "records": (),
            "signals": (), "unknown": (), "explanations": (), "next_due": None, "clock": FaultClock(),
            "gpus": GpuMemory(),
        }
        | fields
    )  # fmt: skip
    return Diagnosis(**values)


def ten_nodes(**fields: Any) -> FleetView:
    """``gpu-1`` to ``gpu-8`` in train, two spares in the buffer, one of them on an old driver."""
    train = [a_node(f"gpu-{number}") for number in range(1, 9)]
    spares = [a_node("spare-1", pool="buffer"), a_node("spare-2", pool="buffer", gpus=4)]
    return a_fleet([*train, *spares], **fields)


def judge(view: FleetView, playbook: Any = None, *, unjudged: Any = None, **fields: Any) -> Judged:
    """``gpu-1`` in front of the gates with a confirmed XID 79."""
    chosen = playbook or a_playbook(name="gpu-off-bus", summary="A GPU fell off the bus.")
    fault = a_fault(playbook=chosen.name, fault_class="gpu.bus", clears=False, evidence=(XID,))
    request = a_request(
        view.nodes["gpu-1"], playbook=chosen, fault_class="gpu.bus", evidence=(XID,), **fields
    )
    case = open_case(view, open_books(view, (fault,)).account, request)
    spare = case.spare.node if case.spare is not None else None
    return Judged(
        playbook=chosen,
        fault=fault,
        case=case,
        verdicts=evaluate(case),
        unjudged=unjudged or {},
        plan=build_plan(request, case.pool, spare),
        asked=None,
    )


def an_answer(view: FleetView | None = None, *judged: Judged, **fields: Any) -> Answer:
    seen = view or ten_nodes()
    found = a_diagnosis(signals=("xid 79 on GPU 5",)) if judged else a_diagnosis()
    values: dict[str, Any] = (
        {
            "now": T0, "term": 12, "node": seen.nodes["gpu-1"], "machine": "sn4t0377", "pool": "train",
            "diagnosis": found, "explanations": (), "judged": judged, "run": None, "ledger": None,
            "recorded": None, "leadership": LEADS, "view": seen, "notes": (),
        }
        | fields
    )  # fmt: skip
    return Answer(**values)


def audit() -> FleetView:
    return ten_nodes(policy=a_policy(max_mode="Audit"))


def a_blocked_status() -> RemediationStatus:
    """A drain that a PDB has stopped for 18 minutes."""
    fence = StepStatus(
        id="fence", action="quarantine", state="Done", started_at=text(-1_100), finished_at=text(-1_099.7),
        note="tainted and cordoned",
    )  # fmt: skip
    drain = StepStatus(id="drain", action="drain", state="Intent", started_at=text(-1_080), evictions=2)
    return RemediationStatus(
        state="Blocked", message="PDB ml/llm-eval lets no pod go (pod ml/llm-eval-0)",
        waits_for="PDB ml/llm-eval lets no pod go (pod ml/llm-eval-0)", until=text(720),
        steps=(fence, drain), started_at=text(-1_100),
    )  # fmt: skip
