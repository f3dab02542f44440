"""The screen of ``remediator joins``. Pure: a look and what it decides in, lines out."""

from __future__ import annotations

from remediator.cli.columns import clip, table
from remediator.core.joins.decide import JoinsDecision, JoinsView, Place
from remediator.core.joins.gate import waits_s
from remediator.model.duration import spoken
from remediator.model.policy import PolicySpec

OFF = "joins are off: RemediationPolicy/cluster has no spec.joins, or its mode is Disabled"


def render(view: JoinsView, decision: JoinsDecision, policy: PolicySpec) -> list[str]:
    """The limits as they stand, then everybody who waits, in their order."""
    rate, status = view.spec.rate, decision.status
    settling = sum(view.standing.settling.values())
    lines = [
        clip(f"joins {view.mode}{_least(view, policy)}   gate {status.gate} since {status.since or 'never'}"),
        f"rate {rate.count} in {rate.per}, burst {rate.burst}   initialising {settling} of "
        f"{view.spec.max_initialising}   waiting {len(decision.queue)}",
    ]
    closed = view.standing.closed.get("")
    if closed:
        lines.append(clip(f"CLOSED: {closed}"))
    if not decision.queue:
        return [*lines, "", "no node waits to be let in"]
    header = ("#", "NODE", "POOL", "FOR", "WAITED", "IN", "REASON", "")
    rows = [_row(place, view, decision) for place in decision.queue]
    return [*lines, "", *table(header, rows, right=(0, 4, 5))]


def _least(view: JoinsView, policy: PolicySpec) -> str:
    wanted = view.spec.mode
    return f" (spec.joins says {wanted}, maxMode {policy.max_mode})" if wanted != view.mode else ""


def _row(place: Place, view: JoinsView, decision: JoinsDecision) -> tuple[str, ...]:
    each, stop = place.newcomer, place.stop
    expected_s = decision.expected.get(each.node.name)
    return (
        str(place.number),
        each.node.name,
        each.pool or "-",
        each.rank.word,
        spoken(waits_s(each.node, view.now)),
        "?" if expected_s is None else spoken(expected_s) if expected_s else "now",
        stop.reason if stop is not None else "Next",
        stop.numbers if stop is not None else "",
    )
