"""Which controllers can be played, by the name that a schedule gives."""

from __future__ import annotations

from typing import Final

from remediator.chaos.ours import ours
from remediator.chaos.reference.bugs import Bug
from remediator.chaos.reference.subject import reference
from remediator.chaos.schedule import ControllerName
from remediator.chaos.subject import Candidate
from remediator.errors import InputError, Problem

BUGS: Final = {bug.slug: bug for bug in Bug}


def candidate(controller: ControllerName, bugs: tuple[str, ...] = (), *, raised: int = 0) -> Candidate:
    """The controller of this name, with these bugs, and limits that are raised by so many nodes.

    Raises:
        InputError: there is no such bug, or the controller has none that could be switched on.
    """
    if controller == "remediator":
        if bugs:
            raise _wrong(bugs[0], "name the controller `reference`: only there can bugs be switched on")
        return ours(raised)
    for slug in bugs:
        if slug not in BUGS:
            raise _wrong(slug, f"name one of {', '.join(BUGS)}")
    return reference(*(BUGS[slug] for slug in bugs), raised=raised)


def _wrong(slug: str, fix: str) -> InputError:
    return InputError((Problem("schedule", 0, 0, "bugs", f"no bug {slug!r} to switch on", fix),))
