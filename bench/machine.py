"""Where a figure was measured: machine, versions, commit. Figures of different machines do not compare."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from msgspec import Struct

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("aiohttp", "kubernetes", "msgspec")


class Machine(Struct, frozen=True, kw_only=True):
    """``load_1m`` is the load average before the measurement: what others did meanwhile."""

    cpu: str
    cores: int
    memory_gb: float
    kernel: str
    load_1m: float


def this_machine() -> Machine:
    return Machine(
        cpu=_field(Path("/proc/cpuinfo"), "model name") or platform.processor() or "unknown",
        cores=os.cpu_count() or 0,
        memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        kernel=platform.release(),
        load_1m=round(os.getloadavg()[0], 2),
    )


def package_versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def commit() -> tuple[str, int]:
    """The commit, and how many files of the work tree differ from it; ``unknown`` outside of git."""
    head = _git("rev-parse", "--short=12", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", "remediator", "bench", "deploy")
    return (head or "unknown", len(changed.splitlines()))


def memory_kb(pid: int, field: str) -> int:
    """A field of ``/proc/PID/status`` such as VmRSS, in KiB."""
    return int(_field(Path(f"/proc/{pid}/status"), field).split()[0])


def _field(path: Path, name: str) -> str:
    for line in path.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""
