"""Lint of ``spec.steps``: the order in which a run may harm, and whether it can end well."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from msgspec import UNSET

from remediator.adapters.files.lint_rules import Context, Finding, finding, steps_of
from remediator.adapters.files.loader import LoadedObject
from remediator.adapters.files.tree import Path
from remediator.model.playbook import Playbook, Step

Steps = tuple[tuple[int, str, Step], ...]

NEEDS_QUARANTINE: Final = ("drain", "detach", "repair", "verify", "return")
NEEDS_DRAIN: Final = ("detach", "repair")


def check_steps(loaded: LoadedObject, _context: Context) -> Iterator[Finding]:
    """Order, reach and ways out of the steps of one playbook."""
    if not isinstance(loaded.value, Playbook):
        return
    steps = steps_of(loaded.value)
    yield from _twice(loaded, steps)
    yield from _report(loaded, steps)
    yield from _order(loaded, steps)
    yield from _evidence(loaded, steps)
    yield from _reach(loaded, steps)
    yield from _spare(loaded, loaded.value, steps)
    if "remediator.dev/runbook" not in (loaded.value.metadata.annotations or {}):
        text = f"playbook {loaded.name!r} names no runbook"
        fix = f"add the annotation remediator.dev/runbook: docs/runbooks/{loaded.name}.md"
        yield finding("runbook-missing", loaded, ("metadata", "name"), text, fix)


def _at(index: int, action: str = "") -> Path:
    return ("spec", "steps", index, action) if action else ("spec", "steps", index)


def _first(steps: Steps, *actions: str) -> int | None:
    return next((index for index, action, _ in steps if action in actions), None)


def _twice(loaded: LoadedObject, steps: Steps) -> Iterator[Finding]:
    ids: set[str] = set()
    actions: set[str] = set()
    for index, action, step in steps:
        if step.id in ids:
            text = f"step id {step.id!r} stands twice"
            yield finding("duplicate-id", loaded, (*_at(index), "id"), text, "rename one of them")
        if action in actions:
            text = f"step {step.id!r} is the second {action}"
            yield finding("action-twice", loaded, _at(index, action), text, "keep one of them")
        ids.add(step.id)
        actions.add(action)


def _report(loaded: LoadedObject, steps: Steps) -> Iterator[Finding]:
    found = _first(steps, "report")
    if found is not None and len(steps) > 1:
        text = f"step {steps[found][2].id!r}: report beside other steps"
        fix = "let it stand alone, in a playbook of its own"
        yield finding("report-alone", loaded, _at(found, "report"), text, fix)


def _order(loaded: LoadedObject, steps: Steps) -> Iterator[Finding]:
    fenced = _first(steps, "quarantine")
    drained = _first(steps, "drain")
    for index, action, step in steps:
        if action in NEEDS_QUARANTINE and (fenced is None or index < fenced):
            text = f"step {step.id!r}: {action} before quarantine"
            yield finding(
                "before-quarantine", loaded, _at(index, action), text, "put a quarantine step before it"
            )
        if action in NEEDS_DRAIN and (drained is None or index < drained):
            text = f"step {step.id!r}: {action} before drain"
            yield finding("before-drain", loaded, _at(index, action), text, "put a drain step before it")


def _evidence(loaded: LoadedObject, steps: Steps) -> Iterator[Finding]:
    verified = _first(steps, "verify")
    rebooting = [step for _, action, step in steps if action == "repair" and step.repair and step.repair.job]
    for index, action, step in steps:
        if action == "return" and (verified is None or index < verified):
            text = f"step {step.id!r}: return without verify"
            yield finding(
                "return-without-verify", loaded, _at(index, action), text, "put a verify step before it"
            )
        if action == "repair" and step in rebooting and not any(a == "verify" for _, a, _ in steps[index:]):
            text = f"step {step.id!r}: repair without verify"
            yield finding(
                "repair-without-verify", loaded, _at(index, action), text, "put a verify step after it"
            )
        if step.verify and step.verify.boot_changed and not rebooting:
            text = f"step {step.id!r} waits for a reboot that no step makes"
            at = (*_at(index, action), "bootChanged")
            yield finding("boot-cannot-change", loaded, at, text, "remove bootChanged, or add a repair job")
        if step.verify and not step.verify.boot_changed and any(_reboots(each) for each in rebooting):
            text = f"step {step.id!r} does not ask whether the reboot happened"
            yield finding("boot-unchecked", loaded, _at(index, action), text, "add bootChanged: true")


def _reboots(step: Step) -> bool:
    # Only the template's name is known here; the template itself is on the cluster.
    return bool(step.repair and step.repair.job and "reboot" in step.repair.job.template)


def _reach(loaded: LoadedObject, steps: Steps) -> Iterator[Finding]:
    ends = next((index for index, action, step in steps if _ends(action, step)), None)
    if ends is not None:
        for index, action, step in steps[ends + 1 :]:
            text = f"step {step.id!r} is never reached: step {steps[ends][2].id!r} ends the run"
            yield finding("never-reached", loaded, _at(index, action), text, "remove it, or put it earlier")
        return
    last, _, step = steps[-1]
    if _first(steps, "quarantine") is not None:
        text = f"the last step {step.id!r} leaves the machine quarantined"
        yield finding("no-way-out", loaded, _at(last), text, "end with return or a hand-off")


def _ends(action: str, step: Step) -> bool:
    return action == "return" or bool(step.repair and step.repair.handoff is not UNSET)


def _spare(loaded: LoadedObject, playbook: Playbook, steps: Steps) -> Iterator[Finding]:
    swapped, fenced = _first(steps, "swap"), _first(steps, "quarantine")
    if swapped is None:
        if loaded.tree.where(("spec",)) != loaded.tree.where(("spec", "noSpare")):
            text = "noSpare is set, but there is no swap step"
            yield finding("spare-unused", loaded, ("spec", "noSpare"), text, "remove it, or add a swap step")
        return
    at = _at(swapped, "swap")
    if _first(steps, "detach") is None:
        text = "swap without detach"
        yield finding("swap-without-detach", loaded, at, text, "add a detach step after the drain")
    if fenced is None:
        return
    if playbook.spec.severity == "Soft" and fenced < swapped:
        yield finding("spare-late", loaded, at, "swap after quarantine in a Soft playbook", "put swap first")
    if playbook.spec.severity == "Hard" and swapped < fenced:
        yield finding(
            "fence-late", loaded, at, "swap before quarantine in a Hard playbook", "put quarantine first"
        )
