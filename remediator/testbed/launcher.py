"""A whole Kubernetes control plane as plain processes of this machine, without Docker.

Start order and readiness, stop order, and that nothing stays behind, are decided here; flags are
in components.py, processes in processes.py. Several control planes run side by side, each in its
own folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from remediator.errors import PermanentError, RemediatorError
from remediator.testbed import audit, health, kubeconfig, processes
from remediator.testbed.api import Api
from remediator.testbed.audit import AuditLog
from remediator.testbed.binaries import Binaries
from remediator.testbed.certificates import Authority, Pair, service_account_keys, write_private
from remediator.testbed.components import (
    SERVICE_FIRST_ADDRESS,
    START_ORDER,
    Layout,
    Options,
    arguments,
)
from remediator.testbed.guardian import Guardian
from remediator.testbed.ports import ReservedPorts
from remediator.testbed.processes import Process, State
from remediator.testbed.waiting import WaitExpiredError, wait_until

LOG_TAIL_LINES: Final = 15
KUBECTL_TIMEOUT_S: Final = 120.0
_STAGES: Final = Path(__file__).parent / "data" / "stages.yaml"
# The roles' user names and groups are what the API server's default RBAC knows.
_ROLES: Final = {
    "admin": ("admin", ("system:masters",)),
    "kube-controller-manager": ("system:kube-controller-manager", ()),
    "kube-scheduler": ("system:kube-scheduler", ()),
    "kwok": ("kwok", ("system:masters",)),
}
_PORTS: Final = tuple(field.name for field in fields(Layout) if field.name != "directory")


class StartError(RemediatorError):
    """A component did not get ready; the message ends with its last log lines."""


class ControlPlane:
    """etcd, API server, controller-manager, scheduler and kwok in one folder.

    Use it as a context manager, or call ``start`` and ``stop``. If this process dies, a guardian
    process ends all components; ``detach`` leaves them running instead.
    """

    def __init__(self, directory: Path, binaries: Binaries, options: Options | None = None) -> None:
        self.directory = directory.absolute()
        self.binaries = binaries
        self.options = options or Options()
        self._ports = ReservedPorts()
        self._guardian: Guardian | None = None
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._state = State()
        self._layout: Layout | None = None
        self._authority: Authority | None = None
        self._ours = False  # the folder, and what runs for it

    # ---- life

    def start(self) -> None:
        """Start everything, one component after the other, each ready before the next.

        The folder is made anew; what an earlier test bed left in it is removed.

        Raises:
            PermanentError: the folder holds something else, or a test bed that runs.
            StartError: a component ended or did not get ready in time; all are stopped again.
        """
        self._claim_directory()
        try:
            self._guardian = Guardian(self.directory)
            self._write_files()
            for name in START_ORDER:
                self._start_one(name)
            self._await_first_objects()
        except BaseException:  # Ctrl-C too: nothing may stay behind
            self.stop()
            raise

    def stop(self) -> tuple[str, ...]:
        """Stop everything in reverse order. The folder with logs and audit log stays.

        Returns:
            The names of components that had to be killed; empty is the normal case.
        """
        if not self._ours:  # a start that was refused must not end what it was refused for
            return ()
        try:
            return processes.reap(self.directory)
        finally:
            for child in self._children.values():
                child.wait(timeout=processes.KILL_TIMEOUT_S)
            self._children.clear()
            self._forget()
            self._release()

    def _forget(self) -> None:
        self._state = msgspec.structs.replace(self._state, processes=(), launcher=None)
        processes.write_state(self.directory, self._state)

    def detach(self) -> None:
        """Leave the components running when this process ends; ``attach`` finds them again."""
        self._state = msgspec.structs.replace(self._state, launcher=None)
        processes.write_state(self.directory, self._state)
        self._release()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Start; do what the block says; then leave all running. If anything fails, nothing is left."""
        self.start()
        try:
            yield
        except BaseException:  # Ctrl-C too
            self.stop()
            raise
        self.detach()

    def _release(self) -> None:
        if self._guardian is not None:
            self._guardian.release()
            self._guardian = None
        self._ports.release()

    @classmethod
    def attach(cls, directory: Path, binaries: Binaries) -> Self:
        """Return a handle on a detached control plane that runs in the folder.

        Raises:
            PermanentError: none runs there.
        """
        found = cls(directory, binaries)
        state = processes.read_state(found.directory)
        if state is None or not any(map(processes.is_alive, state.processes)):
            raise PermanentError(f"no test bed runs in {directory}; start one there first")
        found._ours = True
        found._state = state
        found._layout = Layout(directory=found.directory, **state.ports)
        found._authority = Authority.load(found.layout.pki)
        return found

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # ---- what stories use

    @property
    def layout(self) -> Layout:
        """Paths and ports; only once started or attached."""
        if self._layout is None:
            raise PermanentError(f"the control plane in {self.directory} is not started")
        return self._layout

    @property
    def authority(self) -> Authority:
        """Signs certificates that this control plane accepts."""
        if self._authority is None:
            raise PermanentError(f"the control plane in {self.directory} is not started")
        return self._authority

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.layout.kubeconfig("admin")

    @property
    def audit(self) -> AuditLog:
        """A reader of the API server's audit log."""
        return AuditLog(self.layout.audit_log)

    def admin(self) -> Api:
        """Return a new client in ``system:masters``; for the harness, never for the controller."""
        return Api.from_kubeconfig(self.kubeconfig, authority=self.authority)

    def client_certificate(self, user: str, groups: tuple[str, ...] = ()) -> Pair:
        """Sign a client certificate for anybody, such as ``alice``."""
        return self.authority.client(user, groups)

    def kubectl(
        self, *words: str, stdin: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl as the administrator, with a bound.

        Raises:
            StartError: it failed and ``check`` is set; the message holds what it printed.
        """
        command = [str(self.binaries.path("kubectl")), f"--kubeconfig={self.kubeconfig}", *words]
        done = subprocess.run(
            command,
            input=stdin,
            env={"HOME": str(self.directory), "PATH": os.environ.get("PATH", "")},
            capture_output=True,
            text=True,
            timeout=KUBECTL_TIMEOUT_S,
            check=False,
        )
        if check and done.returncode:
            raise RemediatorError(
                f"kubectl {' '.join(words)} (exit {done.returncode}): {done.stderr.strip()}"
            )
        return done

    def process(self, name: str) -> Process:
        """Return the running process of one component.

        Raises:
            PermanentError: there is none.
        """
        for process in self._state.processes:
            if process.name == name:
                return process
        raise PermanentError(f"{name} does not run in {self.directory}")

    def stop_component(self, name: str, *, crash: bool = False) -> None:
        """Stop one component and leave the others running.

        Args:
            name: of the component.
            crash: SIGKILL at once, so that it can neither finish requests nor say goodbye.
        """
        process = self.process(name)
        processes.stop(process, term_timeout_s=0 if crash else processes.TERM_TIMEOUT_S)
        child = self._children.pop(name, None)
        if child is not None:
            child.wait(timeout=processes.KILL_TIMEOUT_S)
        rest = tuple(other for other in self._state.processes if other != process)
        self._state = msgspec.structs.replace(self._state, processes=rest)
        processes.write_state(self.directory, self._state)

    def start_component(self, name: str) -> None:
        """Start a stopped component again, on its old port and data, and wait until it is ready."""
        self._start_one(name)

    def pause_component(self, name: str) -> None:
        """Freeze one component until ``resume_component``."""
        processes.pause(self.process(name))

    def resume_component(self, name: str) -> None:
        """Let a frozen component go on."""
        processes.resume(self.process(name))

    def reserve_port(self) -> int:
        """Return a port for ``start_beside`` that nobody else gets meanwhile."""
        return self._ports.take()

    def start_beside(self, name: str, command: Sequence[str], *, port: int) -> None:
        """Start a program that lives and ends with the components, and wait until it is ready.

        Args:
            name: for the state file and the log.
            command: the program and its arguments.
            port: of 127.0.0.1, where ``/healthz`` answers ``ok`` once it is ready.

        Raises:
            StartError: it ended or did not get ready in time.
        """
        self._state = msgspec.structs.replace(self._state, beside={**self._state.beside, name: port})
        self._spawn(name, command, health_url(port))

    # ---- start, step by step

    def _claim_directory(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        state = processes.read_state(self.directory)
        if state is None:
            if any(self.directory.iterdir()):
                raise PermanentError(
                    f"{self.directory} is not empty and holds no test bed; choose another folder"
                )
        else:
            self._refuse_if_running(state)
            processes.reap(self.directory)  # of a launcher that died together with its guardian
            for entry in self.directory.iterdir():
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        self._ours = True
        launcher = processes.identify("launcher", os.getpid())
        self._state = State(
            launcher=launcher, versions=dict(self.binaries.versions), timing=_timing(self.options)
        )
        processes.write_state(self.directory, self._state)
        for name in ("pki", "kubeconfig", "logs", "audit"):
            (self.directory / name).mkdir(mode=0o700)

    def _refuse_if_running(self, state: State) -> None:
        launched = state.launcher is not None and processes.is_alive(state.launcher)
        detached = state.launcher is None and any(map(processes.is_alive, state.processes))
        if launched or detached:
            raise PermanentError(
                f"a test bed runs in {self.directory} already; stop it, or choose another folder"
            )

    def _write_files(self) -> None:
        ports = {name: self._ports.take() for name in _PORTS}
        self._layout = layout = Layout(directory=self.directory, **ports)
        self._state = msgspec.structs.replace(self._state, ports=ports)
        self._authority = authority = Authority.create(layout.pki)
        serving = authority.serving(
            "kube-apiserver",
            hosts=("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"),
            addresses=("127.0.0.1", SERVICE_FIRST_ADDRESS),
        )
        write_private(layout.pki / "serving.crt", serving.certificate)
        write_private(layout.pki / "serving.key", serving.key)
        private, public = service_account_keys()
        write_private(layout.pki / "service-account.key", private)
        write_private(layout.pki / "service-account.pub", public)
        for role, (user, groups) in _ROLES.items():
            pair = authority.client(user, groups)
            access = kubeconfig.Access(server=layout.server, authority=authority.certificate, pair=pair)
            kubeconfig.write(layout.kubeconfig(role), user, access)
        layout.audit_policy.write_bytes(audit.policy(self.options.audited_users))
        layout.stages.write_bytes(_STAGES.read_bytes())

    def _start_one(self, name: str) -> None:
        command = [str(self.binaries.path(name)), *arguments(name, self.layout, self.options)]
        self._spawn(name, command, self.layout.health(name))

    def _spawn(self, name: str, command: Sequence[str], url: str) -> None:
        child = processes.spawn(name, command, directory=self.directory)
        self._children[name] = child
        process = processes.identify(name, child.pid)
        # IMPORTANT: kept in start order also after a restart of one component, since the stop goes
        # backwards through it: an API server that stops before its clients hangs until it is killed.
        running = sorted((*self._state.processes, process), key=lambda one: _rank(one.name))
        self._state = msgspec.structs.replace(self._state, processes=tuple(running))
        processes.write_state(self.directory, self._state)
        self._await_ready(name, child, url)

    def _await_ready(self, name: str, child: subprocess.Popen[bytes], url: str) -> None:
        trust = health.context(self.authority.certificate)
        reason: str | None = None

        def ready() -> bool:
            nonlocal reason
            if child.poll() is not None:
                raise StartError(f"{name} ended (exit {child.returncode}):\n{self._log_tail(name)}")
            reason = health.why_not_ready(url, trust)
            return reason is None

        try:
            wait_until(ready, timeout_s=self.options.start_timeout_s, what=f"readiness of {name}")
        except WaitExpiredError as error:
            raise StartError(f"{error}: {reason}\n{self._log_tail(name)}") from error

    def _await_first_objects(self) -> None:
        # Without it the first pod of a story is refused now and then.
        path = "/api/v1/namespaces/default/serviceaccounts/default"
        self.admin().wait_for(path, bool, timeout_s=self.options.start_timeout_s)

    def _log_tail(self, name: str) -> str:
        path = self.directory / "logs" / f"{name}.log"
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join([*lines[-LOG_TAIL_LINES:], f"(end of {path})"])


def health_url(port: int) -> str:
    """Where a program beside the components says that it is ready."""
    return f"http://127.0.0.1:{port}/healthz"


def _rank(name: str) -> int:
    # What runs beside the components talks to them: started after them, stopped before them.
    return START_ORDER.index(name) if name in START_ORDER else len(START_ORDER)


def _timing(options: Options) -> str:
    return (
        f"lease {options.lease_s} s, grace {options.grace_s} s, monitor period {options.monitor_period_s} s, "
        f"default toleration {options.toleration_s} s"
    )
