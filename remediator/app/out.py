"""Finds what keeps a machine out, and the way back that fits it. Reads a snapshot, writes nothing."""

from __future__ import annotations

from msgspec import Struct

from remediator.app.explain import find_node
from remediator.app.lookup import NotFoundError, not_found
from remediator.app.snapshot import Snapshot
from remediator.core.again import RETURN_ROLES, destination
from remediator.model.keys import TAINT_QUARANTINE


class KeptOut(Struct, frozen=True):
    """A machine that an ended run keeps out; ``to`` names the pool that it goes to by itself."""

    run: str
    playbook: str
    to: str


def kept_out(snapshot: Snapshot, name: str) -> KeptOut:
    """Why the node of that name is out.

    Raises:
        NotFoundError: no such node, or nothing keeps it out; the message says what to do instead.
    """
    node = find_node(snapshot, name)
    out = snapshot.scout.requests.out(node)
    if out is None:
        raise NotFoundError(f"no run keeps {name} out: remediator why {name}")
    if node.taint(TAINT_QUARANTINE) is None:
        raise NotFoundError(f"the quarantine of {name} was lifted: remediator why {name}")
    world = snapshot.world
    last, home = world.ended_runs.get(out.run), world.census.home(name)
    to = destination(out, last, home, world.pools) or home or ""
    return KeptOut(run=out.run, playbook=last.spec.playbook.name if last else "", to=to)


def find_destination(snapshot: Snapshot, name: str) -> str:
    """The pool of that name, into which machines can return.

    Raises:
        NotFoundError: there is none, or its role is another.
    """
    pools = snapshot.world.pools
    fit = sorted(key for key, pool in pools.items() if pool.spec.role in RETURN_ROLES)
    if name in pools and name not in fit:
        role = pools[name].spec.role
        raise NotFoundError(f"pool {name!r} is a {role} pool; machines return to: {', '.join(fit)}")
    if name not in pools:
        raise not_found("pool", name, fit, f"machines return to: {', '.join(fit) or 'none'}")
    return name
