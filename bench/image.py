"""The built image: how large it is, and how long from its start to an answer and to leadership."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from bench.container import Container, inspect_image, podman
from bench.context import Context
from bench.results import Count, Finding, a_series
from remediator.testbed.stage import Stage
from remediator.testbed.waiting import wait_until

IMAGE: Final = os.environ.get("IMAGE", "localhost/remediator:dev")
STARTS: Final = 10
POLL_S: Final = 0.01
START_S_MAX: Final = 60.0
PACK_S_MAX: Final = 300.0
_BARE: Final = "import kubernetes.aio.client, aiohttp, msgspec, structlog, prometheus_client"


def measure(context: Context) -> Finding:
    """Start it again and again, each time after the one before has given its Lease back."""
    found = inspect_image(IMAGE)
    answered, led = [], []
    with Stage(context.directory / "stage", context.binaries) as stage:
        for number in range(STARTS):
            to_answer, to_lead = _one_start(stage, context.directory / f"start-{number}")
            context.tell(f"answers after {to_answer:.0f} ms, leads after {to_lead:.0f} ms")
            answered.append(to_answer)
            led.append(to_lead)
    return Finding(
        series=(
            a_series("podman run to /healthz", "ms", answered),
            a_series("podman run to leading", "ms", led),
            a_series("bare: the host's interpreter imports the libraries", "ms", _bare_ms()),
        ),
        counts=(
            Count(name="MB unpacked", value=round(found["Size"] / 1e6, 1)),
            Count(name="MB as gzip layers, as a registry holds them", value=_packed_mb(context.directory)),
        ),
        conditions={
            "nodes": len(stage.specs),
            "starts": STARTS,
            "runtime": podman("--version").strip(),
            "base": "Debian bookworm and its Python, made by scripts/image.sh",
            "storage": "on this machine; nothing is pulled",
        },
        notes=(
            "podman starts it with in-cluster credentials, a read-only root, no capability. With its driver "
            "vfs each start also copies the whole tree, which no kubelet does: the figures hold that copy.",
            "Not checked: a pull from a registry, an official Python base (no registry can be reached from "
            "here), a kubelet as the one who starts it, other architectures than this one.",
        ),
    )


def _one_start(stage: Stage, directory: Path) -> tuple[float, float]:
    """Milliseconds to the first answer and to leadership."""
    port = stage.cluster.reserve_port()
    container = Container(IMAGE, name=f"bench-{port}", api=stage.api, directory=directory, port=port)
    began = time.monotonic()
    with container:
        times = []
        for what, look in (("answer", lambda: container.answers("/healthz")), ("lead", container.leads)):
            wait_until(look, timeout_s=START_S_MAX, every_s=POLL_S, what=what, detail=container.logs)
            times.append((time.monotonic() - began) * 1_000)
        container.stop()
    return times[0], times[1]


def _packed_mb(directory: Path) -> float:
    target = directory / "image.tar"
    podman(
        "push",
        "--quiet",
        "--compression-format",
        "gzip",
        IMAGE,
        f"oci-archive:{target}",
        timeout_s=PACK_S_MAX,
    )
    size = target.stat().st_size
    target.unlink()
    return round(size / 1e6, 1)


def _bare_ms() -> list[float]:
    times = []
    for _ in range(STARTS):
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", _BARE], check=True, timeout=START_S_MAX)
        times.append((time.monotonic() - began) * 1_000)
    return times
