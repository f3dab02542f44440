"""The harness can see: each bug that is planted in the reference controller is found, and only the bug.

The schedules in ``corpus/`` are what ``remediator chaos shrink`` has left of drawn histories.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from msgspec.structs import replace

from remediator.chaos import campaign
from remediator.chaos.candidates import BUGS, candidate
from remediator.chaos.corpus import Found, hunt, told
from remediator.chaos.history import Outcome, play
from remediator.chaos.reference.bugs import Bug
from remediator.chaos.rules import ENDINGS, RULES
from remediator.chaos.schedule import ControllerName
from remediator.errors import InputError

CORPUS = Path(__file__).parent / "corpus"
RULES_OF_THE_HARNESS = {rule.id for rule in (*RULES, *ENDINGS)}


# No bug shows these alone: S3b asks what S3 asks, of the server's answer; the simulator knows no rights
# (S27); and the reference controller has no pod of its own (S31), no mode in which it only looks (S21), and
# no join gate.
JOINS = {"S18", "S19", "S19b", "L9"}
NEVER_ALONE = {"S3b", "S21", "S27", "S31"} | JOINS


@cache
def outcome(slug: str) -> Outcome:
    """What comes of the shortest history of a bug."""
    return play(campaign.load(CORPUS / f"{slug}.json"))


def test_each_bug_has_a_schedule() -> None:
    assert sorted(path.stem for path in CORPUS.glob("*.json")) == sorted(BUGS)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("slug", sorted(BUGS))
def test_planted_bug_is_found_by_its_schedule(slug: str) -> None:
    schedule = campaign.load(CORPUS / f"{slug}.json")
    assert schedule.bugs == (slug,)
    found = outcome(slug)

    assert set(found.broken) & set(BUGS[slug].rules), found.broken
    assert (found.idle_faults, found.idle_events) == ((), ()), "what never struck belongs to no proof"


@pytest.mark.timeout(300)
def test_without_any_one_rule_some_bug_would_escape() -> None:
    """No rule is there for nothing: each is the only one that tells some bug from the right controller."""
    alone = {rule for slug in BUGS if len(outcome(slug).broken) == 1 for rule in outcome(slug).broken}

    assert alone == RULES_OF_THE_HARNESS - NEVER_ALONE


@pytest.mark.timeout(120)
@pytest.mark.parametrize("slug", sorted(BUGS))
def test_without_the_bug_the_same_schedule_breaks_nothing(slug: str) -> None:
    """Else it would be the schedule that is found, and not the bug."""
    found = play(replace(campaign.load(CORPUS / f"{slug}.json"), bugs=()))

    assert (found.broken, found.crash) == ((), "")


@pytest.mark.timeout(120)
def test_reference_controller_holds_every_rule_in_drawn_histories() -> None:
    outcomes = [play(schedule) for schedule in campaign.drawn(range(1, 11), "reference")]

    assert [each.broken for each in outcomes] == [()] * 10
    answered = {verdict.rule for each in outcomes for verdict in each.report.verdicts if verdict.judged}
    # It writes nothing that has finalizers, has no pods of its own, is no identity that only looks, and lets
    # nobody in.
    without_a_case = {"S21", "S26", "S31"} | JOINS
    assert answered | {"S14", "S27"} >= {rule.id for rule in RULES} - without_a_case


def test_each_rule_that_bugs_name_is_one() -> None:
    assert {rule for bug in BUGS.values() for rule in bug.rules} <= RULES_OF_THE_HARNESS


@pytest.mark.parametrize(
    ("controller", "bugs", "fix"),
    [
        ("reference", ("evicts-by-nam",), "name one of evicts-by-name"),
        ("remediator", ("evicts-by-name",), "only there can bugs be switched on"),
    ],
)
def test_bug_that_is_not_there_is_refused(
    controller: ControllerName, bugs: tuple[str, ...], fix: str
) -> None:
    with pytest.raises(InputError, match=fix):
        candidate(controller, bugs)


@pytest.mark.parametrize(
    ("histories", "runs", "expected"),
    [
        ((1, 2, 3), 5, 3),
        ((1, 2), 5, None),
        ((1, 2, 4), 4, 3.0),
        ((2, 2), 4, None),
        ((7,), 1, 7),
        ((), 1, None),
    ],
)
def test_median_of_the_runs_is_known_when_more_than_half_have_found_the_bug(histories, runs, expected):
    """What the others would have taken is more than any of these, however much."""
    assert Found("b", histories, {}, runs, 9).median == expected


@pytest.mark.timeout(120)
def test_hunt_ends_when_the_median_is_known():
    """The bugs come in turn, each with what its runs took; the second is too rare for one history each."""
    easy, rare = hunt((Bug.EVICTS_BY_NAME, Bug.NAME_AS_KEY), runs=3, most=2)

    assert (easy.bug, easy.median, easy.played, dict(easy.rules)) == ("evicts-by-name", 1, 1, {"S4": 3})
    assert (rare.bug, rare.median, rare.played) == ("name-as-key", None, 2)
    assert told(rare) == "name-as-key            found by 0 of 3 runs in 2 histories each"
