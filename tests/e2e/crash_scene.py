"""Plays one fault on a small world again and again, each time with another crash in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from remediator.fleet.exporter_state import ExporterStates
from remediator.testbed.stage import Stage
from remediator.testbed.waiting import wait_until
from remediator.testbed.write_faults import Fate, read_journal
from tests.e2e.small_world import BAD, SETTLE_S, SPARE, SmallWorld, differences, effects

LEASE_S: Final = 3.0  # what a successor waits for


@dataclass(frozen=True, slots=True)
class Story:
    """One fault, and the playbook that answers it."""

    name: str
    playbook: str
    inject: Callable[[ExporterStates], None]


HARD: Final = Story("hard", "gpu-off-bus", lambda pages: pages.inject_xid(BAD, 5, 79))
SOFT: Final = Story(
    "soft",
    "gpu-row-remap",
    lambda pages: pages.set_gauge(BAD, 1, "DCGM_FI_DEV_ROW_REMAP_PENDING", 1),
)
STORIES: Final = {story.name: story for story in (HARD, SOFT)}


@dataclass(frozen=True, slots=True)
class Ending:
    """What a story left behind, and how often each effect on the outside happened."""

    state: dict[str, Any]
    effects: dict[str, Counter[str]]
    journal: list[tuple[str, str]]

    @property
    def points(self) -> list[str]:
        """Every effective write of the process that told the journal, in order."""
        return [point for point, what in self.journal if what.startswith("2")]

    @property
    def struck(self) -> list[str]:
        """What the fault did, where it struck at all."""
        return [f"{point} {what}" for point, what in self.journal if not what[0].isdigit()]


class CrashScene:
    """Plays stories on a small world of its own."""

    def __init__(self, stage: Stage) -> None:
        self.world = SmallWorld(stage)
        self._played = 0

    def play(
        self,
        story: Story,
        point: str = "",
        fate: Fate = Fate.KILLED_BEFORE,
        *,
        within_s: float = SETTLE_S,
    ) -> Ending:
        """Play one story from a clean world to its end.

        Args:
            story: what goes wrong with the machine.
            point: the write at which the fault strikes; empty for none.
            fate: what happens there.
            within_s: what the rest of the story may take after that.

        Raises:
            WaitExpiredError: it did not come to an end.
            AssertionError: the process ended by something else than the fault.
        """
        stage = self.world.stage
        stage.stop_controller()  # of a story that failed
        self.world.reset()
        mark = stage.audit.mark()
        journal = stage.directory / f"journal-{self._played}"
        self._played += 1
        words = ("--journal", str(journal), "--point", point, "--fate", fate.value)
        leading = stage.log_size()
        stage.launch_controller(
            program=("remediator.testbed.faulty_controller", *words), lease_seconds=LEASE_S
        )
        wait_until(
            lambda: not stage.controller_alive or stage.controller.leads_since(leading),
            timeout_s=SETTLE_S,
            what="the faulty controller to lead, or to die",
        )
        story.inject(stage.exporters)
        self._until(lambda: not stage.controller_alive or self.world.settled(), journal, SETTLE_S)
        if not stage.controller_alive:
            code = stage.controller.await_end(0)
            assert code == -9, f"ended with {code} at {read_journal(journal)[-3:]}:\n{stage.log_tail()}"
            stage.start_controller(lease_seconds=LEASE_S, pages=False)
            self._until(self.world.settled, journal, within_s)
        stage.stop_controller()
        return Ending(self.world.state(), effects(stage.audit.since(mark)), read_journal(journal))

    def _until(self, condition: Callable[[], bool], journal: Path, timeout_s: float) -> None:
        def detail() -> str:
            log = self.world.stage.log_tail()
            return f"\nwrites: {read_journal(journal)}\nruns: {self.world.runs()}\nlog:\n{log}"

        wait_until(condition, timeout_s=timeout_s, what="the end of the story", detail=detail, every_s=0.1)


def assert_as_without_a_fault(ending: Ending, reference: Ending) -> None:
    """The fault struck; each effect came once; everything ended as it does without a fault."""
    assert ending.struck, f"the fault never struck: {ending.journal}"
    for name, counts in ending.effects.items():
        assert set(counts.values()) == {1}, f"{name}: {counts}"
        assert len(counts) == 1, f"{name}: {counts}"
    assert set(ending.effects["quarantined"]) == {BAD}
    assert set(ending.effects["joined"]) == {SPARE}
    assert not differences(ending.state, reference.state)
