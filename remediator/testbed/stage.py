"""A whole small world on one machine: cluster, fleet, workload, hardware, and the controller beside it.

The end-to-end stories and the demo play on it. The controller runs as a process of its own, under
its own ServiceAccount, with exactly the rights that deploy/ ships.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from remediator.app.manifests import deploy_directory
from remediator.errors import PermanentError
from remediator.fleet.exporter_state import ExporterStates
from remediator.fleet.layout import standard_fleet
from remediator.fleet.node_objects import NodeSpec, Object
from remediator.fleet.workloads import Workload
from remediator.testbed import fleet, kubeconfig, workloads
from remediator.testbed.api import Api
from remediator.testbed.audit import AuditLog
from remediator.testbed.binaries import Binaries
from remediator.testbed.components import Options
from remediator.testbed.exporters import ExporterServer
from remediator.testbed.hardware import Hardware
from remediator.testbed.launcher import ControlPlane
from remediator.testbed.repair_player import RepairPlayer
from remediator.testbed.replica import Replica, tail
from remediator.testbed.waiting import wait_until

NAMESPACE: Final = "remediator"
ACCOUNT: Final = "remediator"
USER: Final = f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"
REPAIR_NAMESPACE: Final = "remediator-repair"
GROUP: Final = "/apis/remediator.dev/v1alpha1"
RUNS: Final = f"{GROUP}/remediations"
LEDGERS: Final = f"{GROUP}/managednodes"
POLICY: Final = f"{GROUP}/remediationpolicies/cluster"
NODES: Final = "/api/v1/nodes"
READY_S_MAX: Final = 30.0
MACHINES_PATIENCE_S: Final = 60.0
PRODUCT: Final = ("remediator", "run")  # what `python -m` starts


Connect = Callable[[kubeconfig.Access], kubeconfig.Access]


class Stage:
    """Everything that a story needs; ``start`` builds it up, ``stop`` takes it down.

    Args:
        directory: for the cluster's files and the controller's log; must be empty.
        binaries: of the control plane.
        workload: what runs on the fleet; None for nothing.
        specs: the fleet; None for the standard one.
        options: of the control plane.
        tell: hears one line per stage of the start.
    """

    def __init__(
        self,
        directory: Path,
        binaries: Binaries,
        *,
        workload: Workload | None = None,
        specs: Sequence[NodeSpec] | None = None,
        options: Options | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.directory = directory
        self.specs = standard_fleet() if specs is None else tuple(specs)
        self.cluster = ControlPlane(
            directory / "cluster", binaries, replace(options or Options(), audited_users=(USER,))
        )
        self.log = directory / "controller.log"
        self._workload = workload
        self._tell = tell
        self._controller: Replica | None = None
        self._exporters: ExporterServer | None = None
        self._player: RepairPlayer | None = None
        self._hardware: Hardware | None = None
        self._api: Api | None = None

    # -- life

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Control plane, kinds, rights, fleet, exporters, hardware and workload; no controller yet."""
        self._tell("starting etcd, API server, controller-manager, scheduler and kwok")
        self.cluster.start()
        self._api = self.cluster.admin()
        self._tell("installing the custom resources, the account and its rights")
        self._install()
        self._tell(f"creating {len(self.specs)} nodes")
        fleet.apply_fleet(self.api, self.specs)
        self._start_hardware()
        if self._workload is not None:
            pods = workloads.deploy_workload(self.api, self._workload)
            self._tell(f"{pods} pods run; the training pool is full")

    def stop(self) -> None:
        """Stop what was started, in reverse order. Safe to call at any time, and twice."""
        self.stop_controller()
        if self._player is not None:
            self._player.stop()
            self._player = None
        if self._exporters is not None:
            self._exporters.stop()
            self._exporters = None
        self.cluster.stop()

    def _install(self) -> None:
        deploy = deploy_directory()
        self.cluster.kubectl("apply", "-f", str(deploy / "crds"))
        self.cluster.kubectl(
            "wait", "--for=condition=Established", "--timeout=30s", "-f", str(deploy / "crds")
        )
        overlay = str(deploy / "overlays" / "testbed")
        built = self.cluster.kubectl("kustomize", "--load-restrictor", "LoadRestrictionsNone", overlay)
        # Right after a kind is established its collection may still answer 429 or 404.
        wait_until(
            lambda: self.cluster.kubectl("apply", "-f", "-", stdin=built.stdout, check=False).returncode == 0,
            timeout_s=30.0,
            every_s=0.5,
            what="the manifests to be accepted",
        )

    def _start_hardware(self) -> None:
        machines = [spec.machine for spec in self.specs if spec.gpus]
        self._exporters = ExporterServer(ExporterStates(machines, clock=time.monotonic))
        self._exporters.start()
        template = f"{self._exporters.base_url}/nodes/{{node}}/metrics"
        self.patch_policy({"exporter": {"address": template, "period": "1s", "timeout": "1s"}})
        # Machines boot on while the API server is away; only what they report has to wait.
        machines_api = self.api.patient(MACHINES_PATIENCE_S)
        self._hardware = Hardware(machines_api, self.specs, exporters=self._exporters.states)
        self._player = RepairPlayer(machines_api, self._hardware, namespace=REPAIR_NAMESPACE)
        self._player.start()

    # -- the parts

    @property
    def api(self) -> Api:
        """The administrator's client; independent of the product's own."""
        assert self._api is not None, "the stage is not started"
        return self._api

    @property
    def exporters(self) -> ExporterStates:
        assert self._exporters is not None, "the stage is not started"
        return self._exporters.states

    def page_url(self, node: str) -> str:
        """Where the exporter's page of one node is read."""
        assert self._exporters is not None, "the stage is not started"
        return self._exporters.url(node)

    @property
    def hardware(self) -> Hardware:
        assert self._hardware is not None, "the stage is not started"
        return self._hardware

    @property
    def player(self) -> RepairPlayer:
        assert self._player is not None, "the stage is not started"
        return self._player

    @property
    def audit(self) -> AuditLog:
        return self.cluster.audit

    # -- the controller

    def launch_controller(
        self,
        *arguments: str,
        lease_seconds: float = 15.0,
        program: Sequence[str] = PRODUCT,
        server: str = "",
        access: Connect | None = None,
    ) -> None:
        """Start its process under its ServiceAccount, and do not wait; see ``replica``."""
        self._controller = self.replica(
            "controller",
            *arguments,
            lease_seconds=lease_seconds,
            program=program,
            server=server,
            access=access,
        )
        self._controller.start()

    def replica(
        self,
        name: str,
        *arguments: str,
        lease_seconds: float = 15.0,
        program: Sequence[str] = PRODUCT,
        server: str = "",
        access: Connect | None = None,
    ) -> Replica:
        """A process of the controller that is not started yet; whoever starts it stops it.

        Args:
            name: of its files, the log among them.
            arguments: added to the command line.
            lease_seconds: how long its successor will wait for it.
            program: what ``python -m`` runs, with its first words.
            server: another address of the API server, such as a pipe's.
            access: makes its way to the server out of address and authority; None: a token that lasts.
        """
        path = self.directory / f"{name}.kubeconfig"
        if access is None:
            self.api.service_account_kubeconfig(NAMESPACE, ACCOUNT, path, server=server)
        else:
            mine = self.api.access
            plain = kubeconfig.Access(server=server or mine.server, authority=mine.authority)
            kubeconfig.write(path, USER, access(plain))
        command = [
            *(sys.executable, "-m", *program, "--kubeconfig", str(path)),
            *("--namespace", NAMESPACE, "--host", "127.0.0.1", "--port", "0", "--log-format", "json"),
            *("--lease-seconds", str(lease_seconds), *arguments),
        ]
        return Replica(command, self.directory / f"{name}.log")

    def start_controller(
        self,
        *arguments: str,
        lease_seconds: float = 15.0,
        pages: bool = True,
        program: Sequence[str] = PRODUCT,
        server: str = "",
        access: Connect | None = None,
    ) -> None:
        """Start it under its ServiceAccount and wait until it leads, and has read all ``pages`` once."""
        seen = self.log_size()
        self.launch_controller(
            *arguments, lease_seconds=lease_seconds, program=program, server=server, access=access
        )
        wait_until(
            lambda: self._leads(seen),
            timeout_s=READY_S_MAX + lease_seconds,
            what="the controller to lead",
        )
        # An XID that stands on a page before the first round is latched as of unknown age, by design.
        if pages:
            self._await_first_round()

    def _await_first_round(self) -> None:
        wait_until(
            lambda: self.api.get(POLICY).get("status", {}).get("baselined"),
            timeout_s=READY_S_MAX,
            what="the first round of exporter pages",
        )

    def _leads(self, since: int) -> bool:
        if not self.controller_alive:
            raise PermanentError(f"the controller has ended:\n{self.log_tail()}")
        return self.controller.leads_since(since)

    def stop_controller(self, *, crash: bool = False) -> None:
        """End it: by SIGTERM, or as a crash would. Does nothing where none was started."""
        if self._controller is not None:
            self._controller.stop(crash=crash)

    @property
    def controller(self) -> Replica:
        """The process that was started last."""
        assert self._controller is not None, "no controller was started"
        return self._controller

    @property
    def controller_alive(self) -> bool:
        return self._controller is not None and self._controller.alive

    def log_size(self) -> int:
        """How long the controller's log is, in bytes."""
        return self.log.stat().st_size if self.log.exists() else 0

    def cli(self, *words: str, kubeconfig: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command of ``remediator`` against the cluster; an administrator's unless told."""
        path = str(kubeconfig or self.cluster.kubeconfig)
        return subprocess.run(
            [sys.executable, "-m", "remediator", *words, "--kubeconfig", path],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "NO_COLOR": "1"},
        )

    # -- shortcuts that stories share

    def node(self, name: str) -> Object:
        return self.api.get(f"{NODES}/{name}")

    def told(self, node: str) -> set[str]:
        """Reasons of the Events that regard this Node."""
        events = self.api.list("/api/v1/namespaces/default/events")
        return {event["reason"] for event in events if event["involvedObject"]["name"] == node}

    def runs(self, node: str = "") -> list[Object]:
        """Remediations, oldest first; of one node, or all."""
        found = [run for run in self.api.list(RUNS) if not node or run["spec"]["node"]["name"] == node]
        return sorted(found, key=lambda run: (run["metadata"]["creationTimestamp"], run["metadata"]["name"]))

    def wait_run(self, node: str, state: str, *, timeout_s: float = 60.0, number: int = 1) -> Object:
        """Wait until the ``number``-th run of a node is in this state."""

        def look() -> Object | None:
            found = self.runs(node)
            run = found[number - 1] if len(found) >= number else None
            reached = run is not None and run.get("status", {}).get("state") == state
            return run if reached else None

        def detail() -> str:
            seen = [(run["metadata"]["name"], run.get("status", {})) for run in self.runs(node)]
            return f"\nruns: {seen}\nlog:\n{self.log_tail()}"

        what = f"run {number} of {node} to be {state}"
        return wait_until(look, timeout_s=timeout_s, what=what, detail=detail)

    def wait_ledger(self, machine: str, state: str, *, timeout_s: float = 20.0) -> Object:
        """Wait until the memory of a machine is in this state."""

        def look() -> Object | None:
            found = self.api.find(f"{LEDGERS}/{machine}")
            return found if found is not None and found.get("status", {}).get("state") == state else None

        return wait_until(look, timeout_s=timeout_s, what=f"the ledger of {machine} to say {state}")

    def log_tail(self) -> str:
        return tail(self.log)

    def patch_policy(self, spec: Mapping[str, object]) -> None:
        self.api.merge_patch(POLICY, {"spec": dict(spec)})

    def patch_pool(self, name: str, spec: Mapping[str, object]) -> None:
        self.api.merge_patch(f"{GROUP}/resourcepools/{name}", {"spec": dict(spec)})

    def patch_playbook(self, name: str, spec: Mapping[str, object]) -> None:
        self.api.merge_patch(f"{GROUP}/playbooks/{name}", {"spec": dict(spec)})
