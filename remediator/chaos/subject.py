"""A controller under test: what a history needs to know of it, and nothing that only one of them has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from remediator.app.lifeline import Machine, Wrap, as_it_is
from remediator.chaos.draw import Words
from remediator.chaos.profile import Profile
from remediator.fleet.node_objects import NodeSpec
from remediator.sim.audit import Sink
from remediator.sim.loop import VirtualClock
from remediator.sim.world.cluster import Cluster


class Process(Protocol):
    """One running process of a controller."""

    machine: Machine

    @property
    def alive(self) -> bool:
        """Has it not ended?"""

    @property
    def leading(self) -> bool:
        """Does it believe that it leads?"""

    def terminate(self) -> None:
        """Ask it to end, as SIGTERM does."""

    async def kill(self) -> None:
        """End it, as SIGKILL does: nothing more of it reaches the server."""

    async def ended(self) -> bool:
        """Wait for its end. True after a clean one.

        Raises:
            Exception: by which it ended.
        """


class Subject(ABC):
    """A controller in a cluster of its own, with whatever it needs there applied.

    ``processes`` are all that were ever started.
    """

    cluster: Cluster
    processes: list[Process]

    @abstractmethod
    async def start(self, wrap: Wrap = as_it_is) -> Process:
        """Start one more process; ``wrap`` stands between it and the server.

        Raises:
            PermanentError, TransientError: it can't start.
        """

    @abstractmethod
    def work(self) -> Iterable[str]:
        """Each piece of work in a line, and how it ended: without what differs from run to run."""

    async def close(self) -> None:
        """End every process, and all that would go on by itself."""
        for process in self.processes:
            if process.alive:
                await process.kill()
        self.cluster.close()


class Open(Protocol):
    """Makes a subject, on a running ``VirtualLoop``; at module level, so that another process can have it."""

    def __call__(
        self, clock: VirtualClock, *, seed: int, specs: Iterable[NodeSpec], audit: Sink
    ) -> Subject: ...


@dataclass(frozen=True, slots=True)
class Candidate:
    """A controller that can be played: how it shows itself, how one is made, and what happens to it."""

    profile: Profile
    open: Open
    words: Words
