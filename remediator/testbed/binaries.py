"""The programs of the control plane, built from their Go modules into a cache folder.

The modules are package data (deploy/testbed in a checkout). The cache folder carries a digest of
everything that decides what comes out, so that two versions of the modules live side by side. This
module starts nothing but ``go`` itself.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from remediator.errors import PermanentError
from remediator.testbed.waiting import WaitExpiredError, monotonic, wait_until

GO_NEEDED: Final = "1.26"
CACHE_VARIABLE: Final = "REMEDIATOR_TESTBED_CACHE"
KUBERNETES_VARIABLE: Final = "REMEDIATOR_TESTBED_KUBERNETES"
NEWEST: Final = "newest"
OLDEST: Final = "oldest"
BUILD_TIMEOUT_S: Final = 3600.0  # one component, cold, on a slow machine
PROGRESS_EVERY_S: Final = 5.0
TAIL_LINES: Final = 20
_VERSION_PACKAGE: Final = "k8s.io/component-base/version"


class BuildError(PermanentError):
    """The programs are not there and cannot be built; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Component:
    """One program: its file name, the module folder that builds it, and its main package."""

    name: str
    module: str
    package: str


COMPONENTS: Final = (
    Component("etcd", "etcd", "go.etcd.io/etcd/server/v3"),
    Component("kube-apiserver", "controlplane", "k8s.io/kubernetes/cmd/kube-apiserver"),
    Component("kube-controller-manager", "controlplane", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    Component("kube-scheduler", "controlplane", "k8s.io/kubernetes/cmd/kube-scheduler"),
    Component("kubectl", "controlplane", "k8s.io/kubernetes/cmd/kubectl"),
    Component("kwok", "kwok", "sigs.k8s.io/kwok/cmd/kwok"),
)
# The module that a folder's version is read from.
_VERSION_MODULE: Final = {
    "controlplane": "k8s.io/kubernetes",
    "etcd": "go.etcd.io/etcd/server/v3",
    "kwok": "sigs.k8s.io/kwok",
}


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a build stands.

    ``state`` is one of ``waiting`` (another process builds), ``building``, ``built`` and ``cached``;
    ``position`` counts from 1 to ``total``; ``elapsed_s`` is the time spent on this component.
    """

    component: str
    position: int
    total: int
    elapsed_s: float
    state: str


@dataclass(frozen=True, slots=True)
class Binaries:
    """A folder that holds every program, complete."""

    directory: Path
    versions: Mapping[str, str]

    def path(self, name: str) -> Path:
        """Return the path of one program by its component name."""
        return self.directory / name


def modules_directory(environ: Mapping[str, str]) -> Path:
    """Return the folder of the Go modules: of the checkout, else of the installed package.

    With ``REMEDIATOR_TESTBED_KUBERNETES=oldest`` it is the folder inside of it that holds the oldest
    Kubernetes that is supported; what is missing there is the same for both (``module_folder``).

    Raises:
        BuildError: neither is there, so the package was put together wrongly; or no such Kubernetes.
    """
    kubernetes = environ.get(KUBERNETES_VARIABLE) or NEWEST
    if kubernetes not in (NEWEST, OLDEST):
        raise BuildError(f"{KUBERNETES_VARIABLE}={kubernetes!r}: write {NEWEST} or {OLDEST}")
    package = Path(__file__).resolve().parent
    candidates = (package.parents[1] / "deploy" / "testbed", package / "data" / "modules")
    for candidate in candidates:
        if all((candidate / module / "go.mod").is_file() for module in _VERSION_MODULE):
            return candidate / OLDEST if kubernetes == OLDEST else candidate
    raise BuildError(
        f"the test bed's Go modules are in neither of {', '.join(map(str, candidates))}; reinstall"
    )


def module_folder(modules: Path, name: str) -> Path:
    """Return the folder of one module, which two folders of modules may share."""
    own = modules / name
    return own if own.is_dir() else modules.parent / name


def versions(modules: Path) -> dict[str, str]:
    """Return ``{component: version}`` with a leading ``v``, read from the require lines."""
    found: dict[str, str] = {}
    for component in COMPONENTS:
        required = _VERSION_MODULE[component.module]
        path = module_folder(modules, component.module) / "go.mod"
        text = path.read_text(encoding="utf-8")
        match = re.search(rf"^\s*(?:require )?{re.escape(required)} (v\S+)", text, re.MULTILINE)
        if match is None:
            raise BuildError(f"{path}: no require line for {required}")
        found[component.name] = match.group(1)
    return found


def build_arguments(component: Component, version: str) -> tuple[str, ...]:
    """Return the arguments of ``go`` for one component, all but the output file."""
    linker = "-s -w"
    if component.module == "controlplane":
        # Without these /version shows a placeholder, and clients misjudge the skew.
        major, minor = version.lstrip("v").split(".")[:2]
        values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
        linker += "".join(f" -X {_VERSION_PACKAGE}.{key}={value}" for key, value in values.items())
    # -p 2: the link of kube-apiserver alone takes 2 GB. -buildvcs=false: there may be no version control.
    return ("build", "-mod=readonly", "-buildvcs=false", "-p", "2", "-ldflags", linker, component.package)


def cache_directory(environ: Mapping[str, str], modules: Path) -> Path:
    """Return the folder for exactly these modules and flags, whether it exists or not."""
    digest = hashlib.sha256()
    known = versions(modules)
    for component in COMPONENTS:
        digest.update(
            "\0".join((component.name, *build_arguments(component, known[component.name]))).encode()
        )
        for name in ("go.mod", "go.sum"):
            digest.update((module_folder(modules, component.module) / name).read_bytes())
    return _cache_base(environ) / digest.hexdigest()[:16]


def _cache_base(environ: Mapping[str, str]) -> Path:
    if chosen := environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser().absolute()
    if xdg := environ.get("XDG_CACHE_HOME"):
        return Path(xdg) / "remediator" / "testbed"
    return Path.home() / ".cache" / "remediator" / "testbed"


def find(environ: Mapping[str, str], *, modules: Path | None = None) -> Binaries | None:
    """Return the programs if every one is built already; builds nothing."""
    modules = modules or modules_directory(environ)
    directory = cache_directory(environ, modules)
    if _missing(directory):
        return None
    return Binaries(directory, versions(modules))


def _missing(directory: Path) -> tuple[Component, ...]:
    return tuple(component for component in COMPONENTS if not os.access(directory / component.name, os.X_OK))


def build(
    environ: Mapping[str, str],
    *,
    progress: Callable[[Progress], None] = lambda _: None,
    modules: Path | None = None,
    lock_timeout_s: float = BUILD_TIMEOUT_S,
) -> Binaries:
    """Build what is missing and return all of it. Two builders at once do the work once.

    Args:
        environ: of the process; ``go`` gets it too.
        progress: called at the start and end of each component and every few seconds between.
        modules: folder of the Go modules, by default the project's own.
        lock_timeout_s: how long to wait for another builder.

    Raises:
        BuildError: no Go, a Go that is too old, a failed build, or another builder without end.
    """
    modules = modules or modules_directory(environ)
    directory = cache_directory(environ, modules)
    known = versions(modules)
    directory.mkdir(parents=True, exist_ok=True)
    with _only_builder(directory, progress, lock_timeout_s):
        missing = _missing(directory)
        go = _usable_go(environ, modules, missing) if missing else ""
        for leftover in directory.glob(".*.partial"):  # of a builder that died
            leftover.unlink()
        for position, component in enumerate(COMPONENTS, start=1):
            note = _Note(progress, component.name, position, monotonic())
            if component not in missing:
                note("cached")
                continue
            arguments = build_arguments(component, known[component.name])
            folder = module_folder(modules, component.module)
            _build_one(go, component, arguments, directory, folder, environ, note)
    return Binaries(directory, known)


@dataclass(frozen=True, slots=True)
class _Note:
    """A progress callback bound to one component."""

    progress: Callable[[Progress], None]
    component: str
    position: int
    began: float

    def __call__(self, state: str) -> None:
        elapsed_s = monotonic() - self.began
        self.progress(Progress(self.component, self.position, len(COMPONENTS), elapsed_s, state))


@contextmanager
def _only_builder(directory: Path, progress: Callable[[Progress], None], timeout_s: float) -> Iterator[None]:
    with open(directory / ".lock", "a", encoding="utf-8") as lock:
        note = _Note(progress, "all", 0, monotonic())

        def taken() -> bool:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                note("waiting")
                return False
            return True

        try:
            wait_until(taken, timeout_s=timeout_s, every_s=1.0, what=f"the other build in {directory}")
        except WaitExpiredError as error:
            raise BuildError(f"{error}; end it or choose another folder with {CACHE_VARIABLE}") from error
        yield  # the lock goes with the open file


def _usable_go(environ: Mapping[str, str], modules: Path, missing: tuple[Component, ...]) -> str:
    left_out = f"not built: {', '.join(component.name for component in missing)}"
    go = shutil.which("go", path=environ.get("PATH"))
    if go is None:
        raise BuildError(f"the test bed needs Go >= {GO_NEEDED} and there is no `go` in PATH; {left_out}")
    # Asked inside a module, so that Go's own choice of a newer toolchain counts.
    asked = subprocess.run(
        [go, "env", "GOVERSION"],
        cwd=modules / "controlplane",
        env=_go_environment(environ),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    found = re.match(r"go(\d+)\.(\d+)", asked.stdout)
    needed = tuple(int(part) for part in GO_NEEDED.split("."))
    if asked.returncode or found is None or tuple(map(int, found.groups())) < needed:
        said = (asked.stdout + asked.stderr).strip()
        raise BuildError(f"the test bed needs Go >= {GO_NEEDED}, {go} says {said!r}; {left_out}")
    return go


def _go_environment(environ: Mapping[str, str]) -> dict[str, str]:
    # A go.work above the checkout, or flags meant for other projects, must not change the result.
    return {**environ, "GOWORK": "off", "GOFLAGS": ""}


def _build_one(
    go: str,
    component: Component,
    arguments: tuple[str, ...],
    directory: Path,
    module: Path,
    environ: Mapping[str, str],
    note: _Note,
) -> None:
    partial = directory / f".{component.name}.partial"
    log = directory / f"{component.name}.build.log"
    note("building")
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [go, arguments[0], "-o", str(partial), *arguments[1:]],
            cwd=module,
            env=_go_environment(environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that the compilers that go started can be ended with it
        )
        try:
            code = _wait_for(process, note)
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            partial.unlink(missing_ok=True)
            raise
    if code:
        raise BuildError(f"go could not build {component.name} (exit {code}):\n{_tail(log)}")
    os.replace(partial, directory / component.name)  # complete, or not there at all
    note("built")


def _wait_for(process: subprocess.Popen[bytes], note: _Note) -> int:
    deadline = note.began + BUILD_TIMEOUT_S
    while True:
        try:
            return process.wait(timeout=PROGRESS_EVERY_S)
        except subprocess.TimeoutExpired:
            note("building")
            if monotonic() > deadline:
                raise BuildError(
                    f"go did not finish {note.component} within {BUILD_TIMEOUT_S:g} s; run it again, "
                    "what is compiled already is kept by Go"
                ) from None


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    shown = "\n".join(lines[-TAIL_LINES:])
    return f"{shown}\n(the last {min(len(lines), TAIL_LINES)} of {len(lines)} lines of {log})"
