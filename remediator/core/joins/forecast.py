"""When those who wait will be let in, if nothing changes but the clock. Pure, and a guess by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from remediator.core.joins.limiter import Stop

# What only the clock, or the rate, keeps out; whatever else it is, nobody can say when it ends.
_TIMED = frozenset(("Rate", "PoolRate", "Releasing", "EvidencePending"))


def expected_s(
    queue: Sequence[tuple[str, str, Stop | None]], levels: Mapping[str, float], per_s: Mapping[str, float]
) -> dict[str, float]:
    """Seconds until each node is let in, by name; a node that waits for something else is left out.

    Args:
        queue: names of nodes and of their pools, and why each is not let in now, in its order. Whoever is
            let in now has taken its token already.
        levels: tokens in each bucket now, by pool; that of the cluster under the empty name.
        per_s: tokens that fill each bucket in a second.
    """
    taken: Counter[str] = Counter()
    found = {}
    for node, pool, stop in queue:
        if stop is None:
            found[node] = 0.0
        elif stop.reason in _TIMED:
            scopes = {"", pool} & levels.keys()
            taken.update(scopes)
            found[node] = max(max(0.0, (taken[each] - levels[each]) / per_s[each]) for each in scopes)
    return found
