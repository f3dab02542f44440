"""Alert rules, dashboard and sample route: of metrics that exist, read by the programs they are for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from remediator.adapters.telemetry.table import METRICS
from remediator.testbed.binaries import Binaries
from tests.deploy.manifests import DEPLOY, ROOT, Json, build, load, one, parse
from tests.deploy.promtools import PromTools

FOLDER = DEPLOY / "components/prometheus"
ALERTS = FOLDER / "alerts.yaml"
CASES = FOLDER / "alerts_test.yaml"
ROUTE = FOLDER / "alertmanager-route.yaml"
SEVERITIES = {"critical", "warning", "info"}
# What the client library itself exports of a process, as far as the dashboard shows it.
OF_THE_PROCESS = {"process_resident_memory_bytes", "process_cpu_seconds_total"}
METRIC = re.compile(r"\b((?:remediator|process)_[a-z_]+)(\{[^}]*\})?")
MATCHER = re.compile(r'(\w+)(!?=~?)"([^"]*)"')


def rules() -> list[Json]:
    return [rule for group in load(ALERTS)[0]["groups"] for rule in group["rules"]]


def panels() -> list[Json]:
    found: list[Json] = json.loads((FOLDER / "dashboard.json").read_text("utf-8"))["panels"]
    return found


def expressions() -> Iterator[tuple[str, str]]:
    """Every PromQL expression that is shipped, with a name for it."""
    for rule in rules():
        yield rule["alert"], rule["expr"]
    for panel in panels():
        for target in panel.get("targets", ()):
            yield f"panel {panel['title']}", target["expr"]


def row_of(name: str) -> tuple[str, set[str]]:
    """A metric's row in the table by the name of one of its series, and the labels of that series."""
    for suffix, more in (("", set()), ("_bucket", {"le"}), ("_sum", set()), ("_count", set())):
        base = name.removesuffix(suffix) if suffix else name
        if name.endswith(suffix) and base in METRICS and (not suffix or METRICS[base].kind == "histogram"):
            return base, {label.name for label in METRICS[base].labels} | more
    raise AssertionError(f"{name} is not exported")


@pytest.mark.parametrize(("where", "text"), tuple(expressions()), ids=lambda value: value[:40])
def test_every_series_that_is_asked_for_exists(where: str, text: str):
    """An alert on a metric that nobody exports is silent for ever, and looks like health."""
    asked = [found for found in METRIC.findall(text) if found[0] not in OF_THE_PROCESS]
    assert asked or OF_THE_PROCESS & {name for name, _ in METRIC.findall(text)}, where

    for name, selector in asked:
        base, labels = row_of(name)
        closed = {label.name: label.values for label in METRICS[base].labels if label.values}
        for label, operator, value in MATCHER.findall(selector):
            assert label in labels, f"{where}: {name} has no label {label}"
            if label in closed and operator in ("=", "!="):
                assert value in closed[label], f"{where}: {label} of {name} is never {value}"


def test_every_alert_names_a_severity_and_a_place_in_the_runbook():
    """At three in the morning a dead link costs the minutes that count."""
    for rule in rules():
        path, _, anchor = rule["annotations"]["runbook"].partition("#")
        headings = re.findall(r"^#+ (.+)$", (ROOT / path).read_text("utf-8"), re.MULTILINE)

        assert rule["labels"]["severity"] in SEVERITIES
        assert anchor in {slug(each) for each in headings}, rule["alert"]
        assert rule["annotations"]["summary"]
        assert f"`{rule['alert']}`" in (ROOT / path).read_text("utf-8"), "no line in the runbook's table"


def slug(heading: str) -> str:
    """The anchor that Markdown viewers make of a heading."""
    return re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")


def test_every_alert_is_seen_to_fire_and_to_be_silent():
    """A rule without a case is a rule that nobody has tried."""
    cases = [case for test in load(CASES)[0]["tests"] for case in test["alert_rule_test"]]
    fired = {case["alertname"] for case in cases if case["exp_alerts"]}
    silent = {case["alertname"] for case in cases if not case["exp_alerts"]}

    assert fired == silent == {rule["alert"] for rule in rules()}


def test_promtool_accepts_the_rules_and_their_cases(promtools: PromTools):
    """By Prometheus' own evaluation, over series in time."""
    assert f"{len(rules())} rules found" in promtools.run("promtool", "check", "rules", str(ALERTS))
    assert "SUCCESS" in promtools.run("promtool", "test", "rules", str(CASES))


def test_promtool_parses_every_expression_of_the_dashboard(promtools: PromTools, tmp_path: Path):
    """A panel with a typing error shows nothing, as a healthy one may."""
    found = [
        {"record": f"panel:{number}", "expr": text.replace("$__rate_interval", "5m")}
        for number, (where, text) in enumerate(expressions())
        if where.startswith("panel ")
    ]
    target = tmp_path / "panels.yaml"
    with target.open("w") as stream:
        YAML(typ="safe", pure=True).dump({"groups": [{"name": "panels", "rules": found}]}, stream)

    assert f"{len(found)} rules found" in promtools.run("promtool", "check", "rules", str(target))


def test_dashboard_can_be_imported_anywhere():
    """Panel numbers are unique, panels do not overlap, and the data source is chosen by the reader."""
    ids = [panel["id"] for panel in panels()]
    cells = [
        (x, y)
        for panel in panels()
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    sources = {target["datasource"]["uid"] for panel in panels() for target in panel.get("targets", ())}

    assert len(ids) == len(set(ids))
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert sources == {"${datasource}"}


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        ({"alertname": "RemediatorBreakerTripped", "severity": "critical"}, "gpu-oncall"),
        ({"alertname": "RemediatorSparesLow", "severity": "warning"}, "gpu-tickets"),
        ({"alertname": "RemediatorWouldHaveActed", "severity": "info"}, "gpu-digest"),
        ({"alertname": "KubeNodeNotReady", "severity": "critical"}, "default"),
    ],
    ids=["critical", "warning", "info", "of-others"],
)
def test_route_wakes_people_for_what_is_critical_only(
    promtools: PromTools, labels: dict[str, str], receiver: str
):
    """An Audit report that rings at night is switched off, and the breaker with it."""
    words = [f"{key}={value}" for key, value in labels.items()]

    assert "SUCCESS" in promtools.run("amtool", "check-config", str(ROUTE))
    ask = ("config", "routes", "test", f"--config.file={ROUTE}", f"--verify.receivers={receiver}")
    assert receiver in promtools.run("amtool", *ask, *words)


@pytest.mark.real_server  # kubectl, not a server
def test_component_scrapes_the_controllers_pods(control_plane_binaries: Binaries):
    """They find each other by labels and port names; one typing error and nothing is scraped."""
    made = parse(build(control_plane_binaries, "components/prometheus"))
    service = one(made, "Service", "remediator-metrics")
    endpoint, *others = one(made, "ServiceMonitor", "remediator")["spec"]["endpoints"]
    template = one(load(DEPLOY / "base/deployment.yaml"), "Deployment", "remediator")["spec"]["template"]
    (container,) = template["spec"]["containers"]
    (port,) = service["spec"]["ports"]

    assert others == []
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    assert port["targetPort"] in [each["name"] for each in container["ports"]]
    assert endpoint["port"] == port["name"]
    wanted = one(made, "ServiceMonitor", "remediator")["spec"]["selector"]["matchLabels"]
    assert wanted.items() <= service["metadata"]["labels"].items()
    assert one(made, "PrometheusRule", "remediator")["spec"] == load(ALERTS)[0]
    dashboard = one(made, "ConfigMap", "remediator-dashboard")
    assert json.loads(dashboard["data"]["dashboard.json"])["title"] == "remediator"
