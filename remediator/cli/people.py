"""The verbs of people: hold, unhold, pause, resume, cancel, adopt. Done with the caller's own credentials."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import click

from remediator.cli import moments
from remediator.cli.arguments import END, LENGTH, NAME, REASON
from remediator.cli.connection import carry_out, connected, open_cluster

if TYPE_CHECKING:
    from remediator.app.people import People, Scope
    from remediator.app.settings import Settings

_REASON = click.option(
    "--reason", type=REASON, required=True, help="Why; people see it where it stops something."
)
_POOL = click.option("--pool", type=NAME, help="Only this ResourcePool.")
_PLAYBOOK = click.option("--playbook", type=NAME, help="Only this playbook.")
NEVER_LONGER = "4h, 90m, 7d"


@click.command()
@click.argument("node", type=NAME)
@click.option("--for", "length", type=LENGTH, required=True, help=f"How long: {NEVER_LONGER}.")
@_REASON
@connected
def hold(settings: Settings, node: str, length: timedelta, reason: str) -> None:
    """Keep remediator away from NODE for a while. A run that is under way there is taken back.

    Example: remediator hold gpu-a-03 --for 4h --reason "vendor on site"
    """

    async def work() -> None:
        async with _people(settings) as (people, now):
            until = moments.after(now, length)
            await _near(settings, people.hold(node, until, reason), node)
            click.echo(f"node/{node} held until {until:%Y-%m-%d %H:%M:%S} UTC")

    carry_out(work())


@click.command()
@click.argument("node", type=NAME)
@connected
def unhold(settings: Settings, node: str) -> None:
    """Take a hold away before its time.

    Example: remediator unhold gpu-a-03
    """

    async def work() -> None:
        async with _people(settings) as (people, _):
            changed = await _near(settings, people.unhold(node), node)
            click.echo(f"node/{node} {'unheld' if changed else 'has no hold (unchanged)'}")

    carry_out(work())


@click.command()
@_POOL
@_PLAYBOOK
@_REASON
@click.option("--for", "length", type=LENGTH, help=f"How long: {NEVER_LONGER}. Default: until resumed.")
@connected
def pause(
    settings: Settings, pool: str | None, playbook: str | None, reason: str, length: timedelta | None
) -> None:
    """Stop everything new: under the policy, or one pool or playbook only.

    Steps that have begun finish; the next ones wait. Without this program:
    kubectl patch rpol cluster --type=merge -p '{"spec":{"pause":{"reason":"..."}}}'

    Example: remediator pause --pool train --reason "big run until Friday" --for 3d
    """
    scope, name = _scope(pool, playbook)

    async def work() -> None:
        async with _people(settings) as (people, now):
            until = moments.after(now, length) if length is not None else None
            await _named(settings, scope, name, people.pause(scope, name, reason, until))
            end = f"until {until:%Y-%m-%d %H:%M:%S} UTC" if until is not None else "until resumed"
            click.echo(f"{_shown(scope, name)} paused {end}")

    carry_out(work())


@click.command()
@_POOL
@_PLAYBOOK
@connected
def resume(settings: Settings, pool: str | None, playbook: str | None) -> None:
    """End a pause.

    Example: remediator resume --pool train
    """
    scope, name = _scope(pool, playbook)

    async def work() -> None:
        async with _people(settings) as (people, _):
            changed = await _named(settings, scope, name, people.resume(scope, name))
            click.echo(f"{_shown(scope, name)} {'resumed' if changed else 'is not paused (unchanged)'}")

    carry_out(work())


@click.command()
@click.argument("run", type=NAME)
@_REASON
@connected
def cancel(settings: Settings, run: str, reason: str) -> None:
    """End RUN, leave nothing behind on its node, and do not come back for the hold time.

    A node's name means its open run.

    Example: remediator cancel gpu-a-03-1 --reason "false alarm"
    """
    from remediator.app.lookup import find_run
    from remediator.app.people import People

    async def work() -> None:
        async with open_cluster(settings) as (transport, clock):
            people = People(transport, by=await transport.check_identity())
            name = (await find_run(transport, clock, run, only_open=True)).metadata.name
            changed = await people.cancel(name, reason)
            said = "cancel requested" if changed else "has ended, or was cancelled already (unchanged)"
            click.echo(f"remediation/{name} {said}")

    carry_out(work())


@click.command()
@click.argument("nodes", type=NAME, nargs=-1)
@click.option("--cordoned", is_flag=True, help="All nodes that are cordoned now, but by us.")
@click.option("--until", "end", type=END, required=True, help="A date (to its end, UTC), a time, or 7d.")
@_REASON
@connected
def adopt(
    settings: Settings, nodes: tuple[str, ...], cordoned: bool, end: datetime | timedelta, reason: str
) -> None:
    """Declare machines known out until a date: they leave numerator and denominator of all limits.

    Nothing is written to a Node.

    Example: remediator adopt --cordoned --until 2026-12-01 --reason "RMA batch 7"
    """
    from remediator.adapters.clock import SystemClock

    if bool(nodes) == cordoned:
        raise click.UsageError("name nodes, or write --cordoned, not both")
    carry_out(_adopt(settings, nodes, moments.until(SystemClock().now(), end), reason))


async def _adopt(settings: Settings, names: tuple[str, ...], until: datetime, reason: str) -> None:
    from remediator.app.explain import find_node
    from remediator.app.people import People
    from remediator.app.snapshot import open_snapshot
    from remediator.model.keys import TAINT_QUARANTINE

    async with open_snapshot(settings) as snapshot:
        cordoned = [
            node
            for _, node in sorted(snapshot.world.nodes.items())
            if node.unschedulable and node.taint(TAINT_QUARANTINE) is None
        ]
        nodes = [find_node(snapshot, name) for name in names] if names else cordoned
        people = People(snapshot.transport, by=await snapshot.transport.check_identity())
        for node in nodes:
            machine = snapshot.world.machine(node)
            await people.adopt(machine, until, reason)
            click.echo(f"managednode/{machine} adopted (node {node.name}) until {until:%Y-%m-%d %H:%M} UTC")
        if not nodes:
            click.echo("no node is cordoned by others (unchanged)")


@asynccontextmanager
async def _people(settings: Settings) -> AsyncIterator[tuple[People, datetime]]:
    """The caller's own hands, and what time it is."""
    from remediator.app.people import People

    async with open_cluster(settings) as (transport, clock):
        yield People(transport, by=await transport.check_identity()), clock.now()


async def _named(settings: Settings, scope: Scope, name: str, work: Awaitable[bool]) -> bool:
    """Say what is near, when there is no pool or playbook of that name."""
    from remediator.app.lookup import NotFoundError, not_found
    from remediator.app.snapshot import open_snapshot

    try:
        return await work
    except NotFoundError:
        if scope == "policy":
            raise
        async with open_snapshot(settings) as snapshot:
            caches = snapshot.world.caches
            known = [*(caches.pools if scope == "pool" else caches.playbooks).views()]
        raise not_found(scope, name, known, f"there are: {', '.join(sorted(known)) or 'none'}") from None


async def _near(settings: Settings, work: Awaitable[bool], node: str) -> bool:
    """Say what is near, when there is no node of that name."""
    from remediator.app.explain import find_node
    from remediator.app.lookup import NotFoundError
    from remediator.app.snapshot import open_snapshot

    try:
        return await work
    except NotFoundError:
        async with open_snapshot(settings) as snapshot:
            find_node(snapshot, node)
        raise


def _scope(pool: str | None, playbook: str | None) -> tuple[Scope, str]:
    if pool and playbook:
        raise click.UsageError("--pool or --playbook, not both")
    if pool:
        return "pool", pool
    return ("playbook", playbook) if playbook else ("policy", "cluster")


def _shown(scope: Scope, name: str) -> str:
    kinds = {"policy": "remediationpolicy", "pool": "resourcepool", "playbook": "playbook"}
    return f"{kinds[scope]}/{name}"
