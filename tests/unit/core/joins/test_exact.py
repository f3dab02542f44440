"""S18 against a small world with late patches, lost writes and restarts: in no window too many."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import msgspec

from remediator.core.joins.decide import decide_joins
from remediator.core.joins.gate import write_mark
from remediator.model.joins import JoinsSpec, JoinsStatus
from remediator.model.keys import ANNOTATION_JOINED
from remediator.model.meta import Rate
from remediator.model.views import NodeView
from tests.unit.core.builders import at, with_taints
from tests.unit.core.joins.builders import a_look, a_newcomer, books, new_node

RATE = Rate(count=6, per="1m", burst=3)
SPEC = JoinsSpec(mode="Enforce", rate=RATE, max_initialising=1_000)
WAITING = 30


@dataclass
class Storm:
    """A leader, its books at the server, and nodes that wait; times in seconds.

    ``skew_s`` is how far the clock of this leader is off.
    """

    now_s: float = 0.0
    skew_s: float = 0.0
    term: int = 1
    stored: JoinsStatus = field(default_factory=books)
    nodes: dict[str, NodeView] = field(
        default_factory=lambda: {f"n{i:02}": new_node(f"n{i:02}") for i in range(WAITING)}
    )
    let_in: list[float] = field(default_factory=list)

    def look(self, *, lost: bool) -> None:
        """One pass; ``lost``: its write never reached the server."""
        shut = [node for node in self.nodes.values() if node.taints]
        inside = [node for node in self.nodes.values() if not node.taints]
        decision = decide_joins(
            a_look(
                map(a_newcomer, shut),
                others=inside,
                spec=SPEC,
                status=self.stored,
                now=at(self.now_s + self.skew_s),
                term=self.term,
            )
        )
        if not lost:
            self.stored = decision.status

    def land(self) -> None:
        """The patch of the oldest release on its way reaches the server, whoever has sent it."""
        for release in self.stored.releasing:
            node = self.nodes[release.node]
            if node.taints:
                mark = {ANNOTATION_JOINED: write_mark(node.uid, at(self.now_s))}
                opened = msgspec.structs.replace(node, annotations=mark)
                self.nodes[release.node] = with_taints(opened, b"[]")
                self.let_in.append(self.now_s)
                return


STEPS = ("look",) * 4 + ("land",) * 8 + ("pass",) * 4 + ("lose", "restart")
PAUSES_S = (0.0, 0.1, 1.0, 10.0, 45.0)


def play(seed: int, steps: int = 150) -> Storm:
    """One storm with whatever the dice bring."""
    dice, storm = Random(seed), Storm()
    for _ in range(steps):
        match dice.choice(STEPS):
            case "look":
                storm.look(lost=False)
            case "lose":
                storm.look(lost=True)
            case "land":
                storm.land()
            case "restart":
                storm.term += 1
                storm.skew_s = dice.choice((-30.0, 0.0, 30.0))
            case _:
                storm.now_s += dice.choice(PAUSES_S)
    return storm


def excess(let_in: list[float]) -> float:
    """By how much the fullest window is over what burst and rate allow; negative where none is."""
    per_s = RATE.count / 60.0
    return max(
        last - first + 1 - RATE.burst - per_s * (ended - began)
        for first, began in enumerate(let_in)
        for last, ended in enumerate(let_in[first:], first)
    )


def test_no_window_has_more_than_burst_and_rate_allow():
    """Over lost writes, late patches and new leaders alike."""
    storms = [play(seed) for seed in range(100)]

    assert sum(len(storm.let_in) for storm in storms) > 1_000
    assert max(excess(storm.let_in) for storm in storms if storm.let_in) <= 1e-9


def test_a_storm_that_nothing_disturbs_uses_the_whole_rate():
    """Exact is no excuse for slow: thirty nodes at six a minute after a burst of three."""
    storm = Storm()
    while len(storm.let_in) < WAITING:
        storm.look(lost=False)
        while storm.stored.releasing and any(
            storm.nodes[each.node].taints for each in storm.stored.releasing
        ):
            storm.land()
        storm.now_s += 0.5

    ideal_s = (WAITING - RATE.burst) * 10.0
    assert storm.let_in[-1] <= ideal_s * 1.1
