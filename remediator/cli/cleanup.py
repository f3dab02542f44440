"""``remediator cleanup``: the way out. Takes from the cluster what is not in our own objects."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from remediator.cli.columns import clip
from remediator.cli.connection import carry_out, confirmed, connected, show
from remediator.cli.exits import RUNTIME_ERROR, UNREACHABLE, Stop
from remediator.model.words import how_many, shortened

if TYPE_CHECKING:
    from remediator.app.cleanup import NodeLeftover
    from remediator.app.leadership import Leadership
    from remediator.app.settings import Settings
    from remediator.app.snapshot import Snapshot


@click.command()
@click.option("--dry-run", is_flag=True, help="Only list.")
@click.option("--yes", is_flag=True, help="Do it without asking; needed where there is no terminal.")
@connected
def cleanup(settings: Settings, dry_run: bool, yes: bool) -> None:
    """List what remediator left on nodes, in grants and in its Lease; take it away when told so.

    Quarantined nodes become as they were before. Stop the controller first. The objects of
    remediator.dev stay; the last lines say how to remove them.

    Example: remediator cleanup --yes
    """
    failed = carry_out(_cleanup(settings, dry_run, yes))
    if failed:
        sys.exit(RUNTIME_ERROR)


async def _cleanup(settings: Settings, dry_run: bool, yes: bool) -> int:
    """List, ask, and take away. Returns how many removals failed."""
    from remediator.app.cleanup import leftovers
    from remediator.app.leadership import read_leadership
    from remediator.app.snapshot import open_snapshot

    async with open_snapshot(settings) as snapshot:
        world = snapshot.world
        runs = {**world.ended_runs, **world.open_runs}
        found = leftovers(world.nodes.values(), world.pools, runs, world.gate)
        lease = await read_leadership(snapshot.transport, settings.namespace, settings.lease)
        target = snapshot.transport.describe()
        show([f"cluster {target.server}, context {target.context or '(in cluster)'}", *_listed(found)])
        show([*_books(snapshot, lease, settings), "", *_what_stays(snapshot)])
        grants = bool(world.policy_status.grants)
        if not found and not grants and not lease.uid:
            click.echo("\nnothing to take away")
            return 0
        if dry_run:
            click.echo(
                "\nnothing was done: this is a list only (without --dry-run it is taken away)", err=True
            )
            return 0
        if not lease.known:
            raise Stop(f"whether a controller leads can't be told: {lease.problem}", UNREACHABLE)
        if lease.leads(snapshot.clock.now()):
            stop = f"kubectl -n {settings.namespace} scale deployment remediator --replicas=0"
            raise Stop(f"{lease.holder} still leads; stop it first: {stop}")
        confirmed(f"Take away all of this from {target.server}?", yes)
        return await _take_away(snapshot, settings, found, lease)


def _listed(found: tuple[NodeLeftover, ...]) -> list[str]:
    return [clip(f"node/{each.node}: {each.text}", 400) for each in found] or [
        "no Node carries anything of ours"
    ]


def _books(snapshot: Snapshot, lease: Leadership, settings: Settings) -> list[str]:
    lines = []
    if grants := [each.run for each in snapshot.world.policy_status.grants]:
        lines.append(f"remediationpolicy/cluster: {how_many(len(grants), 'grant')} ({shortened(grants)})")
    if lease.uid:
        lines.append(f"lease/{settings.lease} in {settings.namespace}, held by {lease.holder or 'nobody'}")
    return lines


def _what_stays(snapshot: Snapshot) -> list[str]:
    caches = snapshot.world.caches
    counted = (
        f"{how_many(len(caches.runs), 'remediation')} ({len(snapshot.world.open_runs)} open)",
        how_many(len(caches.ledgers), "managednode"),
        how_many(len(caches.playbooks), "playbook"),
        how_many(len(caches.pools), "resourcepool"),
        "remediationpolicy/cluster" if caches.policies else "no remediationpolicy",
    )
    return [
        f"stays: {', '.join(counted)}, and the pool labels and taints of nodes",
        "the objects and their records go with: kubectl delete -f deploy/crds",
    ]


async def _take_away(
    snapshot: Snapshot, settings: Settings, found: tuple[NodeLeftover, ...], lease: Leadership
) -> int:
    from remediator.app.cleanup import clean_grants, clean_lease, clean_node

    failed = 0
    for leftover in found:
        failed += _say(f"node/{leftover.node}", await clean_node(snapshot.transport, leftover))
    if snapshot.world.policy_status.grants:
        failed += _say("remediationpolicy/cluster grants", await clean_grants(snapshot))
    if lease.uid:
        failed += _say(f"lease/{settings.lease}", await clean_lease(snapshot.transport, settings, lease))
    return failed


def _say(what: str, refused: str) -> int:
    """Report one removal; 1 where it failed."""
    if refused:
        click.echo(f"error: {what} not cleaned: {refused} (run it again)", err=True)
        return 1
    click.echo(f"{what} cleaned")
    return 0
