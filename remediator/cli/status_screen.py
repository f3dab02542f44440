"""Lays the status out on one screen. Pure."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from remediator.app.leadership import Leadership
from remediator.cli.columns import clip, labelled, table
from remediator.cli.status_facts import Facts
from remediator.model.duration import spoken

NEEDS_MAX = 20
RUN_WIDTH = 16


class Heading(Struct, frozen=True, kw_only=True):
    """What the first two lines say."""

    context: str
    server_version: str
    program_version: str
    nodes: int
    gpus: int
    term: int
    last_leader: str  # as the policy's status names it
    now: datetime
    leadership: Leadership


def render(heading: Heading, facts: Facts) -> list[str]:
    """The whole screen, at most 120 columns."""
    lines = _heading(heading)
    lines += ["", f"NEEDS YOU ({len(facts.needs)})" if facts.needs else "nothing needs you"]
    rows = [(subject, text) for subject, text in facts.needs[:NEEDS_MAX]]
    if rows:
        width = min(32, max(len(subject) for subject, _ in rows)) + 2
        for subject, text in rows:
            lines += [f"  {line}" for line in _beside(subject, text, width)]
    if len(facts.needs) > NEEDS_MAX:
        lines.append(f"  and {len(facts.needs) - NEEDS_MAX} more")
    lines += ["", *_pools(facts), "", *_runs(facts), ""]
    lines += labelled("SIGNALS", facts.signals)
    lines += labelled("SAFETY", facts.safety)
    lines += labelled("24 H", (facts.day,))
    return [clip(line) for line in lines]


def _heading(heading: Heading) -> list[str]:
    left = (
        f"{heading.context or 'in cluster'}   Kubernetes {heading.server_version.lstrip('v')}   "
        f"{heading.nodes:,} managed nodes, {heading.gpus:,} GPUs"
    )
    at = f"{heading.now:%Y-%m-%d %H:%M:%S} UTC"
    first = f"{left}{at.rjust(max(3 + len(at), 120 - len(left)))}"
    leader = heading.leadership
    if leader.leads(heading.now):
        led = spoken((heading.now - leader.acquired).total_seconds()) if leader.acquired else "?"
        who = f"leader {leader.holder}   term {heading.term} for {led}"
    elif not leader.known:
        who = f"leader {heading.last_leader or '?'} by its own word   term {heading.term}"
    else:
        who = f"no leader   last term {heading.term}"
    return [first, f"remediator {heading.program_version}   {who}"]


def _beside(subject: str, text: str, width: int) -> list[str]:
    name = subject if len(subject) < width else f"{subject[: width - 5]}..."
    wrapped = labelled(name, (text,), width)
    # Two blanks are set before each line by the caller.
    return [line if len(line) <= 118 else f"{line[:115]}..." for line in wrapped[:3]]


def _pools(facts: Facts) -> list[str]:
    if not facts.pools:
        return ["no ResourcePool: nothing can be swapped, and only the fleet's limits hold"]
    header = ("POOL", "MODE", "NODES", "SERVING", "NOT SERVING", "LIMIT", "SPARES")
    rows = [
        (row.name, row.mode, str(row.nodes), row.serving, row.not_serving, row.limit, row.spares)
        for row in facts.pools
    ]
    return [*table(header, rows, right=(2, 3)), *(f"known out   {line}" for line in facts.known_out)]


def _short(run: str) -> str:
    """Machines may be called by a UUID; the node's name stands beside it, and commands take that."""
    if len(run) <= RUN_WIDTH:
        return run
    machine, _, number = run.rpartition("-")
    return f"{machine[: RUN_WIDTH - 3 - len(number)]}..-{number}"


def _runs(facts: Facts) -> list[str]:
    if not facts.runs:
        return ["no run is open"]
    header = ("RUN", "NODE", "FAULT", "STEP", "FOR", "WAITS FOR", "UNTIL")
    rows = [
        (
            _short(row.name),
            row.node,
            row.fault,
            row.step,
            row.since,
            clip(row.waits_for or "-", 40),
            row.until or "-",
        )
        for row in facts.runs
    ]
    return table(header, rows, right=(4,))
