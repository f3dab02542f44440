"""How fast a log is judged by all rules, and in how much memory, beside a loop that only parses it.

The log is a real one, of a whole run on the standard fleet with its workload, repeated until it is large.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from bench.context import Context
from bench.results import Finding, a_series, at_least, at_most
from remediator.fleet.workloads import (
    Workload,
)
from remediator.testbed.stage import Stage

VICTIM: Final = "gpu-a-02"
BYTES: Final = 256 << 20
ROUNDS: Final = 3
RATE_MIN: Final = 20_000.0
PEAK_MAX_MB: Final = 200.0
_OURS: Final = """
import resource, sys
from pathlib import Path
from remediator.adapters.audit import read_records
from remediator.chaos.check import check
from remediator.chaos.profile import load_profile
report = check(read_records(Path(sys.argv[1])), load_profile("remediator"))
print(report.records, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
_BARE: Final = """
import json, resource, sys
count = 0
with open(sys.argv[1], "rb") as file:
    for line in file:
        json.loads(line)
        count += 1
print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def measure(context: Context) -> Finding:
    """Record one run, repeat its log, and judge it in a process of its own, several times."""
    with Stage(context.directory / "stage", context.binaries, workload=Workload()) as stage:
        stage.start_controller()
        stage.exporters.inject_xid(VICTIM, 0, 79)
        stage.wait_run(VICTIM, "Returned", timeout_s=120.0)
        once = stage.audit.path.read_bytes()
    once = once[: once.rfind(b"\n") + 1]
    log = context.directory / "large.log"
    with log.open("wb") as file:
        for _ in range(-(-BYTES // len(once))):
            file.write(once)
    ours, bare = [], []
    for number in range(ROUNDS):
        ours.append(_judge(_OURS, log))
        bare.append(_judge(_BARE, log))
        context.tell(f"{number + 1} of {ROUNDS} rounds a side")
    rates = [rate for rate, _ in ours]
    plain = [rate for rate, _ in bare]
    return Finding(
        series=(
            a_series("records judged", "1/s", rates),
            a_series("peak memory, judging", "MB", [peak for _, peak in ours]),
            a_series("bare, records parsed", "1/s", plain),
            a_series("bare, peak memory", "MB", [peak for _, peak in bare]),
        ),
        checks=(
            at_least("records judged per second and core", min(rates), RATE_MIN),
            at_least("rate to bare json", sorted(rates)[1] / sorted(plain)[1], 1.0),
            at_most("MB at the peak", max(peak for _, peak in ours), PEAK_MAX_MB),
        ),
        conditions={
            "records": once.count(b"\n") * -(-BYTES // len(once)),
            "megabytes": round(log.stat().st_size / 1e6, 1),
            "log": "one run of gpu-off-bus on 66 nodes with their workload, repeated",
            "rounds": ROUNDS,
        },
        notes=("Bare is json.loads of every line, and nothing else.", "Both read from the page cache."),
    )


def _judge(program: str, log: Path) -> tuple[float, float]:
    """Records per second, and MB at the peak, of one process."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program, str(log)],
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    took_s = time.monotonic() - began
    records, peak_kb = done.stdout.split()
    return int(records) / took_s, int(peak_kb) * 1024 / 1e6
