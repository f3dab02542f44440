"""The simulated demo: what it tells happens, and the score is what the audit log says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from rich.live import Live

from remediator.app.simulation import Simulation
from remediator.demo.play import Told, Watcher, play
from remediator.demo.scoreboard import broken_machines, scoreboard
from remediator.demo.screen import Lines, Pace, Picture, Recorder, state_of
from remediator.demo.story import story
from remediator.demo.tally import Score
from remediator.sim.loop import run_virtual, virtual_clock

README = Path(__file__).parents[3] / "README.md"
TITLES = [moment.title for moment in story() if moment.title]


class Kept(Watcher):
    def __init__(self) -> None:
        self.told: list[Told] = []
        self.picture = StringIO()
        console = Console(file=self.picture, width=120, force_terminal=True)
        live = Live(console=console, auto_refresh=False)
        live.start()
        self._drawn = Picture(live)
        self.states: dict[str, set[str]] = {}

    def tell(self, line: Told) -> None:
        self.told.append(line)
        self._drawn.tell(line)

    def look(self, simulation: Simulation, at_s: float) -> None:
        if int(at_s) % 60 == 0:
            self._drawn.look(simulation, at_s)
        found = simulation.cluster.get("/api/v1/nodes")
        for node in found["items"] if found else ():
            self.states.setdefault(node["metadata"]["name"], set()).add(state_of(node))


@pytest.fixture(scope="module")
def kept() -> Kept:
    return Kept()


@pytest.fixture(scope="module")
def limited(kept: Kept) -> Score:
    return play(1, limits=True, watcher=kept)


@pytest.fixture(scope="module")
def unlimited() -> Score:
    return play(1, limits=False, watcher=Watcher())


def of(kept: Kept, who: str) -> str:
    return "\n".join(line.text for line in kept.told if line.who == who)


@pytest.mark.timeout(180)
def test_story_goes_as_it_is_told(kept: Kept, limited: Score) -> None:
    assert [line.title for line in kept.told if line.title] == TITLES
    assert "back, as a spare on probation" in of(kept, "gpu-b-02")
    assert "back, as a spare on probation" in of(kept, "gpu-e-05")
    assert "Cancelled: somebody uncordoned the node" in of(kept, "gpu-f-03")
    waits, granted = (of(kept, "gpu-g-01").find(text) for text in ("no run, no taint", "granted"))
    assert 0 <= waits < granted, "it waits for its spare, and runs once there is one"
    assert "fenced" in kept.states["gpu-b-02"]
    assert all("fenced" not in kept.states[f"gpu-d-{slot:02}"] for slot in range(1, 9))
    assert limited.broken == ()


@pytest.mark.timeout(180)
def test_limits_are_what_makes_the_difference(limited: Score, unlimited: Score) -> None:
    """The same seed, the same story: the liars are believed where nothing holds the controller back."""
    assert limited.at_once <= 6, "a tenth of the fleet"
    assert len(set(limited.fenced) - broken_machines()) <= 3
    assert len(set(unlimited.fenced) - broken_machines()) >= 20
    rows = scoreboard(limited, unlimited)
    assert all(len(row) == len(rows[0]) for row in rows)


@pytest.mark.timeout(180)
def test_readme_shows_the_score_of_the_shipped_seed(limited: Score, unlimited: Score) -> None:
    """What a stranger reads first is what they will see."""
    shown = README.read_text(encoding="utf-8")

    for row in scoreboard(limited, unlimited):
        assert row.rstrip() in shown


@pytest.mark.timeout(180)
def test_readme_shows_lines_of_the_story(kept: Kept, limited: Score) -> None:
    told: list[str] = []
    lines = Lines(told.append)
    for line in kept.told:
        lines.tell(line)
    block = README.read_text(encoding="utf-8").split("```text\n")[1].split("```")[0]
    shown = [line for line in block.splitlines() if line and line != "[...]"]

    text = "\n".join(told)
    assert len(shown) > 15
    assert [line for line in shown if line not in text] == []


@pytest.mark.timeout(180)
def test_picture_has_every_rack_and_stays_within_the_screen(kept: Kept, limited: Score) -> None:
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", kept.picture.getvalue())

    assert all(f"rack {rack}  " in plain for rack in "abcdefgh")
    assert max(len(line) for line in plain.splitlines()) <= 120


@pytest.mark.timeout(60)
def test_pace_rests_for_what_the_story_is_ahead() -> None:
    async def main() -> None:
        rested: list[float] = []
        clock = virtual_clock()
        pace = Pace(Watcher(), speed=10.0, now=clock.monotonic, rest=rested.append)
        simulation = Simulation(clock, seed=1, specs=(), objects=())
        for at_s in (30.0, 35.0, 40.0):
            pace.look(simulation, at_s)
        assert rested == pytest.approx([0.5, 1.0])
        await simulation.close()

    run_virtual(main())


def test_record_is_an_asciicast(tmp_path: Path) -> None:
    path, out = tmp_path / "demo.cast", StringIO()

    async def main() -> None:
        recorder = Recorder(out, path, virtual_clock(), height=30)
        recorder.write("one\ntwo\n")
        recorder.close()

    run_virtual(main())
    header, event = (json.loads(line) for line in path.read_text("utf-8").splitlines())
    assert (header["version"], header["height"]) == (2, 30)
    assert event == [0.0, "o", "one\r\ntwo\r\n"]
    assert out.getvalue() == "one\ntwo\n"


@pytest.mark.timeout(180)
def test_command_ends_well_and_tells_the_score(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "remediator", "demo", "--speed", "100000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert all(title in done.stdout for title in TITLES)
    assert "rules that were broken" in done.stdout


def test_options_of_the_real_demo_are_refused_without_it() -> None:
    command = [sys.executable, "-m", "remediator", "demo", "--keep"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 2
    assert "need --real" in done.stderr
