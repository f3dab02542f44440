"""Finds what a person named, and says what is near where there is nothing of that name."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from remediator.adapters.kube.listing import consistent_list
from remediator.adapters.kube.reader import kind_decoder
from remediator.adapters.kube.records import RUNS
from remediator.core.fleet import is_open
from remediator.errors import RemediatorError
from remediator.model.remediation import Remediation
from remediator.ports import Clock, Transport

NEAR_MAX = 3


class NotFoundError(RemediatorError):
    """There is nothing of that name. The message names what is near."""


def not_found(kind: str, name: str, known: Iterable[str], fix: str = "") -> NotFoundError:
    """The error for a name that nobody has."""
    near = get_close_matches(name, sorted(known), n=NEAR_MAX, cutoff=0.6)
    hint = f"did you mean {' or '.join(near)}?" if near else fix
    return NotFoundError(f"no {kind} {name!r}" + (f" ({hint})" if hint else ""))


async def find_run(transport: Transport, clock: Clock, name: str, *, only_open: bool = False) -> Remediation:
    """The run of that name; or the newest one, or the open one, on the node of that name.

    Raises:
        NotFoundError: neither a run nor a node with one.
        PermanentError, TransientError: they could not be listed.
    """
    listing = await consistent_list(transport, RUNS, kind_decoder(Remediation), clock=clock)
    runs = listing.views
    if name in runs:
        return runs[name]
    here = [run for run in runs.values() if run.spec.node.name == name and (is_open(run) or not only_open)]
    if here:
        return max(here, key=lambda run: (run.metadata.creation_timestamp, run.metadata.name))
    what = "open run" if only_open else "run"
    known = {*runs, *(run.spec.node.name for run in runs.values())}
    raise not_found(f"{what}, or node with one,", name, known - {name}, "kubectl get remediations lists them")
