"""How each program of the control plane is called: flags and health end points, nothing that runs.

Kept on, as in production: authorization (Node, RBAC), default admission, priority and fairness,
in-flight limits, audit. Everything listens on 127.0.0.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from remediator.errors import PermanentError
from remediator.fleet.node_objects import KUBELET_ALIVE, KUBELET_LABEL

SERVICE_CIDR: Final = "10.0.0.0/16"
SERVICE_FIRST_ADDRESS: Final = "10.0.0.1"
ISSUER: Final = "https://kubernetes.default.svc"
START_ORDER: Final = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok")
ETCD_QUOTA_BYTES: Final = 8 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a story may choose. The defaults hold on two busy cores; ``quick()`` is for short tests.

    ``lease_s`` is the life of a node's lease, renewed every quarter of it; ``grace_s`` how long
    after the last renewal node lifecycle calls the node Unknown; ``monitor_period_s`` how often it
    looks; ``toleration_s`` what pods get by default before taint eviction. ``client_qps`` and
    ``client_burst`` are those of the controller-manager. ``pod_cidr`` lies in 127.0.0.0/8, so that
    a pod's address can be served from this machine. ``fsync`` False trades durability for speed.
    ``audited_users`` are kept whole in the audit log. ``extra`` appends flags per component.
    """

    lease_s: int = 40
    grace_s: int = 50
    monitor_period_s: int = 5
    toleration_s: int = 300
    client_qps: int = 200
    client_burst: int = 400
    pod_cidr: str = "127.8.0.0/16"
    fsync: bool = False
    audited_users: tuple[str, ...] = ("system:serviceaccount:remediator:remediator",)
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    start_timeout_s: float = 90.0

    @classmethod
    def quick(cls, *, toleration_s: int = 300) -> Options:
        """Return the pair for short tests: a silent node is Unknown after about 12 s.

        On a loaded machine a renewal can come late and a healthy node flap; a story that compares
        times should state that it used this pair.
        """
        return cls(lease_s=8, grace_s=12, monitor_period_s=1, toleration_s=toleration_s)

    def __post_init__(self) -> None:
        for name in self.extra:
            if name not in START_ORDER:
                raise PermanentError(
                    f"flags for {name!r}: no such component, choose of {', '.join(START_ORDER)}"
                )
        # Renewals come every lease/4; a grace below the lease would call living nodes Unknown.
        if not 4 <= self.lease_s < self.grace_s:
            raise PermanentError(
                f"lease {self.lease_s} s must be at least 4 s and below grace {self.grace_s} s"
            )
        if self.monitor_period_s < 1 or self.toleration_s < 0:
            raise PermanentError("monitor_period_s must be at least 1 and toleration_s at least 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where everything lies in a test bed's folder, and the ports in use."""

    directory: Path
    etcd: int
    etcd_peer: int
    api: int
    controller_manager: int
    scheduler: int
    kwok: int

    @property
    def pki(self) -> Path:
        """Folder of certificates and keys."""
        return self.directory / "pki"

    @property
    def audit_log(self) -> Path:
        """The API server's audit log."""
        return self.directory / "audit" / "audit.log"

    @property
    def audit_policy(self) -> Path:
        """What the audit log keeps."""
        return self.directory / "audit" / "policy.json"

    @property
    def stages(self) -> Path:
        """The copy of the stages that kwok was started with."""
        return self.directory / "stages.yaml"

    @property
    def server(self) -> str:
        """URL of the API server."""
        return f"https://127.0.0.1:{self.api}"

    def kubeconfig(self, role: str) -> Path:
        """Kubeconfig of one of ``admin``, ``kube-controller-manager``, ``kube-scheduler``, ``kwok``."""
        return self.directory / "kubeconfig" / f"{role}.kubeconfig"

    def port(self, name: str) -> int:
        """Port of one component."""
        return {
            "etcd": self.etcd,
            "kube-apiserver": self.api,
            "kube-controller-manager": self.controller_manager,
            "kube-scheduler": self.scheduler,
            "kwok": self.kwok,
        }[name]

    def health(self, name: str) -> str:
        """URL that answers exactly ``ok`` once the component is ready."""
        scheme = "http" if name in ("etcd", "kwok") else "https"
        # The controller-manager has no readiness of its own.
        path = "healthz" if name == "kube-controller-manager" else "readyz"
        return f"{scheme}://127.0.0.1:{self.port(name)}/{path}"


def arguments(name: str, layout: Layout, options: Options) -> tuple[str, ...]:
    """Return the flags of one component, the options' extra ones last so that they win."""
    build = {
        "etcd": _etcd,
        "kube-apiserver": _apiserver,
        "kube-controller-manager": _controller_manager,
        "kube-scheduler": _scheduler,
        "kwok": _kwok,
    }[name]
    return (*build(layout, options), *options.extra.get(name, ()))


def _etcd(layout: Layout, options: Options) -> tuple[str, ...]:
    client = f"http://127.0.0.1:{layout.etcd}"
    peer = f"http://127.0.0.1:{layout.etcd_peer}"
    return (
        "--name=testbed",
        f"--data-dir={layout.directory / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=testbed={peer}",
        f"--quota-backend-bytes={ETCD_QUOTA_BYTES}",
        "--log-level=warn",
        *(() if options.fsync else ("--unsafe-no-fsync",)),
    )


def _apiserver(layout: Layout, options: Options) -> tuple[str, ...]:
    pki = layout.pki
    return (
        f"--etcd-servers=http://127.0.0.1:{layout.etcd}",
        "--bind-address=127.0.0.1",
        f"--secure-port={layout.api}",
        *_serving(layout),
        f"--client-ca-file={pki / 'ca.crt'}",
        f"--service-account-key-file={pki / 'service-account.pub'}",
        f"--service-account-signing-key-file={pki / 'service-account.key'}",
        f"--service-account-issuer={ISSUER}",
        f"--service-cluster-ip-range={SERVICE_CIDR}",
        "--authorization-mode=Node,RBAC",
        "--allow-privileged=true",
        # Ends the watches of those still connected; otherwise it waits for them until it is killed.
        "--shutdown-watch-termination-grace-period=1s",
        # There is no service network, and 127.0.0.1 is no valid endpoint address.
        "--endpoint-reconciler-type=none",
        f"--default-not-ready-toleration-seconds={options.toleration_s}",
        f"--default-unreachable-toleration-seconds={options.toleration_s}",
        f"--audit-policy-file={layout.audit_policy}",
        f"--audit-log-path={layout.audit_log}",
        "--audit-log-mode=blocking",
        # Zero is no rotation: marks into the file stay good.
        "--audit-log-maxsize=0",
    )


def _controller_manager(layout: Layout, options: Options) -> tuple[str, ...]:
    return (
        *_client(layout, "kube-controller-manager"),
        *_serving(layout),
        f"--secure-port={layout.controller_manager}",
        f"--root-ca-file={layout.pki / 'ca.crt'}",
        f"--service-account-private-key-file={layout.pki / 'service-account.key'}",
        "--use-service-account-credentials=true",
        f"--node-monitor-period={options.monitor_period_s}s",
        f"--node-monitor-grace-period={options.grace_s}s",
        # At upstream's default of 20/s, 66 nodes take 10.8 s to lose their first taints, instead of 1.6 s.
        f"--kube-api-qps={options.client_qps}",
        f"--kube-api-burst={options.client_burst}",
    )


def _scheduler(layout: Layout, options: Options) -> tuple[str, ...]:
    del options  # nothing to choose, but every builder has one shape
    return (
        *_client(layout, "kube-scheduler"),
        *_serving(layout),
        f"--secure-port={layout.scheduler}",
    )


def _kwok(layout: Layout, options: Options) -> tuple[str, ...]:
    return (
        f"--kubeconfig={layout.kubeconfig('kwok')}",
        f"--config={layout.stages}",
        f"--manage-nodes-with-label-selector={KUBELET_LABEL}={KUBELET_ALIVE}",
        f"--node-lease-duration-seconds={options.lease_s}",
        f"--cidr={options.pod_cidr}",
        "--node-ip=127.0.0.1",
        f"--server-address=127.0.0.1:{layout.kwok}",
    )


def _client(layout: Layout, role: str) -> tuple[str, ...]:
    kubeconfig = layout.kubeconfig(role)
    return (
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--bind-address=127.0.0.1",
        # One instance: an election would only add writes, and 15 s of waiting after a restart.
        "--leader-elect=false",
    )


def _serving(layout: Layout) -> tuple[str, ...]:
    return (
        f"--tls-cert-file={layout.pki / 'serving.crt'}",
        f"--tls-private-key-file={layout.pki / 'serving.key'}",
    )
