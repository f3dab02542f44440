"""Which playbooks may be followed at all: the order of steps that no edit may break. Pure.

The API server's schema refuses most bad playbooks and lint explains them; this is the last line,
for objects that were stored by an older schema.
"""

from __future__ import annotations

from typing import Final

from msgspec import UNSET

from remediator.model.duration import seconds
from remediator.model.playbook import PlaybookSpec, action_name

# XIDs by which the driver reports what a program did: they say nothing about the board, and a job
# that crashes on a thousand nodes would take a thousand nodes with it. A test holds this table to
# the shipped catalogue.
APPLICATION_XIDS: Final = frozenset(
    (
        *(8, 11, 13, 25, 31, 32, 37, 38, 39, 40, 41, 43, 44, 45, 60, 66, 67, 68, 69, 70, 71, 72, 75, 76),
        *(77, 80, 82, 83, 84, 85, 86, 88, 89, 96, 97, 98, 99, 100, 101, 102, 103, 104, 105, 126, 127),
        *(128, 129, 130, 131, 132, 133, 134, 135, 137, 139, 141, 159),
    )
)
_AFTER_QUARANTINE = ("drain", "detach", "repair", "verify", "return")

# An action stands behind all those of a lower place. The grant, and with it the spare's claim, ends
# at the detach, so a swap has to come before.
_PLACE = {"quarantine": 1, "swap": 1, "drain": 1, "detach": 2, "repair": 3, "verify": 4}


def faults_of(spec: PlaybookSpec) -> tuple[str, ...]:
    """Every reason not to follow this playbook, each with the fix; empty when there is none."""
    found: list[str] = []
    actions: list[str] = []
    for step in spec.steps:
        try:
            action = action_name(step)
        except ValueError as error:
            found.append(f"{error}; write exactly one action")
            continue
        found += _misplaced(action, actions, step.id)
        actions.append(action)
    if "swap" in actions and "quarantine" not in actions:
        found.append("swap without quarantine: nothing leaves; write a quarantine step")
    if len({step.id for step in spec.steps}) != len(spec.steps):
        found.append("two steps have the same id; every id must be its own")
    if spec.nodes.selector is UNSET and not spec.nodes.match_all:
        found.append("no node selector; write one, or matchAll: true")
    return (*found, *_bad_durations(spec), *_application_codes(spec))


def _application_codes(spec: PlaybookSpec) -> list[str]:
    return [
        f"matcher {matcher.id!r}: xid {code} is the application's doing and never touches a node; remove it"
        for matcher in spec.match.any_of
        if matcher.xid is not UNSET
        for code in matcher.xid.codes
        if code in APPLICATION_XIDS
    ]


def _misplaced(action: str, before: list[str], step_id: str) -> list[str]:
    found = []
    if action in before:
        found.append(f"step {step_id!r}: {action} stands twice; a playbook does each action once")
    if action in _AFTER_QUARANTINE and "quarantine" not in before:
        found.append(f"step {step_id!r}: {action} before quarantine; put quarantine first")
    if action in ("detach", "repair") and "drain" not in before:
        found.append(f"step {step_id!r}: {action} before drain; pods would be lost, put drain first")
    later = [each for each in before if _PLACE.get(each, 0) > _PLACE.get(action, len(_PLACE))]
    if later:
        found.append(f"step {step_id!r}: {action} after {later[0]}; put it before")
    if action == "return" and "verify" not in before:
        found.append(f"step {step_id!r}: return without verify; no machine returns without evidence")
    if before and before[-1] in ("return", "report"):
        found.append(f"step {step_id!r}: never reached, {before[-1]} ends the run")
    if action == "report" and before:
        found.append(f"step {step_id!r}: report stands alone or not at all")
    return found


def _bad_durations(spec: PlaybookSpec) -> list[str]:
    found = []
    for matcher in spec.match.any_of:
        if matcher.for_ is not UNSET and not _readable(matcher.for_):
            found.append(f"matcher {matcher.id!r}: for {matcher.for_!r} is no duration; write 90s or 15m")
    if not _readable(spec.memory):
        found.append(f"memory {spec.memory!r} is no duration; write 14d")
    return found


def _readable(text: str) -> bool:
    try:
        seconds(text)
    except ValueError:
        return False
    return True
