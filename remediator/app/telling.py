"""A run told to a newcomer: each step of its record in a few words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_STEP_WORDS: Final[Mapping[str, str]] = {
    "quarantine": "tainted and cordoned, in one patch",
    "swap": "a spare has joined the pool: {note}",
    "collect": "Events, conditions and page lines copied into the record",
    "drain": "empty: {note}",
    "detach": "taken out of its pool",
    "repair": "rebooted: bootID {note}",
    "verify": "{note}",
    "return": "back, as a spare on probation: {note}",
}


def step_words(step: Mapping[str, Any]) -> str:
    """One step that has ended, of ``status.steps``."""
    if step["state"] == "Skipped":
        return f"{step['action']} skipped: {step.get('note', '')}"
    if step["state"] == "Failed":
        return f"{step['action']} failed: {step.get('note', '')}"
    if step["action"] == "undo":
        return "taken back: " + str(step.get("note", ""))
    words = _STEP_WORDS.get(step["action"], "{note}")
    return words.format(note=" ".join(_short(word) for word in step.get("note", "").split()))


def granted_words(run: Mapping[str, Any]) -> str:
    """That a run may begin, by which playbook and with which spare."""
    spec = run["spec"]
    spare = spec.get("spare", {}).get("name", "no spare")
    return f"run {run['metadata']['name']} granted: {spec['playbook']['name']}, spare {spare}"


def _short(word: str) -> str:
    # uids and bootIDs tell a person nothing after their first digits
    return word[:8] if word.count("-") == 4 and len(word) == 36 else word
