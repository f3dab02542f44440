"""What every figure is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from remediator.testbed.binaries import Binaries


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One measurement.

    ``directory`` is empty and its own. ``trials`` is how many a side where a figure has trials,
    ``seconds`` how long where it watches or repeats. ``tell`` hears of progress.
    """

    directory: Path
    binaries: Binaries
    seed: int
    trials: int
    seconds: float
    tell: Callable[[str], None]
