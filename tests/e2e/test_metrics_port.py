"""The process with a guarded metrics port: what it lacks at first, and who reads it then."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from remediator.app.manifests import deploy_directory
from remediator.testbed.binaries import Binaries
from remediator.testbed.certificates import Authority
from remediator.testbed.replica import Replica
from remediator.testbed.stage import (
    NAMESPACE,
    Stage,
)
from tests.e2e.small_world import open_fleet

pytestmark = pytest.mark.timeout(240)
RIGHTS: Final = deploy_directory() / "components/metrics-auth/rbac.yaml"
HOST: Final = "127.0.0.1"
ENDS_S: Final = 60.0


@pytest.fixture(scope="module")
def stage(control_plane_binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("metrics") / "stage"
    with Stage(folder, control_plane_binaries, specs=open_fleet()) as found:
        yield found


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory as the Secret is mounted: the pair, and the authority beside it."""
    folder = tmp_path_factory.mktemp("tls")
    pair = Authority.create(folder).serving("remediator", addresses=(HOST,))
    (folder / "tls.crt").write_bytes(pair.certificate)
    (folder / "tls.key").write_bytes(pair.key)
    return folder


def guarded(stage: Stage, tls: Path, name: str) -> Replica:
    return stage.replica(name, "--metrics-auth", "token-review", "--tls-dir", str(tls))


def read(replica: Replica, tls: Path, path: str, token: str = "") -> tuple[int, str]:
    """One GET over TLS."""
    url = replica.health_url.replace("http://", "https://") + path
    asked = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    context = ssl.create_default_context(cafile=str(tls / "ca.crt"))
    try:
        with urllib.request.urlopen(asked, timeout=10, context=context) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


def test_process_without_the_right_to_review_says_what_grants_it(stage: Stage, tls: Path) -> None:
    """Otherwise every scrape would fail, and nothing would say why."""
    replica = guarded(stage, tls, "unable")
    replica.start()

    assert replica.await_end(ENDS_S) != 0
    said = replica.log_tail()
    assert "create tokenreviews authentication.k8s.io" in said
    assert "deploy/components/metrics-auth" in said


def test_metrics_are_read_with_a_token_of_the_cluster(stage: Stage, tls: Path) -> None:
    """With the component's rights, and the commands that docs/install.md shows."""
    kubectl = stage.cluster.kubectl
    kubectl("apply", "-f", str(RIGHTS))
    files = [f"--from-file={tls / name}" for name in ("tls.crt", "tls.key", "ca.crt")]
    secret = ("create", "secret", "generic", "remediator-tls", "--type=kubernetes.io/tls")
    kubectl("-n", NAMESPACE, *secret, *files)
    kubectl("create", "namespace", "monitoring")
    for name in ("prometheus", "stranger"):
        kubectl("-n", "monitoring", "create", "serviceaccount", name)
    kubectl(
        "create", "clusterrolebinding", "prometheus-reads-remediator",
        "--clusterrole=remediator-metrics-reader", "--serviceaccount=monitoring:prometheus",
    )  # fmt: skip

    def token(name: str) -> str:
        return kubectl("-n", "monitoring", "create", "token", name).stdout.strip()

    replica = guarded(stage, tls, "guarded")
    replica.start()
    try:
        assert read(replica, tls, "/healthz") == (200, "ok\n")
        status, page = read(replica, tls, "/metrics", token("prometheus"))
        assert status == 200
        assert "remediator_leader " in page
        assert read(replica, tls, "/metrics", token("stranger"))[0] == 403
        assert read(replica, tls, "/statusz")[0] == 401
    finally:
        replica.stop()
