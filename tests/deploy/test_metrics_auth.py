"""The component that guards the metrics port: it fits the base, and the monitor of the other component."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from remediator.adapters.telemetry.certificate import CERTIFICATE, KEY
from remediator.adapters.telemetry.health import GUARDED
from remediator.cli.run import run
from remediator.testbed.binaries import Binaries
from tests.deploy.manifests import DEPLOY, Json, build, load, one, parse

pytestmark = pytest.mark.real_server  # kubectl, not a server
COMPONENT = DEPLOY / "components/metrics-auth"


@pytest.fixture
def site(control_plane_binaries: Binaries, tmp_path: Path) -> list[Json]:
    """An overlay as docs/install.md describes it."""
    here = {part: os.path.relpath(DEPLOY / part, tmp_path) for part in ("base", "components")}
    (tmp_path / "kustomization.yaml").write_text(
        f"resources: [{here['base']}]\n"
        f"components: [{here['components']}/prometheus, {here['components']}/metrics-auth]\n",
        "utf-8",
    )
    return parse(build(control_plane_binaries, str(tmp_path)))


def test_controller_serves_tls_from_the_mounted_secret(site: list[Json]):
    """A flag, a mount and a probe that do not fit each other end in a pod that is never ready."""
    pod = one(site, "Deployment", "remediator")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    flags = dict(each.removeprefix("--").split("=") for each in container["args"][1:])
    (mount,) = [each for each in container["volumeMounts"] if each["mountPath"] == flags["tls-dir"]]
    (volume,) = [each for each in pod["volumes"] if each["name"] == mount["name"]]

    assert container["args"][0] == "run"
    assert set(flags) <= {option.lstrip("-") for each in run.params for option in each.opts}
    assert flags["metrics-auth"] == "token-review"
    assert (volume["secret"]["secretName"], mount["readOnly"]) == ("remediator-tls", True)
    for probe in ("livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["scheme"] == "HTTPS"
        assert container[probe]["httpGet"]["path"] not in GUARDED


def test_monitor_comes_with_a_token_and_knows_the_authority(site: list[Json]):
    (endpoint,) = one(site, "ServiceMonitor", "remediator")["spec"]["endpoints"]
    service = one(site, "Service", "remediator-metrics")["metadata"]

    assert (endpoint["scheme"], endpoint["path"]) == ("https", "/metrics")
    assert endpoint["bearerTokenFile"]
    assert endpoint["tlsConfig"]["serverName"] == f"{service['name']}.{service['namespace']}.svc"
    assert endpoint["tlsConfig"]["ca"]["secret"] == {"name": "remediator-tls", "key": "ca.crt"}


def test_component_fits_a_site_without_the_operator(control_plane_binaries: Binaries, tmp_path: Path):
    here = os.path.relpath(DEPLOY, tmp_path)
    text = f"resources: [{here}/overlays/repair-job]\ncomponents: [{here}/components/metrics-auth]\n"
    (tmp_path / "kustomization.yaml").write_text(text, "utf-8")

    made = parse(build(control_plane_binaries, str(tmp_path)))

    assert not [each for each in made if each["kind"] == "ServiceMonitor"]
    assert one(made, "ClusterRoleBinding", "remediator-auth-delegator")


def test_reader_may_read_what_is_guarded_and_nothing_else():
    binding, reader = load(COMPONENT / "rbac.yaml")

    assert binding["roleRef"]["name"] == "system:auth-delegator"
    assert reader["rules"] == [{"nonResourceURLs": sorted(GUARDED), "verbs": ["get"]}]
    assert (CERTIFICATE, KEY) == ("tls.crt", "tls.key"), "the names in a Secret of type kubernetes.io/tls"
