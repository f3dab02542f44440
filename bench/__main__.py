"""``python -m bench [NAME ...]`` measures figures; ``python -m bench report`` writes docs/performance.md."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final

import click

from bench import (
    burst,
    chaos_check,
    chaos_corpus,
    chaos_histories,
    condition_to_taint,
    failover,
    hard_fault,
    idle_requests,
    image,
    memory,
    report,
    scrape,
    simulated_fleet,
    simulated_joins,
    watch_ingest,
    watch_trouble,
    writes_per_run,
)
from bench.context import Context
from bench.machine import ROOT, commit, package_versions, this_machine
from bench.results import Finding, Result, load, save
from remediator.testbed import binaries
from remediator.testbed.waiting import now

PUBLISHED: Final = ROOT / "bench" / "published"
PAGE: Final = ROOT / "docs" / "performance.md"
REPORT: Final = "report"


@dataclass(frozen=True, slots=True)
class Figure:
    """``large`` figures are measured only when they are named, or all are asked for."""

    title: str
    measure: Callable[[Context], Finding]
    large: bool = False


FIGURES: Final[Mapping[str, Figure]] = MappingProxyType(
    {
        "condition_to_taint": Figure(
            "Condition committed to taint committed, one fault at a time, 100 small nodes.",
            partial(condition_to_taint.measure, nodes=100, size="small"),
        ),
        "condition_to_taint_1000": Figure(
            "Condition committed to taint committed, one fault at a time, 1,000 nodes of 20 KB.",
            partial(condition_to_taint.measure, nodes=1_000, size="full"),
            large=True,
        ),
        "burst": Figure(
            "200 faults at once: first condition committed to last taint committed, 200 small nodes.",
            partial(burst.measure, nodes=200, rounds=10),
            large=True,
        ),
        "hard_fault": Figure(
            "XID 79 on a page to taint, to spare schedulable, and the drain of 30 pods, 100 nodes.",
            partial(hard_fault.measure, nodes=100, period_s=1.0),
        ),
        "hard_fault_1000": Figure(
            "XID 79 on a page to taint, to spare schedulable, and the drain of 30 pods, 1,000 nodes.",
            partial(hard_fault.measure, nodes=1_000, period_s=5.0),
            large=True,
        ),
        "writes_per_run": Figure(
            "API writes of whole runs of gpu-off-bus: fence, swap, drain, reboot, verify, return.",
            partial(writes_per_run.measure, nodes=100),
        ),
        "writes_per_run_1000": Figure(
            "The same API writes in a fleet of 1,000 nodes.",
            partial(writes_per_run.measure, nodes=1_000),
            large=True,
        ),
        "idle_requests": Figure("API requests while nothing happens.", idle_requests.measure),
        "idle_requests_1000": Figure(
            "API requests while nothing happens, 1,000 nodes of 20 KB.",
            partial(idle_requests.measure, nodes=1_000),
            large=True,
        ),
        "idle_requests_3000": Figure(
            "API requests while nothing happens, 3,000 nodes of 20 KB.",
            partial(idle_requests.measure, nodes=3_000),
            large=True,
        ),
        "scrape": Figure("Exporter pages of eight GPUs fetched and read.", scrape.measure),
        "watch_ingest": Figure("Watch events of 20 KB nodes: decode, keep, diagnose.", watch_ingest.measure),
        "chaos_corpus": Figure(
            "Histories until a planted bug is found, bug by bug.", chaos_corpus.measure, large=True
        ),
        "chaos_histories": Figure(
            "Histories of remediator on the simulated cluster.", chaos_histories.measure, large=True
        ),
        "simulated_fleet": Figure(
            "A fleet on the simulator, with one controller, by its size.",
            partial(simulated_fleet.measure, sizes=(1_000, 10_000)),
            large=True,
        ),
        "simulated_joins": Figure(
            "10,000 nodes that join in storms of 500 while leaders die, on the simulator.",
            partial(simulated_joins.measure, joining=10_000),
            large=True,
        ),
        "watch_trouble": Figure(
            "How much later a fault is answered when its watch is in trouble, simulated.",
            watch_trouble.measure,
            large=True,
        ),
        "chaos_check": Figure("Audit records judged by all rules of chaos check.", chaos_check.measure),
        "memory": Figure("Resident memory of the controller.", memory.measure, large=True),
        "failover": Figure(
            "Time without a leader, after a crash and after a clean end.", failover.measure, large=True
        ),
        "image": Figure("Size and start of the container image.", image.measure, large=True),
    }
)


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME ...]")
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "bench" / "results", show_default=True)
@click.option("--all", "everything", is_flag=True, help="Also the figures that take 1,000 nodes or an image.")
@click.option("--trials", default=200, show_default=True, help="A side, where a figure has trials.")
@click.option("--seconds", default=60.0, show_default=True, help="Where a figure watches or repeats.")
@click.option("--seed", default=0, help="Seed of all dice; 0 takes a random one.")
@click.option("--keep", is_flag=True, help="Keep the folders with logs and audit logs.")
def main(
    names: tuple[str, ...], out: Path, everything: bool, trials: int, seconds: float, seed: int, keep: bool
) -> None:
    """Measure figures by NAME (default: all that fit a small machine), or write the page: report.

    Example: python -m bench condition_to_taint --trials 40 --out /tmp/results
    """
    if names == (REPORT,):
        PAGE.write_text(report.page(load(PUBLISHED)), encoding="utf-8")
        click.echo(f"{PAGE} written from {PUBLISHED}")
        return
    unknown = [name for name in names if name not in FIGURES]
    if unknown:
        raise click.UsageError(f"no figure {', '.join(unknown)}; there are {', '.join((*FIGURES, REPORT))}")
    chosen = names or tuple(name for name, each in FIGURES.items() if everything or not each.large)
    built = binaries.find(os.environ) or binaries.build(os.environ, progress=lambda _: None)
    for name in chosen:
        drawn = seed or secrets.randbelow(2**31) + 1
        result = _run(name, built, seed=drawn, trials=trials, seconds=seconds, keep=keep)
        path = save(result, out)
        click.echo(f"{report.table(result)}\n  {path}\n")


def _run(
    name: str, built: binaries.Binaries, *, seed: int, trials: int, seconds: float, keep: bool
) -> Result:
    directory = Path(tempfile.mkdtemp(prefix=f"bench-{name}-"))
    click.echo(f"{name}: seed {seed}, files in {directory}", err=True)
    machine, (head, changed), began = this_machine(), commit(), time.monotonic()
    measured_at = now().strftime("%Y-%m-%dT%H:%M:%SZ")
    context = Context(
        directory=directory,
        binaries=built,
        seed=seed,
        trials=trials,
        seconds=seconds,
        tell=lambda line: click.echo(f"  {line}", err=True),
    )
    finding = FIGURES[name].measure(context)
    if not keep:
        shutil.rmtree(directory)
    return Result(
        figure=name,
        title=FIGURES[name].title,
        measured_at=measured_at,
        took_s=round(time.monotonic() - began, 1),
        seed=seed,
        command=f"python -m bench {name} --trials {trials} --seconds {seconds:g} --seed {seed}",
        commit=head,
        changed_files=changed,
        machine=machine,
        versions={**package_versions(), **built.versions},
        finding=finding,
    )


if __name__ == "__main__":
    sys.exit(main())
