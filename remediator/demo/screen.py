"""Shows the story: line by line, or as a picture of the racks with the story beside it."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from textwrap import wrap
from typing import Any, Final, TextIO

from rich.console import Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from remediator.app.simulation import Simulation
from remediator.demo.play import Told, Watcher, nodes_of
from remediator.fleet.layout import BUFFER, INFER, TRAIN
from remediator.fleet.node_objects import LABEL_POOL, LABEL_RACK
from remediator.model.keys import TAINT_QUARANTINE
from remediator.ports import Clock

WIDTH: Final = 116
TEXT_WIDTH: Final = 72
LINES_MAX: Final = 22
#: What a node looks like: its sign, its colour, and what it means.
SIGNS: Final[Mapping[str, tuple[str, str, str]]] = {
    TRAIN: ("■", "green", "trains"),
    INFER: ("■", "cyan", "infers"),
    BUFFER: ("□", "blue", "spare"),
    "fenced": ("▲", "yellow", "fenced by us"),
    "silent": ("x", "red", "not Ready"),
    "cordoned": ("c", "magenta", "cordoned by others"),
    "": ("-", "white", "in no pool"),
}


def clock_text(at_s: float) -> str:
    """Minutes and seconds of the story."""
    return f"{int(at_s) // 60:3d}:{int(at_s) % 60:02d}"


class Lines(Watcher):
    """One line for each thing, for terminals that can no more, and for files."""

    def __init__(self, echo: Callable[[str], None]) -> None:
        self._echo = echo

    def tell(self, line: Told) -> None:
        if line.title:
            self._echo(f"\n── {line.title} " + "─" * max(3, 96 - len(line.title)))
        first, *rest = wrap(line.text, WIDTH - 20) or [""]
        self._echo(f"{clock_text(line.at_s)}  {line.who:<10} {first}")
        for more in rest:
            self._echo(f"{'':<19}{more}")


Rest = Callable[[float], object]


class Pace(Watcher):
    """Holds the story back to so many of its seconds a second; the machine may be slower than that."""

    def __init__(self, inner: Watcher, *, speed: float, now: Callable[[], float], rest: Rest) -> None:
        self._inner = inner
        self._speed = speed
        self._now = now
        self._rest = rest
        self._began: float | None = None

    def tell(self, line: Told) -> None:
        self._inner.tell(line)

    def look(self, simulation: Simulation, at_s: float) -> None:
        self._inner.look(simulation, at_s)
        if self._began is None:
            self._began = self._now() - at_s / self._speed
        ahead_s = at_s / self._speed - (self._now() - self._began)
        if ahead_s > 0:
            self._rest(ahead_s)


class Picture(Watcher):
    """The racks on the left, the story on the right."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._lines: deque[Text] = deque(maxlen=LINES_MAX)
        self._title = ""

    def tell(self, line: Told) -> None:
        if line.title:
            self._title = line.title
            self._lines.append(Text(line.title, style="bold"))
        first, *rest = wrap(line.text, TEXT_WIDTH - 23) or [""]
        self._lines.append(Text(f"{clock_text(line.at_s)} {line.who:<10} {first}"))
        self._lines.extend(Text(f"{'':<18}{more}") for more in rest)

    def look(self, simulation: Simulation, at_s: float) -> None:
        nodes = nodes_of(simulation)
        table = Table.grid(padding=(0, 2))
        table.add_row(
            Panel(_racks(nodes), title=f"{clock_text(at_s)} of the story", width=WIDTH - TEXT_WIDTH - 4),
            Panel(Group(*self._lines), title=self._title, width=TEXT_WIDTH, height=LINES_MAX + 2),
        )
        self._live.update(table, refresh=True)


def state_of(node: Mapping[str, Any]) -> str:
    """Which sign a node gets."""
    taints = {taint["key"] for taint in node["spec"].get("taints") or ()}
    if TAINT_QUARANTINE in taints:
        return "fenced"
    ready = next((each for each in node["status"].get("conditions") or () if each["type"] == "Ready"), None)
    if ready is None or ready["status"] != "True":
        return "silent"
    if node["spec"].get("unschedulable"):
        return "cordoned"
    pool = (node["metadata"].get("labels") or {}).get(LABEL_POOL, "")
    return pool if pool in SIGNS else ""


def _racks(nodes: list[dict[str, Any]]) -> Group:
    rows: dict[str, Text] = {}
    count: dict[str, int] = {}
    for node in nodes:
        rack = (node["metadata"].get("labels") or {}).get(LABEL_RACK)
        if rack is None:
            continue
        state = state_of(node)
        sign, colour, _ = SIGNS[state]
        rows.setdefault(rack, Text(f"rack {rack}  ")).append(f"{sign} ", style=colour)
        count[state] = count.get(state, 0) + 1
    legend = [
        Text.assemble((f"{sign} ", colour), f"{count.get(state, 0):3d} {meaning}")
        for state, (sign, colour, meaning) in SIGNS.items()
    ]
    return Group(*rows.values(), Text(), *legend)


class Recorder:
    """A text stream that also writes an asciicast (version 2) of what goes through it."""

    def __init__(self, out: TextIO, path: Path, clock: Clock, *, height: int) -> None:
        self._out = out
        self._file = path.open("w", encoding="utf-8")
        self._clock = clock
        self._began_s = clock.monotonic()
        header = {"version": 2, "width": WIDTH + 2, "height": height, "title": "remediator demo"}
        self._file.write(json.dumps(header) + "\n")

    def write(self, text: str) -> int:
        passed = round(self._clock.monotonic() - self._began_s, 3)
        shown = text.replace("\n", "\r\n")
        self._file.write(json.dumps([passed, "o", shown], ensure_ascii=False) + "\n")
        return self._out.write(text)

    def flush(self) -> None:
        self._out.flush()

    def isatty(self) -> bool:
        return self._out.isatty()

    def close(self) -> None:
        self._file.close()
