"""``remediator testbed``: a real control plane on this machine, without Docker."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from remediator.errors import RemediatorError

if TYPE_CHECKING:
    from remediator.testbed.binaries import Progress

_DONE: Final = {
    "go_silent": "silent",
    "go_not_ready": "not ready",
    "come_back": "back",
    "delete_node": "deleted",
    "recreate_node": "created anew",
}
# What people call a trouble of a page, and the operation that makes it.
_PAGE: Final = {
    "stale": "stale",
    "slow": "slow",
    "truncated": "truncate",
    "malformed": "malformed",
    "empty": "empty",
    "endless": "endless",
    "binary": "binary",
    "html": "html",
    "down": "down",
    "restarted": "restart_exporter",
    "good": "mend",
}

# The test bed's modules are imported inside the commands: they need an extra that `run` does without.

_directory = click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    envvar="REMEDIATOR_TESTBED",
    show_default="$REMEDIATOR_TESTBED, else $XDG_STATE_HOME/remediator/testbed",
    help="Folder of the test bed; several run side by side in different folders.",
)


@click.group()
def testbed() -> None:
    """Run a real Kubernetes control plane here, without Docker, with a fleet to break.

    etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kwok, built from their Go
    modules (Go 1.26 or newer, about six minutes the first time) and listening on 127.0.0.1 only.
    """


@testbed.command()
def build() -> None:
    """Build the programs into the cache folder and print its path."""
    with _failing_clearly():
        from remediator.testbed import binaries

        built = binaries.build(os.environ, progress=_show)
    click.echo(str(built.directory))


@testbed.command()
@_directory
@click.option("--quick", is_flag=True, help="Lease 8 s and grace 12 s, instead of 40 s and 50 s.")
@click.option(
    "--fleet/--no-fleet", default=True, show_default=True, help="64 GPU nodes, 2 others, their hardware."
)
@click.option(
    "--workload/--no-workload", default=True, show_default=True, help="Pods that fill the training pool."
)
def up(directory: Path | None, quick: bool, fleet: bool, workload: bool) -> None:
    """Build what is missing, start everything, and say how to use it.

    Example: remediator testbed up --no-workload
    """
    with _failing_clearly():
        from remediator.testbed import lifecycle
        from remediator.testbed.components import Options

        started = lifecycle.up(
            _chosen(directory),
            environ=os.environ,
            options=Options.quick() if quick else Options(),
            progress=_show,
            fleet=fleet,
            workload=workload,
            tell=lambda line: click.echo(line, err=True),
        )
    click.echo(lifecycle.describe(started.status))
    click.echo(lifecycle.usage(started))


@testbed.command()
@_directory
def down(directory: Path | None) -> None:
    """Stop everything; logs and the audit log stay in the folder."""
    with _failing_clearly():
        from remediator.testbed import lifecycle

        killed = lifecycle.down(_chosen(directory))
    click.echo(f"stopped; killed: {', '.join(killed)}" if killed else "stopped")


@testbed.command()
@_directory
def status(directory: Path | None) -> None:
    """Show components and hardware, pids, ports and health. Exit code 1 unless all are ready."""
    with _failing_clearly():
        from remediator.testbed import lifecycle

        found = lifecycle.status(_chosen(directory))
    click.echo(lifecycle.describe(found))
    if not found.healthy:
        raise click.exceptions.Exit(1)


@testbed.command()
@_directory
def env(directory: Path | None) -> None:
    """Print what the shell needs: KUBECONFIG, PATH with kubectl, REMEDIATOR_TESTBED, EXPORTER.

    Example: eval "$(remediator testbed env)"
    """
    with _failing_clearly():
        from remediator.testbed import lifecycle

        click.echo(lifecycle.environment(_chosen(directory)))


@testbed.command()
@_directory
def account(directory: Path | None) -> None:
    """Write a kubeconfig of the controller's ServiceAccount, good for a day, and print its path.

    Example: remediator run --kubeconfig "$(remediator testbed account)"
    """
    with _failing_clearly():
        from remediator.testbed import lifecycle

        click.echo(str(lifecycle.account(_chosen(directory))))


@testbed.command()
@click.argument("node")
@click.option("--xid", type=click.IntRange(1, 999), help="The driver reports this XID.")
@click.option("--field", help="A field of the exporter's page, such as DCGM_FI_DEV_ROW_REMAP_PENDING.")
@click.option("--value", type=float, help="What the field shows.")
@click.option("--gpu", default=0, show_default=True, help="Which GPU, with --xid or --field.")
@click.option("--condition", help="A node condition, such as KernelDeadlock=True.")
@_directory
def inject(
    node: str,
    xid: int | None,
    field: str | None,
    value: float | None,
    gpu: int,
    condition: str | None,
    directory: Path | None,
) -> None:
    """Make NODE faulty, in one way.

    Example: remediator testbed inject gpu-b-02 --xid 79 --gpu 5
    """
    if sum(given is not None for given in (xid, field, condition)) != 1:
        raise click.UsageError("write one of --xid, --field and --condition")
    if (field is None) != (value is None):
        raise click.UsageError("--field and --value go together")
    if xid is not None:
        _ask(directory, "inject_xid", node, gpu=gpu, code=xid)
        click.echo(f"{node}: GPU {gpu} reports XID {xid}")
    elif field is not None:
        _ask(directory, "set_gauge", node, gpu=gpu, field=field, value=value)
        click.echo(f"{node}: GPU {gpu} shows {field} {value:g}")
    else:
        type_, _, status_ = str(condition).partition("=")
        if status_ not in ("True", "False", "Unknown"):
            raise click.UsageError(f"--condition {condition}: write TYPE=True, TYPE=False or TYPE=Unknown")
        _ask(directory, "set_condition", node, condition=type_, status=status_)
        click.echo(f"{node}: condition {type_}={status_}")


@testbed.command()
@click.argument("node")
@_directory
def heal(node: str, directory: Path | None) -> None:
    """Take back every fault of NODE that was injected. What remediator did to it stays.

    Example: remediator testbed heal gpu-b-02
    """
    _ask(directory, "heal_node", node)
    click.echo(f"{node}: healthy")


@testbed.command("node")
@click.argument("node")
@click.option("--silent", "what", flag_value="go_silent", help="The kubelet and the exporter fall silent.")
@click.option("--not-ready", "what", flag_value="go_not_ready", help="The kubelet says Ready=False.")
@click.option("--back", "what", flag_value="come_back", help="The kubelet and the exporter are well again.")
@click.option("--delete", "what", flag_value="delete_node", help="The Node object goes; the machine stays.")
@click.option("--recreate", "what", flag_value="recreate_node", help="It comes back with another uid.")
@click.option("--other-machine", is_flag=True, help="With --recreate: other hardware under the same name.")
@click.option("--without-pods", is_flag=True, help="With --delete or --recreate: its pods go with it.")
@_directory
def change_node(
    node: str, what: str | None, other_machine: bool, without_pods: bool, directory: Path | None
) -> None:
    """Let something happen to NODE or to its kubelet.

    Example: remediator testbed node gpu-b-02 --recreate --other-machine
    """
    if what is None:
        raise click.UsageError("write one of --silent, --not-ready, --back, --delete and --recreate")
    if other_machine and what != "recreate_node":
        raise click.UsageError("--other-machine goes with --recreate")
    if without_pods and what not in ("recreate_node", "delete_node"):
        raise click.UsageError("--without-pods goes with --delete or --recreate")
    arguments: dict[str, object] = {}
    if what in ("recreate_node", "delete_node"):
        arguments["keep_pods"] = not without_pods
    if what == "recreate_node":
        arguments["same_machine"] = not other_machine
    _ask(directory, what, node, **arguments)
    click.echo(f"{node}: {_DONE[what]}")


@testbed.command()
@click.argument("node")
@click.argument("trouble", type=click.Choice(tuple(_PAGE)))
@click.option("--seconds", default=30.0, show_default=True, help="With slow: how long each answer takes.")
@_directory
def page(node: str, trouble: str, seconds: float, directory: Path | None) -> None:
    """Spoil the exporter's page of NODE, or mend it.

    Example: remediator testbed page gpu-b-02 html
    """
    arguments = {"seconds": seconds} if trouble == "slow" else {}
    _ask(directory, _PAGE[trouble], node, **arguments)
    click.echo(f"{node}: page {trouble}")


@testbed.command()
@click.argument("node")
@click.option("--times", type=click.IntRange(0, 5), default=1, show_default=True, help="0: it never reboots.")
@click.option("--late", "late_s", type=click.FloatRange(0, 600), default=0.0, help="Seconds until it begins.")
@click.option("--same-boot", is_flag=True, help="It comes back with the bootID that it had.")
@click.option("--still-broken", is_flag=True, help="What a reboot should cure stays.")
@click.option(
    "--returns",
    type=click.Choice(("ready", "not_ready", "silent")),
    default="ready",
    show_default=True,
    help="How its kubelet comes back.",
)
@click.option(
    "--job",
    type=click.Choice(("succeeds", "fails", "hangs")),
    default="succeeds",
    show_default=True,
    help="How the repair Job ends; the last two reboot nothing.",
)
@_directory
def repair(
    node: str,
    times: int,
    late_s: float,
    same_boot: bool,
    still_broken: bool,
    returns: str,
    job: str,
    directory: Path | None,
) -> None:
    """Say how repairs of NODE go from now on; without options, well.

    Example: remediator testbed repair gpu-b-02 --same-boot
    """
    _ask(
        directory,
        "plan_repair",
        node,
        times=times,
        late_s=late_s,
        new_boot_id=not same_boot,
        fault_persists=still_broken,
        returns=returns,
        job=job,
    )
    click.echo(f"{node}: repairs are planned")


def _chosen(directory: Path | None) -> Path:
    from remediator.testbed import lifecycle

    return (directory or lifecycle.default_directory(os.environ)).absolute()


def _ask(directory: Path | None, operation: str, node: str, **arguments: object) -> None:
    with _failing_clearly():
        from remediator.testbed import world

        world.ask(_chosen(directory), operation, node, **arguments)


@contextmanager
def _failing_clearly() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "cryptography":
            raise
        message = "the test bed needs the package `cryptography`: pip install 'remediator[testbed]'"
        raise click.ClickException(message) from error
    except RemediatorError as error:
        raise click.ClickException(str(error)) from error


def _show(progress: Progress) -> None:
    from remediator.testbed.lifecycle import describe_progress

    click.echo(describe_progress(progress), err=True)
