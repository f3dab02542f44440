"""Makes the writes of older leaders worthless before the new one acts. It decides nothing.

Once the term is in the policy the API server refuses older ones; it takes a moment until each of its
replicas knows. A node patch of an older leader that is still on its way in that moment is caught in
another way: every node in flight is touched, so that the version it was made for is gone.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from remediator.core.pauses import doubled
from remediator.errors import PermanentError
from remediator.model.action import Attribution, PatchNode
from remediator.model.keys import ANNOTATION_TERM
from remediator.ports import Clock, Outcome, Refusal, Writer
from remediator.runtime.replies import resource_version, version_after
from remediator.runtime.world import World

# From the term's write to the first refusal: 21 ms as a rule, 37 at worst in 40 takeovers on busy cores.
PROPAGATION_S: Final = 0.5
# As long as one write may take: what an older leader sent before is answered, or given up, by then.
TOUCH_WITHIN_S: Final = 10.0
TRY_AGAIN_S: Final = 0.25
SEEN_WITHIN_S: Final = 5.0

_log = structlog.get_logger(__name__)


class Takeover:
    """The pause and the touch between a leader's first write and its first pass."""

    def __init__(self, *, world: World, writer: Writer, clock: Clock) -> None:
        self._world = world
        self._writer = writer
        self._clock = clock
        self.term = 0

    async def settle(self) -> None:
        """Wait out the parameter's propagation and touch what was in flight; nothing was, no wait.

        Bounded: a node that cannot be touched is told of and stops no other.
        """
        if not self._in_flight():
            return
        await self._clock.sleep(PROPAGATION_S)
        names = self._in_flight()  # what landed meanwhile counts too
        _log.info("touching nodes in flight", term=self.term, nodes=len(names))
        await asyncio.gather(*(self._touch(name) for name in names))

    def _in_flight(self) -> list[str]:
        """Nodes that an open run or a grant names: nothing else was permitted to be patched.

        The grants are those that stood when the term was written over them, so none is missing.
        """
        world = self._world
        grants = world.policy_status.grants
        uids = {run.spec.node.uid for run in world.open_runs.values()} | {grant.uid for grant in grants}
        named = {world.names[uid] for uid in uids if uid in world.names}
        return sorted(named | {grant.spare for grant in grants if grant.spare})

    async def _touch(self, name: str) -> None:
        reason, turns = "", 0
        deadline = self._clock.monotonic() + TOUCH_WITHIN_S
        while self._clock.monotonic() < deadline:
            node = self._world.node(name)
            if node is None or node.annotations.get(ANNOTATION_TERM) == str(self.term):
                return  # gone, or touched by a try whose answer was lost
            # The writer adds the term, which no node carries yet: the version changes.
            action = PatchNode(node.name, node.uid, node.resource_version, {})
            try:
                written = await self._writer.apply(action, Attribution(term=self.term, step="takeover"))
            except PermanentError as error:  # a right was taken away: from an older leader as well
                reason = str(error)
                break
            nodes = self._world.caches.nodes
            if written.outcome is Outcome.APPLIED:
                await nodes.wait_for(resource_version(written.body), SEEN_WITHIN_S)
                return
            if written.refusal in (Refusal.GONE, Refusal.FENCED):
                return
            reason = written.message
            if written.refusal is Refusal.CONFLICT:
                await nodes.wait_for(version_after(node.resource_version), SEEN_WITHIN_S)
            # Also after that wait: other nodes may have brought a cache that hangs past this one's version.
            await self._clock.sleep(doubled(TRY_AGAIN_S, turns, TOUCH_WITHIN_S))
            turns += 1
        _log.warning("node in flight not touched", node=name, error=reason)
