"""``remediator status``: one screen about everything, read from objects only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from remediator.cli.connection import carry_out, connected, show

if TYPE_CHECKING:
    from remediator.app.leadership import Leadership
    from remediator.app.settings import Settings
    from remediator.app.snapshot import Snapshot
    from remediator.cli.status_facts import Given


@click.command()
@connected
def status(settings: Settings) -> None:
    """Show leader, what needs a person, pools, runs and brakes on one screen.

    It reads objects only, so it works while no controller runs.

    Example: remediator status --context prod
    """
    show(carry_out(_status(settings)))


async def _status(settings: Settings) -> list[str]:
    from remediator import __version__
    from remediator.adapters.kube.discovery import check_installed
    from remediator.app.leadership import read_leadership
    from remediator.app.snapshot import open_snapshot
    from remediator.cli.status_facts import gather
    from remediator.cli.status_screen import Heading, render

    async with open_snapshot(settings) as snapshot:
        leadership = await read_leadership(snapshot.transport, settings.namespace, settings.lease)
        installed = await check_installed(snapshot.transport)
        given = _given(snapshot, leadership)
        nodes = snapshot.world.nodes.values()
        heading = Heading(
            context=snapshot.transport.describe().context,
            server_version=installed.server_version,
            program_version=__version__,
            nodes=len(nodes),
            gpus=sum(node.gpus for node in nodes),
            term=given.view.term,
            last_leader=given.view.status.leader,
            now=given.view.now,
            leadership=leadership,
        )
        return render(heading, gather(given))


def _given(snapshot: Snapshot, leadership: Leadership) -> Given:
    from msgspec.structs import replace

    from remediator.cli.status_facts import Given

    world = snapshot.world
    view = snapshot.scout.view()
    # No page is read here, and a page that nobody read is no reason to refuse a spare.
    view = replace(view, fleetwide=replace(view.fleetwide, blind=frozenset()))

    def node_of(machine: str) -> str:
        nodes = world.nodes_of(machine)
        return nodes[0].name if len(nodes) == 1 else ""

    return Given(
        view=view,
        faults=snapshot.diagnoses.faults(),
        ended=world.ended_runs,
        playbooks=world.caches.playbooks.views(),
        ledgers=world.caches.ledgers.views(),
        node_of=node_of,
        machine_of=world.machine,
        leadership=leadership,
    )
