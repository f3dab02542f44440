"""``remediator run``: the controller itself."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys
from pathlib import Path

import click

from remediator.app.settings import Settings, lease_times, own_namespace


@click.command()
@click.option(
    "--kubeconfig", type=click.Path(path_type=Path), help="Path; found like kubectl finds it if absent."
)
@click.option("--context", help="Context of the kubeconfig.")
@click.option("--namespace", default=None, help="Where our Lease is. Default: POD_NAMESPACE, or remediator.")
@click.option("--host", default="0.0.0.0", show_default=True, help="Address of the health and metrics port.")
@click.option("--port", default=8080, show_default=True, help="Health and metrics port; 0 takes a free one.")
@click.option(
    "--tls-dir",
    type=click.Path(path_type=Path),
    help="Serve that port with TLS: the directory of tls.crt and tls.key.",
)
@click.option(
    "--metrics-auth",
    type=click.Choice(["none", "token-review"]),
    default="none",
    show_default=True,
    help="Who may read /metrics and /statusz.",
)
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info")
@click.option("--log-format", type=click.Choice(["auto", "json", "text"]), default="auto", show_default=True)
@click.option(
    "--lease-seconds", default=15.0, show_default=True, help="How long a silent leader is waited for."
)
@click.option("--seed", default=0, help="Seed of all dice; 0 draws one. The log's first line names it.")
def run(
    kubeconfig: Path | None,
    context: str | None,
    namespace: str | None,
    host: str,
    port: int,
    tls_dir: Path | None,
    metrics_auth: str,
    log_level: str,
    log_format: str,
    lease_seconds: float,
    seed: int,
) -> None:
    """Run the controller until SIGTERM.

    Example: remediator run --kubeconfig ~/.kube/config --port 8080
    """
    from remediator.adapters.clock import SystemClock
    from remediator.adapters.dice import draw_mark
    from remediator.adapters.telemetry.logs import configure_logs
    from remediator.app.controller import run as run_controller

    as_json = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    configure_logs(log_level, json=as_json, stream=sys.stderr, clock=SystemClock())
    settings = Settings(
        kubeconfig=kubeconfig,
        context=context,
        namespace=namespace or own_namespace(os.environ),
        identity=f"{socket.gethostname()}-{draw_mark()}",
        host=host,
        port=port,
        tls_dir=tls_dir,
        review_tokens=metrics_auth == "token-review",
        seed=seed,
        **lease_times(lease_seconds),
    )
    # Short-lived objects are few and long-lived ones many: full collections are what would show
    # as a pause, so they are made rare.
    gc.set_threshold(50_000, 20, 100)
    sys.exit(asyncio.run(run_controller(settings)))
