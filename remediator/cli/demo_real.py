"""``remediator demo --real``: the product on a real control plane of its own, in two minutes."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from remediator.cli.exits import RUNTIME_ERROR, Stop

if TYPE_CHECKING:
    from remediator.testbed.stage import Stage


def play_real(*, keep: bool, directory: Path | None) -> None:
    """Play three incidents on a control plane of its own; see ``remediator demo --real``.

    Raises:
        Stop: one of them did not go as told, or the audit log shows harm.
    """
    from remediator.fleet.workloads import (
        Workload,
    )
    from remediator.testbed import binaries
    from remediator.testbed.lifecycle import describe_progress
    from remediator.testbed.stage import Stage

    found = binaries.find(os.environ)
    if found is None:
        click.echo("building the control plane (once; about 6 minutes on two cores)")
        found = binaries.build(os.environ, progress=lambda each: click.echo(f"  {describe_progress(each)}"))
    files = directory or Path(tempfile.mkdtemp(prefix="remediator-demo-"))
    stage = Stage(files, found, workload=Workload(), tell=lambda line: click.echo(f"  {line}"))
    try:
        missing = _play(stage)
        if keep:
            _wait_for_ctrl_c(stage)
    finally:
        stage.stop()
    if missing:
        raise Stop(f"{missing}\nto read on: {stage.log} and {files}", RUNTIME_ERROR)
    if directory is None:
        shutil.rmtree(files)


def _play(stage: Stage) -> str:
    """Start and play. Returns what did not go as told, or the empty text."""
    from remediator.errors import TransientError
    from remediator.testbed.demo import NotAsToldError, play

    try:
        stage.start()
    except TransientError as error:  # which would count as an API server of the caller's that is away
        raise Stop(f"the stage can't be set: {error}", RUNTIME_ERROR) from error
    try:
        return "" if play(stage, click.echo) else "the audit log shows harm, see above"
    except (NotAsToldError, TransientError) as error:
        return str(error)


def _wait_for_ctrl_c(stage: Stage) -> None:
    click.echo(f"\nexport KUBECONFIG={stage.cluster.kubeconfig}   (Ctrl-C ends the cluster)")
    try:
        signal.pause()
    except KeyboardInterrupt:
        click.echo("ending the cluster")
