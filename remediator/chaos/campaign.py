"""Many histories, on as many processes as are wanted; each is independent of all others."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from io import StringIO
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from remediator.adapters.clock import SystemClock
from remediator.adapters.files.single import located, read_single
from remediator.adapters.telemetry.logs import configure_logs
from remediator.chaos.candidates import candidate
from remediator.chaos.draw import draw
from remediator.chaos.history import Outcome, play
from remediator.chaos.lint import problems
from remediator.chaos.schedule import ControllerName, Schedule
from remediator.errors import InputError, Problem

A = TypeVar("A")
B = TypeVar("B")
SEEDS_MAX: Final = 1_000_000
WORKERS_MAX: Final = 64


def run(schedules: Sequence[Schedule], *, workers: int = 1) -> Iterator[Outcome]:
    """Play all of them; yields what came of each, in their order."""
    return spread(play, schedules, workers=workers)


def spread(work: Callable[[A], B], tasks: Iterable[A], *, workers: int = 1) -> Iterator[B]:
    """Do each task, on as many processes as are wanted; yields the results in the order of the tasks."""
    if workers == 1:
        yield from map(work, tasks)
        return
    context = multiprocessing.get_context("spawn")  # a forked loop, or logger, belongs to its parent
    with ProcessPoolExecutor(workers, mp_context=context, initializer=hush) as pool:
        left, under_way = iter(tasks), deque[Future[B]]()
        while True:
            for task in left:
                under_way.append(pool.submit(work, task))
                if len(under_way) >= 4 * workers:  # never more in memory than are about to run
                    break
            if not under_way:
                return
            yield under_way.popleft().result()


def hush() -> None:
    """Let this process log errors only, to nobody.

    A controller tells thousands of lines about troubles that we make; the verdict is in the audit log.
    """
    configure_logs("error", json=True, stream=StringIO(), clock=SystemClock())


def seeds(text: str) -> range:
    """Read ``A..B``, both included, or one number.

    Raises:
        InputError: it is neither.
    """
    first, dots, last = text.partition("..")
    try:
        found = range(int(first), int(last if dots else first) + 1)
    except ValueError:
        found = range(0)
    if not 0 < len(found) <= SEEDS_MAX:
        message, fix = f"{text!r} is no range of seeds", f"write A..B, at most {SEEDS_MAX:,} of them"
        raise InputError((Problem("command line", 0, 0, "seeds", message, fix),))
    return found


def drawn(
    numbers: range, controller: ControllerName = "remediator", bugs: tuple[str, ...] = ()
) -> list[Schedule]:
    """The histories of these seeds.

    Raises:
        InputError: there is no such bug.
    """
    words = candidate(controller, bugs).words
    return [draw(seed, words, controller=controller, bugs=bugs) for seed in numbers]


def keep(outcome: Outcome, folder: Path) -> Path:
    """Write the schedule of a history that broke something into a file that replays."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"seed-{outcome.schedule.seed}.json"
    path.write_bytes(written(outcome.schedule))
    return path


def written(schedule: Schedule) -> bytes:
    """As a file has it: what is as by default is left out."""
    return msgspec.json.format(msgspec.json.encode(schedule), indent=2) + b"\n"


def load(path: Path) -> Schedule:
    """Read a file that ``keep`` wrote, or that somebody wrote by hand.

    Raises:
        InputError: it can't be read, or can't be played; names file, line, field and the fix.
    """
    schedule, tree = read_single(path, Schedule)
    found = [located(tree, str(path), *each) for each in problems(schedule)]
    if found:
        raise InputError(tuple(found))
    return schedule
