"""A small cluster in every order of its messages: to a small depth here, deeper by `make chaos`."""

from __future__ import annotations

import pytest

from remediator.chaos.fates import Fate, Writes
from remediator.chaos.history import play
from remediator.chaos.interleavings import SCHEDULE, Order, first_write, orders, play_order, wrong


def test_every_order_is_named_once() -> None:
    assert len(set(orders(3))) == 64


@pytest.mark.timeout(120)
def test_no_order_of_the_first_write_breaks_anything() -> None:
    first = first_write()
    assert [wrong(play_order((first, order)).outcome) for order in orders(1)] == [()] * 4


@pytest.mark.timeout(60)
@pytest.mark.parametrize("fates", [(None, Fate.HELD), (Fate.HELD, Fate.HELD), (Fate.LATE, Fate.REPLY_LATE)])
def test_record_and_grant_may_arrive_in_any_order(fates: tuple[Fate | None, ...]) -> None:
    """The record of the run and the grant are sent together, by a leader that dies a second later."""
    assert wrong(play_order((first_write(), Order(fates))).outcome) == ()


@pytest.mark.timeout(60)
def test_what_an_old_leader_sent_is_refused_when_it_arrives_after_the_new_one() -> None:
    """Else the record of a run would be made that nobody has decided on."""
    lines: list[bytes] = []
    writes = Writes({first_write(): Fate.HELD})
    found = play(SCHEDULE, wrap=writes.between, listen=lines.append)

    assert (writes.struck, wrong(found)) == (1, ())
    refused = [line for line in lines if b"another leader has taken over" in line]
    assert len(refused) == 1
    assert b"remediator-fencing" in refused[0]
