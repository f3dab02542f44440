"""A long run may be interrupted: what was played is not played again, and nothing of it is lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from remediator import __version__
from remediator.chaos import campaign
from remediator.chaos.results import Result, coverage, junit, parted, read_results, time_left
from remediator.chaos.schedule import Event, Fault, Schedule
from remediator.cli.exits import CHECK_FAILED, WRONG_USAGE
from remediator.errors import InputError

RUN = (sys.executable, "-m", "remediator", "chaos", "run", "--controller", "reference")


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [*RUN, "--results", "all.jsonl", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=110, check=False, cwd=folder)


@pytest.mark.timeout(120)
def test_run_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    bug = ("--bug", "evicts-by-name")
    first = run(tmp_path, *bug, "--seeds", "1..2")
    path = tmp_path / "all.jsonl"
    with path.open("ab") as file:
        file.write(b'{"schedule":{"see')  # as a killed process leaves it
    second = run(tmp_path, *bug, "--seeds", "1..3", "--junit", "all.xml")

    assert (first.returncode, second.returncode) == (CHECK_FAILED, CHECK_FAILED)
    assert "2 of 3 histories stand in all.jsonl already" in second.stderr
    assert "3 histories, " in second.stderr
    assert second.stdout.startswith("seed 3: ")
    found = read_results(path)
    assert [each.schedule.seed for each in found] == [1, 2, 3]
    assert "requests judged: " in second.stderr
    assert "never: " in second.stderr
    suite = ElementTree.fromstring((tmp_path / "all.xml").read_bytes())
    assert suite.get("tests") == "3"
    assert int(suite.get("failures", "0")) == sum(bool(each.broken) for each in found) > 0
    assert any("S4: no uid in its preconditions" in (each.text or "") for each in suite.iter("failure"))


@pytest.mark.timeout(60)
def test_file_that_holds_something_else_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "all.jsonl").write_text("{}\n", "utf-8")
    done = run(tmp_path, "--seeds", "1")

    assert done.returncode == WRONG_USAGE
    assert "all.jsonl" in done.stderr
    assert "no result" in done.stderr
    with pytest.raises(InputError, match="1"):
        read_results(tmp_path / "all.jsonl")


def test_other_version_and_other_bug_count_as_not_played() -> None:
    (plain,) = campaign.drawn(range(1, 2), "reference")
    (bugged,) = campaign.drawn(range(1, 2), "reference", ("no-pause",))
    old = Result(schedule=plain, version="0.0.0")
    own = Result(schedule=bugged, version=__version__)

    assert parted([plain, bugged], [old, own]) == ([own], [plain])


def test_result_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    (schedule,) = campaign.drawn(range(5, 6))
    result = Result(schedule=schedule, version="1", broken=("S4",), digest="d", findings=("S4: x",))
    path = tmp_path / "all.jsonl"
    path.write_bytes(msgspec.json.encode(result) + b"\n")

    assert read_results(path) == [result]
    assert read_results(tmp_path / "none.jsonl") == []
    assert b'message="S4"' in junit([result])


def test_coverage_says_what_struck_and_what_never_did() -> None:
    """A rule that judged nothing, and a fault that struck nobody, have not been tried."""
    faults = (Fault(kind="Slow", from_s=1, to_s=2), Fault(kind="Conflict", from_s=1, to_s=2))
    schedule = Schedule(
        seed=1, faults=faults, events=(Event(kind="Xid", node="a"), Event(kind="Clear", node="a"))
    )
    results = [
        Result(
            schedule=schedule,
            version="1",
            idle_faults=(1,),
            idle_events=(0,),
            judged={"S1": 1_200},
            ends={"Returned": 2, "Failed": 1},
        ),
        Result(schedule=schedule, version="1", judged={"S1": 34}, ends={"Returned": 1}),
    ]
    faults_line, events_line, judged, ends, never = coverage(results)

    assert "Slow 2/2" in faults_line
    assert "Conflict 1/2" in faults_line
    assert "Xid 1/2" in events_line
    assert judged == "requests judged: S1 1,234"
    assert ends == "work ended: Returned 3, Failed 1"
    assert "TooMany" in never
    assert not {"Slow", "Xid", "Clear", "S1"} & set(never.removeprefix("never: ").split(", "))


@pytest.mark.parametrize(
    ("done", "total", "passed_s", "said"),
    [(10, 100, 60.0, "10 of 100, about 9 min left"), (99, 100, 60.0, "99 of 100"), (5, 5, 9.0, "5 of 5")],
)
def test_time_left_is_by_what_was_done(done: int, total: int, passed_s: float, said: str) -> None:
    assert time_left(done, total, passed_s) == said
