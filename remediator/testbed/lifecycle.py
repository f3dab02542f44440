"""A control plane that outlives the command that started it, with or without a fleet: up, down, status.

Functions return values; printing is the callers' business (remediator/cli/testbed.py and
``python -m remediator.testbed``), the texts are here so that both say the same.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from remediator.errors import PermanentError
from remediator.testbed import binaries, health, processes, world
from remediator.testbed.api import Api, ApiError
from remediator.testbed.binaries import Progress
from remediator.testbed.components import START_ORDER, Layout, Options
from remediator.testbed.launcher import ControlPlane, health_url

ACCOUNT: Final = ("remediator", "remediator")  # namespace and name, as in deploy/base
ACCOUNT_TOKEN_S: Final = 24 * 3600


@dataclass(frozen=True, slots=True)
class ComponentStatus:
    """One component: ``pid`` is 0 where it does not run; ``problem`` is None where it is ready."""

    name: str
    version: str
    pid: int
    port: int
    problem: str | None


@dataclass(frozen=True, slots=True)
class Status:
    """What runs in one folder, in start order; ``components`` is empty where nothing does."""

    directory: Path
    components: tuple[ComponentStatus, ...]
    kubeconfig: Path
    timing: str

    @property
    def healthy(self) -> bool:
        """Every component runs and says that it is ready."""
        return bool(self.components) and not any(component.problem for component in self.components)


@dataclass(frozen=True, slots=True)
class Started:
    """What ``up`` left running, the kubectl that fits it, and whether there is a fleet on it."""

    status: Status
    kubectl: Path
    fleet: bool


def default_directory(environ: Mapping[str, str]) -> Path:
    """Return where ``up`` puts a test bed unless told otherwise."""
    base = environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "remediator" / "testbed"


def up(
    directory: Path,
    *,
    environ: Mapping[str, str],
    options: Options,
    progress: Callable[[Progress], None],
    fleet: bool = False,
    workload: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Started:
    """Build what is missing, start everything in ``directory`` and leave it running.

    Args:
        directory: empty, or of a test bed that has ended.
        environ: of the caller.
        options: of the control plane.
        progress: hears of the build.
        fleet: also create the standard fleet and start its hardware.
        workload: also fill that fleet's training pool; counts only with ``fleet``.
        tell: hears one line per stage of what comes after the control plane.

    Raises:
        BuildError: the programs cannot be built.
        PermanentError: the folder is taken.
        StartError: a component did not get ready; nothing is left running.
        RemediatorError: the fleet did not settle; nothing is left running.
    """
    built = binaries.find(environ) or binaries.build(environ, progress=progress)
    control_plane = ControlPlane(directory, built, options)
    with control_plane.kept():
        _link_kubectl(control_plane.directory, built.path("kubectl"))
        if fleet:
            world.create(control_plane, workload=workload, tell=tell)
    return Started(status(directory), built.path("kubectl"), fleet)


def _link_kubectl(directory: Path, kubectl: Path) -> None:
    # A folder of its own on PATH: the cache folder would bring etcd and the rest along.
    (directory / "bin").mkdir()
    (directory / "bin" / "kubectl").symlink_to(kubectl)


def down(directory: Path) -> tuple[str, ...]:
    """Stop what runs in ``directory``, also what a crashed launcher left; the files stay.

    Returns:
        The names of components that had to be killed.

    Raises:
        PermanentError: there never was a test bed in this folder.
    """
    directory = directory.absolute()
    if processes.read_state(directory) is None:
        raise PermanentError(f"{directory} holds no test bed; name the folder that `up` was given")
    return processes.reap(directory)


def status(directory: Path) -> Status:
    """Look at every component in ``directory`` once."""
    directory = directory.absolute()
    state = processes.read_state(directory) or processes.State()
    running = {process.name: process for process in state.processes if processes.is_alive(process)}
    kubeconfig = directory / "kubeconfig" / "admin.kubeconfig"
    if not running:
        return Status(directory, (), kubeconfig, state.timing)
    layout = Layout(directory=directory, **state.ports)
    trust = health.context((layout.pki / "ca.crt").read_bytes())
    components = []
    for name in START_ORDER:
        process = running.get(name)
        problem = health.why_not_ready(layout.health(name), trust) if process else "does not run"
        pid = process.pid if process else 0
        components.append(
            ComponentStatus(name, state.versions.get(name, ""), pid, layout.port(name), problem)
        )
    for name, port in sorted(state.beside.items()):
        process = running.get(name)
        problem = health.why_not_ready(health_url(port), trust) if process else "does not run"
        components.append(ComponentStatus(name, "-", process.pid if process else 0, port, problem))
    return Status(directory, tuple(components), kubeconfig, state.timing)


def environment(directory: Path) -> str:
    """Return what a shell must ``eval`` to use the test bed in ``directory``: KUBECONFIG, PATH and more.

    Raises:
        PermanentError: none runs there.
    """
    found = status(directory)
    if not found.components:
        raise PermanentError(f"no test bed runs in {found.directory}; start one with `remediator testbed up`")
    path = f"{found.directory / 'bin'}:{Path(sys.executable).parent}"
    lines = [
        f"export KUBECONFIG={shlex.quote(str(found.kubeconfig))}",
        f'export PATH={shlex.quote(path)}:"$PATH"',
        f"export REMEDIATOR_TESTBED={shlex.quote(str(found.directory))}",
    ]
    if any(component.name == world.HARDWARE for component in found.components):
        lines.append(f"export EXPORTER={shlex.quote(world.exporter_address(found.directory))}")
    return "\n".join(lines)


def account(directory: Path) -> Path:
    """Write a kubeconfig of the controller's own ServiceAccount, good for a day, and return its path.

    Raises:
        PermanentError: no test bed runs in ``directory``, or the account is not there yet.
    """
    found = status(directory)
    if not found.components:
        raise PermanentError(f"no test bed runs in {found.directory}; start one with `remediator testbed up`")
    path = found.kubeconfig.with_name("remediator.kubeconfig")
    api = Api.from_kubeconfig(found.kubeconfig)
    try:
        return api.service_account_kubeconfig(*ACCOUNT, path, expires_s=ACCOUNT_TOKEN_S)
    except ApiError as error:
        raise PermanentError(
            f"no token for the account {'/'.join(ACCOUNT)} (run first: kubectl apply -k deploy/base): {error}"
        ) from error
    finally:
        api.close()


def describe(found: Status) -> str:
    """Return the status as text for people, one line per component."""
    if not found.components:
        return f"no test bed runs in {found.directory}"
    lines = [f"{'COMPONENT':24} {'VERSION':10} {'PID':>8} {'PORT':>6}  HEALTH"]
    for component in found.components:
        state = component.problem or "ok"
        lines.append(
            f"{component.name:24} {component.version:10} {component.pid:8} {component.port:6}  {state}"
        )
    lines += [f"timing: {found.timing}", f"folder: {found.directory}"]
    return "\n".join(lines)


def usage(started: Started) -> str:
    """Return how to use a test bed that was just started."""
    directory = started.status.directory
    program = Path(sys.executable).parent / "remediator"
    lines = ["", f"export KUBECONFIG={started.status.kubeconfig}", f"{started.kubectl} get nodes"]
    if started.fleet:
        lines.append(f"for the policy's exporter.address: {world.exporter_address(directory)}")
        lines.append(f"a fault: {program} testbed inject gpu-b-02 --xid 79 --directory {directory}")
    return "\n".join(
        [
            *lines,
            f"the end: {program} testbed down --directory {directory}",
            "or, for short, in this shell:",
            f'eval "$({program} testbed env --directory {directory})"',
        ]
    )


def describe_progress(progress: Progress) -> str:
    """Return one line about a build."""
    if progress.state == "waiting":
        return f"another build is under way, waiting ({progress.elapsed_s:.0f} s)"
    where = f"[{progress.position}/{progress.total}] {progress.component}"
    took = "" if progress.state == "cached" else f" ({progress.elapsed_s:.0f} s)"
    return f"{where}: {progress.state}{took}"
