"""What the verbs that ask for a run share: to ask, to say what holds it, and to wait for its end."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import click

from remediator.cli import exits
from remediator.cli.exits import Stop

if TYPE_CHECKING:
    from remediator.app.explain import Judged
    from remediator.app.settings import Settings
    from remediator.app.snapshot import Snapshot
    from remediator.model.remediation import Remediation
    from remediator.ports import Clock, Transport

POLL_S = 2.0


async def ask_for_run(
    snapshot: Snapshot,
    settings: Settings,
    node: str,
    *,
    playbook: str = "",
    plan_hash: str = "",
    return_to: str = "",
    patience: timedelta | None = None,
) -> int:
    """Ask, and with ``patience`` wait that long for the end. Returns the exit code.

    Raises:
        Stop: a run is under way, the plan is stale, or the end did not come in time.
    """
    from remediator.app.explain import explain
    from remediator.app.people import People
    from remediator.model.instant import write_instant
    from remediator.model.ledger import ManualRequest

    by = await snapshot.transport.check_identity()
    answer = await explain(snapshot, settings, node, playbook=playbook, by=by, return_to=return_to)
    if answer.run is not None:
        raise Stop(f"{answer.run.metadata.name} is open on {node} already", exits.BLOCKED)
    chosen = _chosen(answer.judged, node, plan_hash)
    at = snapshot.clock.now().replace(microsecond=0)
    asked = ManualRequest(
        playbook=chosen.playbook.name,
        return_to=return_to,
        plan_hash=plan_hash,
        by=by,
        at=write_instant(at),
    )
    await People(snapshot.transport, by=by).request(answer.machine, asked)
    what = f"return to pool {return_to}" if return_to else chosen.playbook.name
    said = f", plan {plan_hash}" if plan_hash else ""
    click.echo(f"managednode/{answer.machine} {what} requested on {node}{said}")
    if chosen.stop is not None:
        click.echo(f"it waits at gate {chosen.stop.gate}: {chosen.stop.numbers}", err=True)
    elif answer.leadership.vacant(answer.now):
        click.echo("nobody leads: it waits for a controller", err=True)
    if patience is None:
        return exits.OK
    return await _await_end(snapshot.transport, snapshot.clock, answer.machine, at, at + patience)


def _chosen(judged: tuple[Judged, ...], node: str, plan_hash: str) -> Judged:
    """The playbook to ask for; with a hash the one whose plan it is.

    Raises:
        Stop: the plan is stale, or the node has no fault that would name a playbook.
    """
    if not judged:
        raise Stop(f"no fault on {node} names a playbook for plan {plan_hash}; add --playbook NAME")
    if not plan_hash:
        return judged[0]
    for each in judged:
        if each.plan.hash == plan_hash:
            return each
    now = ", ".join(f"{each.plan.hash} ({each.playbook.name})" for each in judged)
    raise Stop(f"plan {plan_hash} is stale: it is {now} now; look again with: remediator plan {node}",
               exits.PLAN_STALE)  # fmt: skip


async def _await_end(
    transport: Transport, clock: Clock, machine: str, at: datetime, deadline: datetime
) -> int:
    """Follow the run that answers the request to its end; say each change of state once."""
    from remediator.core.account import run_state
    from remediator.core.lifecycle import ended

    last = ""
    while clock.now() < deadline:
        run, stale = await _answered(transport, clock, machine, at)
        if run is not None:
            state = run_state(run)
            if state.value != last:
                click.echo(f"remediation/{run.metadata.name} {state.value}")
                last = state.value
            if ended(state):
                good = state.value in ("Returned", "Reported", "HandedOff")
                return exits.OK if good else exits.RUNTIME_ERROR
        elif stale:
            raise Stop("the plan became stale before it was granted; nothing was done", exits.PLAN_STALE)
        await clock.sleep(POLL_S)
    raise Stop(f"no end by {deadline:%H:%M:%S} UTC; the request stands", exits.TIMED_OUT)


async def _answered(
    transport: Transport, clock: Clock, machine: str, at: datetime
) -> tuple[Remediation | None, bool]:
    """The run of this request; and whether it was answered without one."""
    from msgspec import UNSET

    from remediator.adapters.kube.listing import consistent_list
    from remediator.adapters.kube.reader import kind_decoder
    from remediator.adapters.kube.records import LEDGERS, RUNS
    from remediator.core.request import ASKED
    from remediator.model.instant import write_instant
    from remediator.model.ledger import ManagedNode
    from remediator.model.remediation import Remediation

    asked = write_instant(at)
    runs = await consistent_list(transport, RUNS, kind_decoder(Remediation), clock=clock)
    for run in runs.views.values():
        if run.spec.machine == machine and run.spec.trigger in ASKED and run.spec.first_seen == asked:
            return run, False
    query = {"fieldSelector": f"metadata.name={machine}"}
    ledgers = await consistent_list(transport, LEDGERS, kind_decoder(ManagedNode), clock=clock, query=query)
    ledger = ledgers.views.get(machine)
    status = ledger.status if ledger is not None else UNSET
    return None, status is not UNSET and status.request_done == asked
