"""A machine that an ended run keeps out: what is carried out when it is asked for, or seen, again. Pure.

It has been fenced and accounted for once. So the fence comes first whatever the severity, a place that
a spare has taken is not filled twice, and the machine goes where it is missing (decision 0026).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from remediator.model.ledger import Out
from remediator.model.playbook import PlaybookInForce, QuarantineStep, ReturnStep, Step, VerifyStep
from remediator.model.pool import ResourcePool
from remediator.model.remediation import Remediation

RETURN_ROLES: Final = ("Workload", "Buffer")
_FENCE: Final = Step(id="fence", quarantine=QuarantineStep(value="return"))


def whole(playbook: PlaybookInForce, *, place_empty: bool) -> PlaybookInForce:
    """Every step once more: quarantine first, and a swap only where nobody took the place."""
    fence = tuple(step for step in playbook.spec.steps if step.quarantine is not UNSET)
    rest = (step for step in playbook.spec.steps if step.quarantine is UNSET)
    return _with_steps(playbook, (*fence, *(step for step in rest if place_empty or step.swap is UNSET)))


def way_back(playbook: PlaybookInForce) -> PlaybookInForce:
    """Only what proves the machine and gives it back.

    People may have mended it without a reboot, so none is demanded. What the playbook does not have of
    the three steps, as one that ends with a hand-off, is taken as it is by default.
    """
    steps = playbook.spec.steps
    fence = tuple(step for step in steps if step.quarantine is not UNSET) or (_FENCE,)
    proof = next((step.verify for step in steps if step.verify is not UNSET), VerifyStep())
    back = next((step.return_ for step in steps if step.return_ is not UNSET), ReturnStep())
    verify = Step(id="verify", verify=replace(proof, boot_changed=False))
    return _with_steps(playbook, (*fence, verify, Step(id="return", return_=back)))


def _with_steps(playbook: PlaybookInForce, steps: tuple[Step, ...]) -> PlaybookInForce:
    spec = replace(playbook.spec, steps=steps)
    return replace(playbook, spec=spec, text=msgspec.json.encode(spec).decode())


def place_empty(out: Out, home: str | None) -> bool:
    """Is the machine still a member of the pool in which nobody took its place?"""
    return bool(out.pool) and out.pool == home


def destination(
    out: Out, last: Remediation | None, home: str | None, pools: Mapping[str, ResourcePool]
) -> str:
    """Name of the pool that the machine goes to once it is well; empty where the usual rule holds.

    Args:
        out: why it is out.
        last: the run that keeps it out, while there is a record of it.
        home: the pool that the node is a member of now.
        pools: all pools.
    """
    if place_empty(out, home):
        return ""  # a spare may take the place in this very run
    if out.pool in pools:
        return out.pool
    if last is not None and last.spec.return_to in pools:
        return last.spec.return_to
    buffer = buffer_of(pools.get(last.spec.pool) if last is not None else None, pools)
    return buffer.metadata.name if buffer is not None else ""


def buffer_of(home: ResourcePool | None, pools: Mapping[str, ResourcePool]) -> ResourcePool | None:
    """The first Buffer pool, by name, that the home pool draws from."""
    names = home.spec.buffers if home is not None and home.spec.buffers else tuple(sorted(pools))
    return next((pools[name] for name in names if name in pools and pools[name].spec.role == "Buffer"), None)
