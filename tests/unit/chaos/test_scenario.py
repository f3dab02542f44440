"""Scenarios: the shipped ones come out as they say, and whatever can't be is refused by line and field."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from remediator.chaos.history import Outcome, play
from remediator.chaos.scenario import Expected, Scenario, failures, named, shipped, variants
from remediator.errors import InputError

SHORT = """\
name: mine
summary: a GPU is lost
schedule:
  seed: 1
  events:
    - {atS: 5, kind: Xid, node: gpu-a-01, value: 79}
"""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("scenario", shipped(), ids=lambda each: each.name)
def test_shipped_scenario_comes_out_as_it_says(scenario: Scenario) -> None:
    """Every fault and event of it has struck, every rule held, and the end is the one that stands there."""
    assert failures(scenario, play(scenario.schedule)) == []


def test_variants_change_one_thing_each_and_ask_for_the_same() -> None:
    """Other dice, another number of replicas, a rack more, higher limits: none of them may matter."""
    scenario = named("gpu-lost")
    found = list(variants(scenario))

    assert [each.name for each in found] == [
        "gpu-lost, other names",
        "gpu-lost, other dice",
        "gpu-lost, a replica less",
        "gpu-lost, a healthy rack more",
        "gpu-lost, raised limits",
    ]
    assert [each.expect for each in found[1:]] == [scenario.expect] * 4
    assert len({msgspec.json.encode(each.schedule) for each in (*found, scenario)}) == 6
    assert list(variants(named("a-bug-is-found"))) == []


def test_variant_with_other_names_expects_them_too() -> None:
    found = next(variants(named("gpu-lost")))

    assert [each.node for each in found.schedule.events] == ["gpu-a-02"]
    assert found.expect.fenced == {"gpu-a-02": 15.0}
    assert "work gpu-a-02: gpu.bus: Returned gpu-a-08" in found.expect.ends, "the spare is called as before"


@pytest.mark.timeout(120)
@pytest.mark.parametrize("variant", tuple(variants(named("gpu-lost"))), ids=lambda each: each.name)
def test_variant_comes_out_the_same(variant: Scenario) -> None:
    """Those of the other scenarios are played by `make chaos`."""
    assert failures(variant, play(variant.schedule)) == []


def an_outcome() -> Outcome:
    from remediator.chaos.check import Report

    return Outcome(
        schedule=named("gpu-lost").schedule,
        report=Report(profile="p", user="u", records=1, own=1, users=(), verdicts=()),
        digest="",
        idle_faults=(),
        idle_events=(),
        starts=1,
        reboots=1,
        ending=("work gpu-a-01: gpu.bus: Returned gpu-a-08",),
        fenced_s={"gpu-a-01": 10.0},
    )


@pytest.mark.parametrize(
    ("expect", "changed", "said"),
    [
        (Expected(reboots=2), {}, "1 reboots instead of 2"),
        (Expected(ends=("Failed",)), {}, "no line of the ending has 'Failed'"),
        (Expected(never=("Returned",)), {}, "a line of the ending has 'Returned'"),
        (Expected(broken=("S3",)), {}, "S3 holds, and was to be broken"),
        (Expected(), {"crash": "ValueError()"}, "crash is broken"),
        (Expected(), {"idle_events": (0,)}, "events[0] could not happen"),
        (Expected(), {"idle_faults": (2,)}, "faults[2] never struck"),
        (Expected(fenced={"gpu-a-01": 4}), {}, "gpu-a-01 was fenced after 5.0 s, 4 it may take"),
        (Expected(fenced={"gpu-a-02": 4}), {}, "gpu-a-02 was never fenced"),
        (Expected(fenced={"gpu-a-01": 5}), {}, None),
        (Expected(idle=True), {"idle_faults": (2,)}, None),
        (Expected(reboots=1, ends=("gpu.bus",), never=("Held",)), {}, None),
    ],
)
def test_what_is_not_as_expected_is_told(
    expect: Expected, changed: dict[str, object], said: str | None
) -> None:
    """A scenario whose fault never struck shows nothing."""
    scenario = replace(named("gpu-lost"), expect=expect)
    assert failures(scenario, replace(an_outcome(), **changed)) == ([said] if said else [])


@pytest.mark.parametrize(
    ("old", "new", "where", "fix"),
    [
        ("kind: Xid", "kind: Xod", "6:22: schedule.events[0].kind", "did you mean Xid?"),
        (
            "node: gpu-a-01",
            "node: gpu-z-01",
            "6:27: schedule.events[0].node",
            "there are 24, such as gpu-a-01",
        ),
        ("value: 79", "value: 7900", "6:43: schedule.events[0].value", "write a whole number from 0 to 999"),
        ("  seed: 1", "  sead: 1", "4:3: schedule.sead", "did you mean seed?"),
        ("seed: 1", "seed: 1\n  racks: 65", "5:10: schedule.racks", "at least 1 and at most 64"),
        ("name: mine", "name: Mine", "1:7: name", ""),
    ],
)
def test_wrong_file_is_refused_by_line_and_field(
    old: str, new: str, where: str, fix: str, tmp_path: Path
) -> None:
    """Who writes a scenario by hand mistypes it at first."""
    path = tmp_path / "mine.yaml"
    path.write_text(SHORT.replace(old, new))
    with pytest.raises(InputError) as refused:
        named(str(path))
    text = str(refused.value)
    assert f"{path}:{where}" in text
    assert fix in text


def test_rule_that_is_none_is_refused(tmp_path: Path) -> None:
    """Else a scenario would wait for ever for something to break."""
    path = tmp_path / "mine.yaml"
    path.write_text(SHORT + "expect: {broken: [S99]}\n")
    with pytest.raises(InputError, match="'S99' is no rule"):
        named(str(path))


def test_name_that_is_neither_shipped_nor_a_file_is_refused() -> None:
    with pytest.raises(InputError, match="or one of a-bug-is-found, fault-that-ends"):
        named("nobody")


def test_file_of_one_s_own_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(SHORT)
    assert named(str(path)).schedule.events[0].value == 79
