"""Every shipped playbook plays its own test file as expected, and its plan reads as it was reviewed.

To accept changed plans: UPDATE_GOLDEN=1 .venv/bin/python -m pytest tests/playbooks
"""

import functools
import os
from pathlib import Path

import pytest

from remediator.adapters.files.loader import load_objects
from remediator.adapters.files.testfile import PlaybookTest
from remediator.app.rehearsal.rehearse import CaseResult, rehearse
from remediator.model.playbook import Playbook

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "playbooks/tests"
GOLDEN = Path(__file__).parent / "golden"
FILES = sorted(TESTS.glob("*.yaml"))


@functools.cache
def results_of(file: Path) -> tuple[CaseResult, ...]:
    return rehearse([file])


def test_every_shipped_playbook_has_a_test_file_of_its_name():
    """A playbook that nobody rehearsed would be rehearsed by the fleet."""
    playbooks = {each.name for each in load_objects([ROOT / "playbooks"]) if isinstance(each.value, Playbook)}
    tests = {each.name for each in load_objects([TESTS]) if isinstance(each.value, PlaybookTest)}

    assert tests == playbooks
    assert {file.stem for file in FILES} == playbooks
    assert len(playbooks) == 10


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_shipped_playbook_plays_its_test_file_as_expected(file: Path):
    """What the README promises of a playbook is held here, case by case."""
    wrong = [str(problem) for result in results_of(file) for problem in result.problems]

    assert wrong == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_shipped_test_file_says_yes_no_and_not_now(file: Path):
    """A file with good weather only proves little."""
    (loaded,) = load_objects([file])
    test = loaded.value
    assert isinstance(test, PlaybookTest)
    expected = [case.expect for case in test.spec.cases]

    assert any(each.runs and each.faults for each in expected), "no case in which it acts"
    assert any(each.faults == () and each.writes == () for each in expected), "no case that it leaves alone"
    assert any(case.mode == "Audit" for case in test.spec.cases), "no case in Audit"
    assert any("strikes" in str(case.given) for case in test.spec.cases), (
        "no case of a machine repaired before"
    )
    assert any("gone=True" in str(case.given) for case in test.spec.cases), "no case without a spare"
    if file.stem != "node-condition-report":  # it harms nobody, so nothing holds it back
        assert any(each.blocked for each in expected), "no case that a limit holds back"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_shipped_plan_reads_as_reviewed(file: Path):
    """People approve plans by reading them: a changed line is to be seen in a review."""
    run = results_of(file)[0].told.runs[0]
    text = "\n".join((f"{run.spec.playbook.name} on {run.spec.node.name}", *run.spec.plan)) + "\n"
    golden = GOLDEN / f"{file.stem}.txt"
    if os.environ.get("UPDATE_GOLDEN") == "1":
        golden.write_text(text, encoding="utf-8")

    assert text == golden.read_text(encoding="utf-8")


def test_the_same_story_twice_writes_the_same():
    """A test that passes by chance is worse than none."""
    file = TESTS / "gpu-off-bus.yaml"

    again = rehearse([file])

    assert [each.told.books.lines for each in again] == [each.told.books.lines for each in results_of(file)]
