"""Where a run stands by its steps, and the books of one pass."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import UNSET

from remediator.core.account import Account, handed_over, natural_state, needs_grant, run_state
from remediator.core.request import Shadow
from remediator.model.meta import Rate
from remediator.model.playbook import PlaybookLimits
from remediator.model.policy import RATES_MAX, PolicyStatus, RateState
from remediator.model.remediation import RemediationStatus, RunState, StepStatus
from tests.unit.core.builders import a_fleet, a_grant, a_node, a_playbook, a_request, a_run, at, text


def stood(state: str, *steps: tuple[str, Any]):
    found = tuple(
        StepStatus(id=f"s{number}", action=action, state=result, started_at=text(0))
        for number, (action, result) in enumerate(steps)
    )
    return a_run(status=RemediationStatus(state=state, steps=found))


@pytest.mark.parametrize(
    ("run", "natural"),
    [
        (a_run(), RunState.GRANTED),
        (stood("Blocked", ("quarantine", "Done"), ("drain", "Intent")), RunState.DRAINING),
        (stood("Held", ("quarantine", "Done"), ("drain", "Done"), ("detach", "Done")), RunState.DETACHED),
        (stood("Quarantined", ("quarantine", "Done"), ("undo", "Intent")), RunState.QUARANTINED),
        (stood("HandedOver", ("swap", "Done"), ("quarantine", "Intent")), RunState.HANDED_OVER),
        (stood("Quarantined", ("quarantine", "Done"), ("swap", "Skipped")), RunState.QUARANTINED),
        (stood("Cancelled", ("quarantine", "Done")), RunState.CANCELLED),
    ],
    ids=["born", "blocked", "held", "undo", "swapped", "swap skipped", "ended"],
)
def test_natural_state_is_what_the_steps_amount_to(run, natural):
    """Budgets count where a run really stands, not what it shows while it waits."""
    assert natural_state(run) is natural


def test_run_state_of_a_record_without_status_is_granted():
    """A crash between creation and the first status write leaves just this."""
    assert run_state(a_run()) is RunState.GRANTED
    assert run_state(a_run(status=RemediationStatus())) is RunState.GRANTED


def test_handed_over_needs_a_swap_that_was_done():
    """A skipped swap filled no place."""
    assert handed_over(stood("HandedOver", ("swap", "Done")))
    assert not handed_over(stood("Quarantined", ("swap", "Skipped")))
    assert not handed_over(a_run())


@pytest.mark.parametrize(
    ("run", "needs"),
    [
        (a_run(), True),
        (stood("Blocked", ("quarantine", "Done")), True),
        (stood("Draining", ("quarantine", "Done"), ("drain", "Done"), ("detach", "Intent")), True),
        (stood("Detached", ("detach", "Done")), False),
        (stood("Verifying", ("verify", "Intent")), False),
        (stood("Failed", ("quarantine", "Done")), False),
    ],
)
def test_grant_is_needed_until_the_node_is_detached(run, needs):
    """From there on the machine counts as out, not as being taken out."""
    assert needs_grant(run) is needs


def books(*grants):
    node = a_node()
    return Account(a_fleet([node]), grants, ()), a_request(node, "quarantine", "drain")


def test_account_takes_a_token_of_every_rate_that_applies():
    """A playbook's own rate comes on top of the fleet's."""
    account, _ = books()
    own = a_playbook("quarantine", limits=PlaybookLimits(rate=Rate(count=1, per="1h")))
    account.grant(a_request(playbook=own), "train", "")

    assert {scope: state.tokens for scope, state in account.rates.items()} == {
        "fleet": 1.0,
        "playbook/p": 0.0,
    }


def test_account_takes_no_token_for_healing():
    """A machine that reappears must be fenced even when the bucket is empty."""
    account, _ = books()
    account.grant(a_request(a_node(), "quarantine", trigger="Reappeared"), "train", "")

    assert account.rates == {}


def test_account_keeps_no_more_rates_than_the_status_holds():
    """One more and the server would refuse the status with every grant in it; the fleet's own stays."""
    states = [
        RateState(scope=f"playbook/p{number:02}", tokens=0.0, at=text(number - 99)) for number in range(64)
    ]
    fleet = RateState(scope="fleet", tokens=1.0, at=text(-999))
    view = a_fleet([a_node()], status=PolicyStatus(term=1, rates=(fleet, *states[1:])))
    account = Account(view, (), ())
    own = a_playbook("quarantine", limits=PlaybookLimits(rate=Rate(count=1, per="1h")))
    account.grant(a_request(playbook=own), "train", "")

    assert len(account.rates) == RATES_MAX
    assert {"fleet", "playbook/p", "playbook/p63"} <= account.rates.keys()
    assert "playbook/p01" not in account.rates


def test_account_of_shadows_leaves_the_real_books_alone():
    """What Audit would grant limits nothing real."""
    account, request = books(a_grant(spare="spare-1"))
    shadow = account.shadowed()
    shadow.add_shadow(
        Shadow(
            run="x-1",
            machine="x",
            node_uid="uid-x",
            fault_class="c",
            pool="train",
            spare="spare-2",
            playbook=request.playbook.name,
            until=at(60),
        )
    )

    assert account.reserved() == {"spare-1"}
    assert shadow.reserved() == {"spare-1", "spare-2"}
    assert len(account.grants) == 1


def test_account_names_granted_nodes_by_pool_and_only_live_ones():
    """A grant of a Node that is gone holds no name: a new Node of that name is another one."""
    account, _ = books(a_grant(), a_grant("x-1", "gone"), a_grant("y-1", "gpu-1", pool="other"))

    assert account.granted_nodes() == {"gpu-1"}
    assert account.granted_nodes("train") == {"gpu-1"}
    assert account.granted_nodes("none") == frozenset()
    assert a_run().status is UNSET
