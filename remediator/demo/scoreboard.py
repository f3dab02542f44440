"""What the audit log says of both plays, side by side."""

from __future__ import annotations

from collections.abc import Iterator

from remediator.chaos.schedule import Event
from remediator.demo.story import story
from remediator.demo.tally import Score

_BREAKS = frozenset(("Xid", "RemapPending", "Condition", "Silent"))


def broken_machines() -> frozenset[str]:
    """The nodes that something was the matter with, by the story."""
    events: Iterator[Event] = (event for moment in story() for event in moment.events)
    return frozenset(event.node for event in events if event.kind in _BREAKS)


def scoreboard(with_limits: Score, without: Score) -> list[str]:
    """One row for each figure; the last says which rules were kept."""
    rows: list[tuple[str, object, object]] = [
        ("nodes that something was the matter with", len(broken_machines()), len(broken_machines())),
        ("nodes that were fenced", len(with_limits.fenced), len(without.fenced)),
        ("  of them well", _well(with_limits), _well(without)),
        ("  at once, at most", with_limits.at_once, without.at_once),
        ("reboots that were asked for", with_limits.reboots, without.reboots),
        ("pods that were evicted", with_limits.evicted, without.evicted),
        ("writes in all", with_limits.writes, without.writes),
        ("rules of `chaos check` that held", with_limits.held, without.held),
        ("rules that were broken", _none(with_limits.broken), _none(without.broken)),
    ]
    head = f"{'':<42}{'with limits':>14}{'without':>14}"
    return [head, *(f"{name:<42}{ours!s:>14}{other!s:>14}" for name, ours, other in rows)]


def _well(score: Score) -> int:
    return len(set(score.fenced) - broken_machines())


def _none(rules: tuple[str, ...]) -> str:
    return ", ".join(rules) or "none"
