"""Every metric of the program: one literal table, from which registry and reference page are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, get_args

from remediator.core.actions import ACTIONS
from remediator.core.lifecycle import STATES
from remediator.core.run import UNDO
from remediator.errors import FetchTroubleKind
from remediator.ports import Outcome, Refusal

OPEN_VALUES_MAX: Final = 200
OTHER: Final = "other"


@dataclass(frozen=True, slots=True)
class Label:
    """One label. ``values`` are all it can have; none: open, at most 200 a metric and then ``other``.

    ``known`` are values of an open label that exist at zero from the start.
    """

    name: str
    values: tuple[str, ...] = ()
    known: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """``buckets`` are upper bounds in seconds, for histograms only."""

    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()


_REQUEST: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_LAG: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
_STEP: Final = (1.0, 5.0, 15.0, 30.0, 60.0, 300.0, 900.0, 1_800.0, 3_600.0, 14_400.0, 43_200.0, 86_400.0)
_FAST: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 3_600.0, 14_400.0, 86_400.0)

_ACTION: Final = Label("action", (*ACTIONS, UNDO))
_WRITE: Final = Label("action", ("PatchNode", "EvictPod", "CreateJob", "SetCondition"))
_OUTCOME: Final = Label("outcome", tuple(each.value for each in Outcome))
_REFUSAL: Final = Label("refusal", tuple(each.value for each in Refusal))
_EVICTION: Final = Label(
    "outcome",
    (Outcome.APPLIED.value, Outcome.UNKNOWN.value, *(each.value for each in Refusal)),
)
_RUN_END: Final = Label("outcome", tuple(state.value for state, row in STATES.items() if row.ended))
_PLAYBOOK: Final = Label("playbook")
_POOL: Final = Label("pool")
_KIND: Final = Label(
    "kind",
    ("nodes", "remediations", "playbooks", "resourcepools", "remediationpolicies", "managednodes", "pods"),
)

METRICS: Final[Mapping[str, Row]] = MappingProxyType(
    {
        "remediator_build_info": Row(
            "gauge", "Always 1; the labels say what runs.", (Label("version"), Label("python"))
        ),
        # -- leadership
        "remediator_leader": Row("gauge", "1 where this replica is the leader."),
        "remediator_term": Row("gauge", "The leader's term, as every write carries it."),
        "remediator_lease_failing": Row(
            "gauge", "1 where the latest attempt to take or to renew the Lease failed; the log says why."
        ),
        "remediator_clock_skew_seconds": Row(
            "gauge",
            "This machine's clock ahead of the API server's, whose time counts everywhere but in the log.",
        ),
        # -- the fleet
        "remediator_nodes": Row(
            "gauge",
            "Members of a pool: serving and not_serving add up, out are machines taken out of it.",
            (_POOL, Label("state", ("serving", "not_serving", "joining", "out"))),
        ),
        "remediator_spares": Row("gauge", "Nodes of a buffer pool that could be handed over.", (_POOL,)),
        "remediator_spares_wanted": Row("gauge", "spec.sparesWanted of a pool.", (_POOL,)),
        "remediator_faults_total": Row("counter", "Faults confirmed.", (Label("fault_class"),)),
        "remediator_open_faults": Row("gauge", "Confirmed faults right now.", (Label("fault_class"),)),
        "remediator_oldest_undecided_fault_seconds": Row(
            "gauge", "Age of the oldest confirmed fault that no fleet pass has looked at."
        ),
        # -- decisions
        "remediator_decisions_total": Row(
            "counter",
            "What fleet passes said to requests: act, audit, or queue with the gate's reason.",
            (Label("decision", ("act", "audit", "queue")), Label("reason", known=("Granted", "ModeAudit"))),
        ),
        "remediator_requests_waiting": Row("gauge", "Requests that a gate holds back."),
        "remediator_grants": Row("gauge", "Open grants, of at most 256."),
        "remediator_playbook_mode": Row(
            "gauge",
            "1 for the mode that a playbook is in, after policy.spec.maxMode.",
            (_PLAYBOOK, Label("mode", ("Disabled", "Audit", "Enforce"))),
        ),
        "remediator_playbook_valid": Row(
            "gauge", "0 where the newest version is not in force.", (_PLAYBOOK,)
        ),
        "remediator_paused": Row(
            "gauge", "1 while paused; scope is policy, pool/NAME or playbook/NAME.", (Label("scope"),)
        ),
        "remediator_breaker_state": Row(
            "gauge",
            "1 for the state that a breaker is in; scope is fleet, class/CLASS or cause/CLASS/LABEL=VALUE.",
            (Label("scope", known=("fleet",)), Label("state", ("Closed", "Open", "HalfOpen"))),
        ),
        "remediator_fleet_pass_seconds": Row("histogram", "Duration of fleet passes.", (), _REQUEST),
        "remediator_fleet_pass_errors_total": Row("counter", "Fleet passes whose result was not recorded."),
        # -- runs
        "remediator_runs_active": Row("gauge", "Open runs."),
        "remediator_runs_total": Row("counter", "Runs that ended, by how.", (_PLAYBOOK, _RUN_END)),
        "remediator_pass_errors_total": Row("counter", "Run passes that failed in a way nobody foresaw."),
        "remediator_orphans_swept_total": Row("counter", "Nodes whose orphaned marks were taken back."),
        "remediator_ledger_errors_total": Row("counter", "ManagedNodes that could not be written."),
        "remediator_steps_total": Row(
            "counter", "Steps that ended.", (_ACTION, Label("outcome", ("done", "skipped", "failed")))
        ),
        "remediator_step_duration_seconds": Row("histogram", "Intent to result.", (_ACTION,), _STEP),
        "remediator_step_failures_total": Row(
            "counter",
            "Steps that cannot go on until a person acts.",
            (Label("reason", known=("Permanent",)),),
        ),
        "remediator_time_to_isolate_seconds": Row(
            "histogram", "Fault first seen to node quarantined.", (), _FAST
        ),
        "remediator_time_to_capacity_seconds": Row(
            "histogram", "Fault first seen to spare in the pool.", (), _FAST
        ),
        "remediator_time_to_return_seconds": Row(
            "histogram", "Fault first seen to machine returned.", (), _FAST
        ),
        # -- joins
        "remediator_joins_total": Row(
            "counter",
            "New nodes: let in, would be let in (Audit), found unfit, or registered without the join gate.",
            (Label("outcome", ("let_in", "would_let_in", "unfit", "gate_missing")),),
        ),
        "remediator_join_wait_seconds": Row(
            "histogram", "Creation of a Node to its join gate open.", (), _STEP
        ),
        "remediator_joins_waiting": Row("gauge", "Nodes at the join gate, by why.", (Label("reason"),)),
        "remediator_join_oldest_wait_seconds": Row("gauge", "Age of the oldest Node at the join gate."),
        "remediator_join_rate_share": Row("gauge", "The share of the join rates that the brake leaves."),
        # -- writes
        "remediator_writes_total": Row(
            "counter", "Writes to nodes, pods and Jobs.", (_WRITE, _OUTCOME, _REFUSAL)
        ),
        "remediator_write_seconds": Row("histogram", "Duration of such writes.", (_WRITE,), _REQUEST),
        "remediator_evictions_total": Row("counter", "Evictions: the outcome, or why refused.", (_EVICTION,)),
        "remediator_events_dropped_total": Row("counter", "Kubernetes Events dropped: the queue was full."),
        # -- what is known
        "remediator_cache_synced": Row("gauge", "1 where the kind was read completely.", (_KIND,)),
        "remediator_cache_age_seconds": Row(
            "gauge",
            "Since the server last proved the cache fresh; read it together with cache_synced.",
            (_KIND,),
        ),
        "remediator_watch_events_total": Row("counter", "Watch events that changed an object.", (_KIND,)),
        "remediator_relists_total": Row("counter", "Complete states taken over.", (_KIND,)),
        "remediator_last_full_sync_timestamp_seconds": Row(
            "gauge", "Unix time at which every kind was last proved to be in step; 0: never."
        ),
        "remediator_blind": Row(
            "gauge", "1 while this replica knows too little, or too old things, to decide anything."
        ),
        "remediator_watch_broken_seconds": Row(
            "gauge", "For how long the watch of a kind has not lived; 0 while it does.", (_KIND,)
        ),
        "remediator_objects_undecodable": Row(
            "gauge", "Objects that can't be read; their last good version counts.", (_KIND,)
        ),
        "remediator_cache_alarms_total": Row(
            "counter", "Times that an object, or a whole kind, went back in time on the server.", (_KIND,)
        ),
        "remediator_pages": Row(
            "gauge",
            "Exporter pages by state; only fresh ones are knowledge.",
            (Label("state", ("waiting", "fresh", "stale")),),
        ),
        "remediator_page_failures_total": Row(
            "counter",
            "Exporter pages that could not be read.",
            (Label("reason", get_args(FetchTroubleKind)),),
        ),
        "remediator_page_lines_skipped_total": Row(
            "counter", "Lines of exporter pages that could not be read; the rest of the page counts."
        ),
        "remediator_taints_put_back_total": Row(
            "counter", "Times that our taint was put back after a controller of spec.rewriters had lost it."
        ),
        # -- the process
        "remediator_event_loop_lag_seconds": Row(
            "histogram", "How late the event loop gave this process its turn.", (), _LAG
        ),
    }
)


def table_markdown() -> str:
    """The reference page: one table of all metrics, in the table's order."""
    lines = [
        "# Metrics",
        "",
        "Served on `/metrics` in the Prometheus text format, together with the usual `process_*` metrics.",
        "Label sets with closed values exist at zero from the start. The open labels of a metric have at",
        f"most {OPEN_VALUES_MAX} combinations of values; what comes later is counted under `{OTHER}`.",
        "",
        "| Name | Type | Labels | Meaning |",
        "|---|---|---|---|",
    ]
    for name, row in METRICS.items():
        labels = "; ".join(_label_text(each) for each in row.labels) or "none"
        lines.append(f"| `{name}` | {row.kind} | {labels} | {row.help} |")
    lines += ["", "## Buckets", "", "| Name | Upper bounds in seconds |", "|---|---|"]
    lines += [
        f"| `{name}` | {', '.join(f'{bound:g}' for bound in row.buckets)} |"
        for name, row in METRICS.items()
        if row.buckets
    ]
    return "\n".join(lines) + "\n"


def _label_text(label: Label) -> str:
    return f"{label.name}: {', '.join(label.values)}" if label.values else f"{label.name} (open)"
