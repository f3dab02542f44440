"""The table of states: complete, every state has an owner, a bound and a way out."""

from __future__ import annotations

import itertools

import pytest

from remediator.core.actions import ACTIONS
from remediator.core.lifecycle import AFTER, DURING, NEXT, STATES, advance, ended, natural
from remediator.errors import ContractError
from remediator.model.remediation import RunState

OPEN = [state for state in RunState if not ended(state)]


@pytest.mark.parametrize("state", OPEN, ids=lambda state: state.value)
def test_state_has_an_owner_a_bound_and_ways_out(state):
    """No silent wait: somebody moves it, something bounds it, and people can always end it."""
    row = STATES[state]

    assert all((row.owner, row.bound, row.node))
    assert {RunState.CANCELLED, RunState.NODE_GONE} <= set(NEXT[state])
    assert any(not ended(each) or each is RunState.CANCELLED for each in NEXT[state])


@pytest.mark.parametrize("state", OPEN, ids=lambda state: state.value)
def test_state_reaches_an_end_and_is_reached_from_the_start(state):
    """A state without an end keeps a node out for ever; one that nobody reaches is a mistake."""
    assert any(ended(each) for each in reach(state))
    assert state in {RunState.GRANTED, *reach(RunState.GRANTED)}


def reach(state):
    seen, todo = set(), [state]
    while todo:
        for each in NEXT[todo.pop()]:
            if each not in seen:
                seen.add(each)
                todo.append(each)
    return seen


def test_ended_states_lead_nowhere():
    """Closed runs never replay."""
    for state in RunState:
        if ended(state):
            assert NEXT[state] == ()
            for other in RunState:
                if other is not state:
                    with pytest.raises(ContractError):
                        advance(state, other)


def test_advance_takes_each_way_of_the_table_and_no_other():
    """The table is the only place that knows, so it must be what counts."""
    for before, after in itertools.product(RunState, RunState):
        if after is before or after in NEXT[before]:
            assert advance(before, after) is after
        else:
            with pytest.raises(ContractError, match=before.value):
                advance(before, after)


def test_blocked_comes_back_to_every_state_that_can_block():
    """A run that waits must be able to go on exactly where it stood."""
    for state in OPEN:
        if RunState.BLOCKED in NEXT[state] and state is not RunState.HELD:
            assert state in NEXT[RunState.BLOCKED], state


def test_natural_state_of_any_begun_steps_is_a_state():
    """The derived state never fails, whatever a record holds."""
    for action, finished in itertools.product(ACTIONS, (True, False)):
        found = natural((("quarantine", True), (action, finished)))

        assert found in RunState
    assert natural(()) is RunState.GRANTED
    assert set(DURING) | set(AFTER) <= set(ACTIONS)
