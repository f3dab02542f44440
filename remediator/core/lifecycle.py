"""Where a run may go from where it stands. Pure, and the only module that knows.

A run changes state through ``advance`` and nowhere else; docs/lifecycle.md is generated from
these tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from msgspec import Struct

from remediator.errors import ContractError
from remediator.model.remediation import RunState as S


class StateRow(Struct, frozen=True, gc=False):
    """Who moves a run out of a state, what bounds the stay, and what the node looks like meanwhile."""

    owner: str
    bound: str
    node: str
    ended: bool = False


STATES: Final[Mapping[S, StateRow]] = MappingProxyType(
    {
        S.GRANTED: StateRow("run pass", "claim ends after 30 min without hand-over", "untouched"),
        S.QUARANTINED: StateRow("run pass", "the next step's time-out", "our taint, cordoned"),
        S.HANDED_OVER: StateRow("run pass", "the next step's time-out", "as before; the spare is a member"),
        S.DRAINING: StateRow("run pass", "drain.deadline, then Held", "our taint, cordoned, emptying"),
        S.DETACHED: StateRow("run pass", "the next step's time-out", "empty, out of its pool"),
        S.REPAIRING: StateRow("repair Job, then run pass", "repair.job.timeout, then Failed", "rebooting"),
        S.VERIFYING: StateRow("run pass", "verify.timeout, then Failed", "our taint, cordoned, soaking"),
        S.BLOCKED: StateRow("the thing it names", "the step's time-out, then Held", "as at the step"),
        S.HELD: StateRow(
            "a person: cancel, or remove the obstacle", "none: it says what it waits for", "as at the step"
        ),
        S.RETURNED: StateRow("nobody", "ended", "in the buffer, on probation", ended=True),
        S.REPORTED: StateRow("nobody", "ended", "untouched", ended=True),
        S.HANDED_OFF: StateRow(
            "people", "ended; the machine stays Out", "our taint, cordoned, empty", ended=True
        ),
        S.CANCELLED: StateRow(
            "nobody", "ended; not again within the hold time", "as before the run", ended=True
        ),
        S.NODE_GONE: StateRow("nobody", "ended; the machine stays Out", "none", ended=True),
        S.FAILED: StateRow("people", "ended; the machine stays Out", "our taint, cordoned", ended=True),
        S.NOT_GRANTED: StateRow("nobody", "ended", "untouched", ended=True),
        S.WOULD_ACT: StateRow("nobody", "ended at birth", "untouched", ended=True),
    }
)

FAULT_OVER: Final = "FaultOver"  # reason of an end that is nobody's No
_LEAVE: Final = (S.HELD, S.CANCELLED, S.NODE_GONE, S.FAILED)

NEXT: Final[Mapping[S, tuple[S, ...]]] = MappingProxyType(
    {
        S.GRANTED: (
            S.QUARANTINED, S.HANDED_OVER, S.REPORTED, S.BLOCKED, S.NOT_GRANTED, S.HANDED_OFF, *_LEAVE,
        ),
        S.QUARANTINED: (
            S.HANDED_OVER, S.DRAINING, S.DETACHED, S.REPAIRING, S.VERIFYING, S.HANDED_OFF, S.BLOCKED, *_LEAVE,
        ),
        # The spare is in the pool from here on, whatever becomes of the leaver.
        S.HANDED_OVER: (
            S.QUARANTINED, S.DRAINING, S.DETACHED, S.REPAIRING, S.VERIFYING, S.HANDED_OFF, S.BLOCKED, *_LEAVE,
        ),
        S.DRAINING: (
            S.HANDED_OVER, S.DETACHED, S.REPAIRING, S.VERIFYING, S.HANDED_OFF, S.BLOCKED, *_LEAVE,
        ),
        S.DETACHED: (S.REPAIRING, S.VERIFYING, S.HANDED_OFF, S.BLOCKED, *_LEAVE),
        S.REPAIRING: (S.VERIFYING, S.HANDED_OFF, S.BLOCKED, *_LEAVE),
        S.VERIFYING: (S.RETURNED, S.HANDED_OFF, S.BLOCKED, *_LEAVE),
        S.BLOCKED: (
            S.GRANTED, S.QUARANTINED, S.HANDED_OVER, S.DRAINING, S.DETACHED, S.REPAIRING, S.VERIFYING,
            S.RETURNED, S.HANDED_OFF, S.REPORTED, S.NOT_GRANTED, *_LEAVE,
        ),
        S.HELD: (
            S.QUARANTINED, S.HANDED_OVER, S.DRAINING, S.DETACHED, S.REPAIRING, S.VERIFYING, S.HANDED_OFF,
            S.BLOCKED, S.CANCELLED, S.NODE_GONE, S.FAILED,
        ),
        **{state: () for state, row in STATES.items() if row.ended},
    }
)  # fmt: skip
assert set(NEXT) == set(STATES) == set(S), "every state has a row, even an empty one"

# The state that an action's begin leads to; actions that are not listed change nothing.
DURING: Final[Mapping[str, S]] = MappingProxyType(
    {"drain": S.DRAINING, "repair": S.REPAIRING, "verify": S.VERIFYING}
)

# The state that an action's end leads to; actions that are not listed change nothing.
AFTER: Final[Mapping[str, S]] = MappingProxyType(
    {
        "quarantine": S.QUARANTINED,
        "swap": S.HANDED_OVER,
        "detach": S.DETACHED,
        "return": S.RETURNED,
        "report": S.REPORTED,
    }
)


def natural(begun: tuple[tuple[str, bool], ...]) -> S:
    """The state that a run's steps amount to, whatever blocks it now.

    Args:
        begun: (action, finished) of each step that was begun, in order.
    """
    state = S.GRANTED
    for action, finished in begun:
        state = DURING.get(action, state)
        state = AFTER.get(action, state) if finished else state
    return state


def ended(state: S) -> bool:
    return STATES[state].ended


def advance(current: S, to: S) -> S:
    """The one way to change a run's state.

    Raises:
        ContractError: the table does not know the way.
    """
    if to is current:
        return current
    if to not in NEXT[current]:
        raise ContractError(f"a run can't go from {current.value} to {to.value}")
    return to
