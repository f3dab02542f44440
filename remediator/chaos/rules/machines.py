"""What is done to machines, which no later write takes back."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from remediator.adapters.audit import AuditRecord
from remediator.chaos.profile import Profile
from remediator.chaos.rules.endings import Books
from remediator.chaos.rules.rule import Recent, Rule, at, is_fenced, is_node_write
from remediator.chaos.rules.stream import resource_of
from remediator.chaos.world import World, shown_by


class _Reboots(Rule):
    """Looks at requests for a reboot that were taken."""

    def see(self, record: AuditRecord) -> str | None:
        reboots = self.profile.reboots
        if reboots is None or record.verb != "create" or resource_of(record) != reboots.resource:
            return None
        if not record.committed:
            return None
        made = self.world.content(record)
        if made is None:
            self.can_not_tell(record)
            return None
        return self.judge(at(made, reboots.node), at(made, reboots.attempt))

    @abstractmethod
    def judge(self, node: str, attempt: str) -> str | None:
        """What is wrong with rebooting this node now."""


class RebootFenced(_Reboots):
    """A reboot ends whatever runs there."""

    id: ClassVar = "S6"
    sentence: ClassVar = "No machine is asked to reboot while its node is not fenced."
    needs: ClassVar = ("own", "reboots")

    def judge(self, node: str, attempt: str) -> str | None:
        state = self.world.nodes.get(node)
        fenced = state is not None and is_fenced(state.object, self.profile.own)
        return self.tell(None if fenced else f"{node or 'a machine'} carries no fence; attempt {attempt}")


class RebootOnce(_Reboots):
    """A lost reply is no reason to do it again."""

    id: ClassVar = "S25"
    sentence: ClassVar = "One attempt asks for one reboot."
    needs: ClassVar = ("reboots",)

    def __init__(self, profile: Profile, world: World) -> None:
        super().__init__(profile, world)
        self._asked: Recent[tuple[str, str], None] = Recent()

    def judge(self, node: str, attempt: str) -> str | None:
        again = (node, attempt) in self._asked
        self._asked[node, attempt] = None
        return self.tell(f"{node} is asked a second time in attempt {attempt or '-'}" if again else None)


class SameMachine(Books):
    """A name comes back as another machine, which did nothing."""

    id: ClassVar = "S4b"
    sentence: ClassVar = "What work writes on a Node goes to the uid that the work is about."
    needs: ClassVar = ("plan", "runs")

    def see(self, record: AuditRecord) -> str | None:
        super().see(record)
        if not is_node_write(record) or not record.committed:
            return None
        piece, after = self.stands.get(self.work(record)), shown_by(record)
        if piece is None or after is None or piece.node != after.metadata.name or not piece.uid:
            return None
        other = after.metadata.uid != piece.uid
        return self.tell(f"{piece.node} is another object than the work is about" if other else None)
