"""The table of metrics: complete, closed, at zero from the start and bounded."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from remediator.adapters.telemetry.metrics import METRICS, Metrics, table_markdown
from remediator.adapters.telemetry.table import OPEN_VALUES_MAX, OTHER
from remediator.errors import ContractError
from remediator.ports import Outcome, Refusal, Telemetry

SOURCE = Path(__file__).resolve().parents[4] / "remediator"
KIND_OF = {"count": "counter", "gauge": "gauge", "observe": "histogram"}


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """The page as Prometheus reads it."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def names_in(folder: Path) -> set[str]:
    return {
        node.value
        for file in folder.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if node.value.startswith("remediator_") and node.value.isidentifier()
    }


def test_metrics_is_what_the_port_asks_for():
    """The runtime only knows the port."""
    telemetry: Telemetry = Metrics()

    telemetry.count("remediator_events_dropped_total", {})


def test_table_knows_every_metric_that_the_runtime_names():
    """A name that is missing here would end the process at its first use."""
    used = names_in(SOURCE / "runtime")

    assert used
    assert used <= set(METRICS)


def literal(node: ast.expr | None) -> str:
    """The text that stands there, or nothing where it is computed."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def calls_in(folder: Path) -> Iterator[tuple[str, str, str, dict[str, str]]]:
    """Place, method, metric and labels of each call whose metric and label names are literal."""
    for file in sorted(folder.glob("*.py")):
        for call in ast.walk(ast.parse(file.read_text())):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
                continue
            if call.func.attr not in KIND_OF or len(call.args) < 2 or not literal(call.args[0]):
                continue
            if isinstance(given := call.args[1], ast.Dict):
                labels = {
                    literal(key): literal(value) for key, value in zip(given.keys, given.values, strict=True)
                }
                yield f"{file.name}:{call.lineno}", call.func.attr, literal(call.args[0]), labels


def test_every_call_with_literal_labels_fits_the_table():
    """A wrong label or value must be found here and not at three in the morning."""
    calls = list(calls_in(SOURCE / "runtime"))

    assert len(calls) >= 10
    for place, method, metric, given in calls:
        row = METRICS[metric]
        assert KIND_OF[method] == row.kind, place
        assert set(given) == {label.name for label in row.labels}, place
        for label in row.labels:
            assert not label.values or given[label.name] in (*label.values, ""), place


def test_closed_label_sets_exist_at_zero_from_the_start():
    """A rate over a series that appears with its first event shows nothing."""
    page = samples(Metrics())

    for outcome in Outcome:
        for refusal in Refusal:
            labels = (("action", "EvictPod"), ("outcome", outcome.value), ("refusal", refusal.value))
            assert page[("remediator_writes_total", labels)] == 0
    assert page[("remediator_step_duration_seconds_count", (("action", "drain"),))] == 0
    assert page[("remediator_cache_synced", (("kind", "nodes"),))] == 0
    assert page[("remediator_breaker_state", (("scope", "fleet"), ("state", "Open")))] == 0
    assert page[("remediator_leader", ())] == 0


def test_new_open_value_brings_all_its_closed_sets():
    """A playbook's first failure must not be the birth of its series."""
    metrics = Metrics()

    metrics.count("remediator_runs_total", {"playbook": "reboot", "outcome": "Returned"})

    page = samples(metrics)
    assert page[("remediator_runs_total", (("outcome", "Returned"), ("playbook", "reboot")))] == 1
    assert page[("remediator_runs_total", (("outcome", "Failed"), ("playbook", "reboot")))] == 0


def test_counter_gauge_and_histogram_show_what_was_entered():
    """The three kinds, through the text that Prometheus reads."""
    metrics = Metrics()

    metrics.count("remediator_faults_total", {"fault_class": "gpu-lost"}, 2)
    metrics.count("remediator_faults_total", {"fault_class": "gpu-lost"})
    metrics.gauge("remediator_nodes", {"pool": "train", "state": "serving"}, 7)
    metrics.observe("remediator_fleet_pass_seconds", {}, 0.003)

    page = samples(metrics)
    assert page[("remediator_faults_total", (("fault_class", "gpu-lost"),))] == 3
    assert page[("remediator_nodes", (("pool", "train"), ("state", "serving")))] == 7
    assert page[("remediator_fleet_pass_seconds_bucket", (("le", "0.0025"),))] == 0
    assert page[("remediator_fleet_pass_seconds_bucket", (("le", "0.005"),))] == 1
    assert page[("remediator_fleet_pass_seconds_sum", ())] == 0.003


@pytest.mark.parametrize(
    ("metric", "labels"),
    [
        ("remediator_nonsense_total", {}),
        ("remediator_evictions_total", {}),
        ("remediator_evictions_total", {"outcome": "applied", "node": "a"}),
        ("remediator_evictions_total", {"result": "applied"}),
        ("remediator_evictions_total", {"outcome": "perhaps"}),
        ("remediator_runs_total", {"playbook": "reboot", "outcome": "perhaps"}),
        ("remediator_leader", {}),
        ("remediator_fleet_pass_seconds", {}),
    ],
    ids=["name", "no-label", "label-more", "label", "value", "value-beside-open", "gauge", "histogram"],
)
def test_count_refuses_what_the_table_does_not_know(metric, labels):
    """A typing error must not become a series of its own."""
    with pytest.raises(ContractError, match=metric):
        Metrics().count(metric, labels)


def test_counter_never_goes_down_and_kinds_are_kept_apart():
    """Prometheus takes a falling counter for a restart."""
    metrics = Metrics()

    with pytest.raises(ContractError, match="counted by -1"):
        metrics.count("remediator_events_dropped_total", {}, -1)
    with pytest.raises(ContractError, match="no gauge"):
        metrics.gauge("remediator_events_dropped_total", {}, 1)
    with pytest.raises(ContractError, match="no histogram"):
        metrics.observe("remediator_leader", {}, 1)


def test_open_values_are_capped_and_the_rest_is_other():
    """Names come from the cluster; whoever makes a thousand must not fill Prometheus."""
    metrics = Metrics()

    for number in range(OPEN_VALUES_MAX + 50):
        metrics.count("remediator_faults_total", {"fault_class": f"class-{number}"})
    metrics.count("remediator_faults_total", {"fault_class": "class-0"})

    found = {
        key[1][0][1]: value for key, value in samples(metrics).items() if key[0] == "remediator_faults_total"
    }
    assert len(found) == OPEN_VALUES_MAX + 1
    assert found["class-0"] == 2
    assert found[OTHER] == 50


def test_forget_except_drops_what_is_gone_and_makes_room():
    """A deleted pool must not keep its last numbers for ever."""
    metrics = Metrics()
    for number in range(OPEN_VALUES_MAX):
        metrics.gauge("remediator_nodes", {"pool": f"p{number}", "state": "serving"}, 1)

    metrics.forget_except("remediator_nodes", "pool", ["p1"])
    metrics.gauge("remediator_nodes", {"pool": "new", "state": "serving"}, 1)

    pools = {dict(labels)["pool"] for name, labels in samples(metrics) if name == "remediator_nodes"}
    assert pools == {"p1", "new"}


def test_forget_except_refuses_a_closed_label():
    """Closed sets stay at zero, they never go."""
    metrics = Metrics()

    with pytest.raises(ContractError, match="no open label"):
        metrics.forget_except("remediator_nodes", "state", [])
    with pytest.raises(ContractError, match="no open label"):
        metrics.forget_except("remediator_leader", "pool", [])


def test_page_has_no_birth_times_but_the_process_and_the_build():
    """Series that nobody asks for cost every scrape; memory is a promise that must be watched."""
    page = samples(Metrics())

    names = {name for name, _ in page}
    assert not any(name.endswith("_created") for name in names)
    assert "process_resident_memory_bytes" in names
    assert [value for (name, _), value in page.items() if name == "remediator_build_info"] == [1]


def test_two_registries_do_not_share_anything():
    """Simulations run many controllers in one process."""
    one, other = Metrics(), Metrics()

    one.count("remediator_events_dropped_total", {})

    assert samples(other)[("remediator_events_dropped_total", ())] == 0


def test_names_follow_the_house_rules():
    """remediator_<noun>_<unit or total>, and buckets for histograms alone."""
    for name, row in METRICS.items():
        assert name.startswith("remediator_")
        assert name.endswith("_total") == (row.kind == "counter"), name
        assert bool(row.buckets) == (row.kind == "histogram"), name
        assert list(row.buckets) == sorted(set(row.buckets)), name
        assert row.kind != "histogram" or name.endswith("_seconds"), name


def test_reference_page_lists_every_metric_with_its_labels():
    """The page is generated, so it can only be wrong here."""
    text = table_markdown()

    for name, row in METRICS.items():
        assert f"| `{name}` | {row.kind} |" in text
        assert not row.buckets or f"| `{name}` | {row.buckets[0]:g}, " in text
    assert "playbook (open); mode: Disabled, Audit, Enforce" in text
    assert all(line.count("|") in (0, 3, 5) for line in text.splitlines())
