"""What is carried out again on a machine that is out: which steps of a playbook, and where it goes."""

from __future__ import annotations

import msgspec
import pytest

from remediator.core.again import buffer_of, destination, place_empty, way_back, whole
from remediator.model.ledger import Out
from remediator.model.playbook import PlaybookSpec, Step, VerifyStep
from tests.unit.core.builders import BUFFER, HARD, REPAIR, SOFT, TRAIN, a_playbook, a_pool, a_run, text

POOLS = {"train": TRAIN, "buffer": BUFFER, "repair": REPAIR}


def out(pool: str = "") -> Out:
    return Out(run="m-1", since=text(0), fault_class="gpu.bad", pool=pool)


def test_whole_fences_a_soft_fault_s_machine_first_and_fills_no_place_twice():
    """It has left its pool already: nothing is spared by waiting, and its spare serves."""
    before = a_playbook(*SOFT)
    after = whole(before, place_empty=False)

    assert after.actions[0] == "quarantine"
    assert set(after.actions) == set(before.actions) - {"swap"}


def test_whole_swaps_where_nobody_took_the_place():
    """The hole in the pool is worth a spare, if there is one by now."""
    assert set(whole(a_playbook(*SOFT), place_empty=True).actions) == set(SOFT)


@pytest.mark.parametrize("change", [way_back, lambda each: whole(each, place_empty=False)])
def test_text_of_a_changed_playbook_is_its_steps(change):
    """The run follows its text, so the two must never differ."""
    after = change(a_playbook(*HARD))

    assert msgspec.json.decode(after.text, type=PlaybookSpec) == after.spec


def test_way_back_keeps_the_playbook_s_proof_but_for_the_boot():
    """Who mended it need not have rebooted it; everything else has to be good all the same."""
    proof = VerifyStep(quiet_for="7m", boot_changed=True, timeout="9m")
    after = way_back(a_playbook("quarantine", "drain", Step(id="v", verify=proof), "return"))

    assert after.actions == ("quarantine", "verify", "return")
    assert after.spec.steps[1].verify == VerifyStep(quiet_for="7m", boot_changed=False, timeout="9m")


def test_way_back_of_a_hand_off_has_the_default_proof():
    """A playbook that ends with people knows no verify; nobody comes back without one."""
    after = way_back(a_playbook("quarantine", "drain", "handoff"))

    assert after.actions == ("quarantine", "verify", "return")
    assert after.spec.steps[1].verify == VerifyStep()


def test_way_back_begins_behind_a_fence_whatever_playbook_is_named():
    """Without one it would need no grant, and nobody's marks would be anybody's."""
    assert way_back(a_playbook("report")).actions == ("quarantine", "verify", "return")


def test_place_is_empty_where_the_machine_is_still_missed():
    assert place_empty(out("train"), "train")
    assert not place_empty(out(""), "train")
    assert not place_empty(out("train"), None)


@pytest.mark.parametrize(
    ("pool", "last", "home", "expected"),
    [
        ("train", {}, "train", ""),  # a member still: the usual rule
        ("train", {}, None, "train"),  # detached, and nobody came in its place
        ("", {}, None, "buffer"),  # replaced
        ("", {"pool": "", "return_to": "train"}, None, "train"),  # a way back that failed
        ("gone", {}, None, "buffer"),  # its pool is no more
    ],
)
def test_destination_is_where_the_machine_is_missing(pool, last, home, expected):
    assert destination(out(pool), a_run(**last), home, POOLS) == expected


def test_destination_without_a_record_is_some_buffer():
    assert destination(out(), None, None, POOLS) == "buffer"
    assert destination(out(), None, None, {"train": TRAIN}) == ""


def test_buffer_is_one_that_the_pool_draws_from():
    """The wrong hardware class is behind the wrong buffer."""
    mine = a_pool("train", buffers=("gone", "repair", "spares-b"))
    pools = POOLS | {"spares-b": a_pool("spares-b", "Buffer")}
    found = buffer_of(mine, pools)

    assert found is not None
    assert found.metadata.name == "spares-b"
