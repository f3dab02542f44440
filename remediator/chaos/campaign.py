"""Many histories, on as many processes as are wanted; each is independent of all others."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from io import StringIO
from pathlib import Path
from typing import Final

import msgspec

from remediator.adapters.clock import SystemClock
from remediator.adapters.telemetry.logs import configure_logs
from remediator.chaos.draw import draw
from remediator.chaos.history import Outcome, play
from remediator.chaos.schedule import Schedule
from remediator.errors import InputError, Problem

SEEDS_MAX: Final = 1_000_000
WORKERS_MAX: Final = 64
FILE_BYTES_MAX: Final = 1 << 20


def run(schedules: Sequence[Schedule], *, workers: int = 1) -> Iterator[Outcome]:
    """Play all of them; yields what came of each, in the order in which they end."""
    if workers == 1:
        for schedule in schedules:
            yield play(schedule)
        return
    context = multiprocessing.get_context("spawn")  # a forked loop, or logger, belongs to its parent
    with ProcessPoolExecutor(workers, mp_context=context, initializer=hush) as pool:
        left = iter(schedules)
        under_way: set[Future[Outcome]] = set()
        while True:
            for schedule in left:
                under_way.add(pool.submit(play, schedule))
                if len(under_way) >= 2 * workers:  # never more in memory than are about to run
                    break
            if not under_way:
                return
            done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            for each in done:
                yield each.result()


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


def drawn(numbers: range) -> list[Schedule]:
    """The histories of these seeds."""
    return [draw(seed) for seed in numbers]


def keep(outcome: Outcome, folder: Path) -> Path:
    """Write the schedule of a history that broke something into a file that replays."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"seed-{outcome.schedule.seed}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(outcome.schedule), indent=2) + b"\n")
    return path


def load(path: Path) -> Schedule:
    """Read a file that ``keep`` wrote, or that somebody wrote by hand.

    Raises:
        InputError: it can't be read, or is no schedule; names file and field.
    """
    fix = "write one that `remediator chaos run` keeps"
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(FILE_BYTES_MAX), type=Schedule)
    except OSError as error:
        problem = Problem(str(path), 0, 0, "", f"can't be read: {error.strerror}", fix)
        raise InputError((problem,)) from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InputError((Problem(str(path), 0, 0, "", f"no schedule: {error}", fix),)) from error
