"""The page about a run's life leaves nothing of the tables out."""

from remediator.adapters.files.lifecycle_doc import from_everywhere, lifecycle_page
from remediator.core.actions import ACTIONS
from remediator.core.lifecycle import NEXT, STATES
from remediator.model.remediation import RunState


def edges() -> set[tuple[str, str]]:
    found = set()
    for line in lifecycle_page().splitlines():
        if "-->" in line:
            start, _, rest = line.strip().partition(" --> ")
            found.add((start, rest.partition(":")[0]))
    return found


def test_every_way_of_the_table_is_drawn():
    """A way that the picture hides is one that nobody expects at three in the morning."""
    drawn, common = edges(), from_everywhere()

    for state, targets in NEXT.items():
        for target in targets:
            start = "AnyOpenState" if target in common else state.value
            back_on = state in common and ("AnyOpenState", state.value) in drawn
            assert (start, target.value) in drawn or back_on, f"{state.value} -> {target.value}"


def test_nothing_is_drawn_that_the_table_forbids():
    """The picture is read as a promise."""
    names = {state.value: state for state in RunState}

    wrong = [
        (start, end)
        for start, end in edges()
        if start in names and end in names and names[end] not in NEXT[names[start]]
    ]

    assert wrong == []


def test_begins_and_ends_are_drawn():
    """A run that starts nowhere, or an end that leads on, is a mistake in the drawing."""
    drawn = edges()

    assert {end for start, end in drawn if start == "[*]"} == {"Granted", "WouldAct"}
    assert {start for start, end in drawn if end == "[*]"} == {
        state.value for state, row in STATES.items() if row.ended
    }


def test_every_state_and_action_has_its_row():
    """Who looks a word up must find it."""
    page = lifecycle_page()

    for state in RunState:
        assert f"\n| `{state.value}` | {STATES[state].owner} |" in page
    for action, row in ACTIONS.items():
        assert f"\n| `{action}` | {row.writes} |" in page
