"""Whole histories: each is the same when it is played again, and shows a bug that was planted."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from remediator.app.relay import Call, Relay
from remediator.chaos import campaign
from remediator.chaos.history import play
from remediator.chaos.schedule import ControllerName, Event, Fault, FaultKind, Schedule
from remediator.cli.exits import CHECK_FAILED
from remediator.errors import InputError
from remediator.ports import Response, Transport

HARD = Event(at_s=5, kind="Xid", node="gpu-a-01", value=79)
QUIET = Schedule(seed=3, replicas=1, events=(HARD,), calm_s=3_600)

Body = dict[str, Any]
Mutation = Callable[[str, str, Body], tuple[str, str, Body]]


class Mutated(Relay):
    """A transport whose requests were written by a worse controller."""

    def __init__(self, inner: Transport, mutate: Mutation) -> None:
        super().__init__(inner)
        self._mutate = mutate

    async def call(self, call: Call) -> Response:
        if call.body is None:
            return await self.send(call)
        method, path, body = self._mutate(call.method, call.path, msgspec.json.decode(call.body))
        return await self.send(
            dataclasses.replace(call, method=method, path=path, body=msgspec.json.encode(body))
        )


def evicts_by_name(method: str, path: str, body: Body) -> tuple[str, str, Body]:
    if path.endswith("/eviction"):
        body = body | {"deleteOptions": {}}
    return method, path, body


def deletes_pods(method: str, path: str, body: Body) -> tuple[str, str, Body]:
    if path.endswith("/eviction"):
        return "DELETE", path.removesuffix("/eviction"), body["deleteOptions"]
    return method, path, body


def patches_blindly(method: str, path: str, body: Body) -> tuple[str, str, Body]:
    if method == "PATCH" and path.startswith("/api/v1/nodes/"):
        body["metadata"].pop("resourceVersion", None)
    return method, path, body


def clears_labels_of_others(method: str, path: str, body: Body) -> tuple[str, str, Body]:
    if method == "PATCH" and path.startswith("/api/v1/nodes/"):
        body["metadata"].setdefault("labels", {})["topology.example.com/rack"] = "moved"
    return method, path, body


@pytest.mark.timeout(120)
def test_quiet_history_of_a_hard_fault_holds_every_rule() -> None:
    outcome = play(QUIET)

    assert outcome.broken == ()
    assert outcome.reboots == 1
    answers = {each.rule: each.answer for each in outcome.report.verdicts}
    assert {answers[rule] for rule in ("S4", "S5", "S7", "S12", "S24", "L1", "L4")} == {"held"}


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("mutate", "rule"),
    [
        (evicts_by_name, "S4"),
        (deletes_pods, "S8"),
        (patches_blindly, "S5"),
        (clears_labels_of_others, "S12"),
    ],
)
def test_planted_bug_is_found(mutate: Mutation, rule: str) -> None:
    outcome = play(QUIET, wrap=lambda way: Mutated(way, mutate))

    assert rule in outcome.broken


@pytest.mark.timeout(120)
def test_watch_that_hangs_brings_no_stream_of_refused_writes() -> None:
    """A person has changed the node since: every write from the old version is refused until that is seen."""
    hangs = Fault(kind="WatchHangs", from_s=4, to_s=300, on="nodes")
    touched = Event(at_s=20, kind="Cordon", node="gpu-a-01")
    again = Event(at_s=21, kind="Uncordon", node="gpu-a-01")
    outcome = play(replace(QUIET, faults=(hangs,), events=(touched, again, replace(HARD, at_s=22))))

    assert outcome.idle_faults == ()
    assert outcome.broken == ()


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("raised", "at_once"), [(0, False), (1, True)])
@pytest.mark.parametrize(("controller", "broken"), [("remediator", 3), ("reference", 4)])
def test_raised_limits_let_one_node_more_be_out_at_once(
    controller: ControllerName, broken: int, raised: int, at_once: bool
) -> None:
    """One more than its limits say break together: the last one waits until another has been replaced."""
    nodes = ("gpu-a-01", "gpu-b-02", "gpu-c-03", "gpu-c-04")[:broken]
    event = HARD if controller == "remediator" else Event(kind="Condition", detail="KernelDeadlock=True")
    events = tuple(replace(event, at_s=5 + second, node=node) for second, node in enumerate(nodes))
    outcome = play(replace(QUIET, controller=controller, racks=3, per_rack=8, events=events, raised=raised))

    assert outcome.broken == ()
    assert set(outcome.fenced_s) == set(nodes)
    assert (max(outcome.fenced_s.values()) < 30) == at_once


@pytest.mark.timeout(120)
def test_policy_that_is_always_another_one_brings_no_stream_of_records() -> None:
    """Each try to grant creates the record of a run first: without a pause there were forty a second."""
    conflict = Fault(kind="Conflict", from_s=4, to_s=200, on="remediationpolicies")
    created = 0

    def listen(line: bytes) -> None:
        nonlocal created
        created += b'"verb":"create"' in line and b'"resource":"remediations"' in line

    outcome = play(replace(QUIET, racks=2, per_rack=5, faults=(conflict,)), listen=listen)

    assert (outcome.broken, outcome.idle_faults) == ((), ())
    assert 10 < created < 120
    assert "work gpu-a-01: gpu.bus: Returned gpu-a-05" in outcome.ending


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("kind", "on"), [("ErrorBefore", "nodes"), ("TooMany", "eviction")])
def test_server_that_refuses_for_minutes_is_not_asked_all_the_time(kind: FaultKind, on: str) -> None:
    """Each write was tried again twice a second for as long as the server was unwell."""
    unwell = Fault(kind=kind, from_s=4, to_s=300, on=on)
    outcome = play(replace(QUIET, racks=2, per_rack=5, faults=(unwell,)))

    assert (outcome.broken, outcome.idle_faults) == ((), ())
    assert "work gpu-a-01: gpu.bus: Returned gpu-a-05" in outcome.ending


@pytest.mark.timeout(120)
def test_same_seed_is_the_same_history() -> None:
    (schedule,) = campaign.drawn(range(11, 12))
    first, again = play(schedule), play(schedule)

    assert first == again
    assert first.broken == ()


@pytest.mark.timeout(60)
def test_fault_that_never_strikes_is_told() -> None:
    missed = Fault(kind="ErrorAfter", from_s=1, to_s=2, on="no-such-resource")
    struck = Fault(kind="Slow", from_s=0, to_s=30, seconds=1)
    gone = Event(at_s=20, kind="Cordon", node="gpu-z-99")
    outcome = play(Schedule(seed=4, replicas=1, faults=(missed, struck), events=(gone,), calm_s=60))

    assert (outcome.idle_faults, outcome.idle_events) == ((0,), (0,))


def test_kept_history_is_read_back(tmp_path: Path) -> None:
    (schedule,) = campaign.drawn(range(42, 43))
    path = tmp_path / "seed-42.json"
    path.write_bytes(msgspec.json.encode(schedule))

    assert campaign.load(path) == schedule


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "1:1: expected a mapping, found a list"),
        ('{"seed": 1, "colour": 2}', "1:13: colour: unknown key 'colour'"),
        (
            '{"seed": 1, "faults": [{"kind": "Flood", "fromS": 1, "toS": 2}]}',
            r"faults\[0\].kind: 'Flood'",
        ),
        (
            '{"seed": 1, "events": [{"kind": "Xid", "atS": -1}]}',
            r"1:47: events\[0\].atS: -1 is out of",
        ),
    ],
)
def test_file_that_is_no_history_is_refused_by_field(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "history.json"
    path.write_text(text, "utf-8")
    with pytest.raises(InputError, match=said):
        campaign.load(path)


@pytest.mark.parametrize("text", ["", "a", "5..1", "1..", "1..2000000"])
def test_range_of_seeds_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="no range of seeds"):
        campaign.seeds(text)


def replay(path: Path) -> subprocess.CompletedProcess[str]:
    """As people run it: a process of its own, which says what is logged and where."""
    words = [sys.executable, "-m", "remediator", "chaos", "replay", str(path)]
    return subprocess.run(words, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.timeout(120)
def test_command_plays_keeps_and_replays(tmp_path: Path) -> None:
    kept = tmp_path / "history.json"
    kept.write_bytes(msgspec.json.encode(Schedule(seed=3, replicas=1, events=(HARD,), calm_s=3_600)))
    held = replay(kept)
    assert (held.returncode, held.stdout[:12]) == (0, "seed 3: held")

    # Nothing can have ended a second after the fault: the machine is under way.
    kept.write_bytes(msgspec.json.encode(Schedule(seed=3, replicas=1, events=(HARD,), calm_s=1)))
    broken = replay(kept)
    assert broken.returncode == CHECK_FAILED
    assert "seed 3: L1" in broken.stdout


@pytest.mark.parametrize("command", ["chaos run --seeds 1", "sim serve", "demo --no-tty"])
def test_command_without_the_simulators_packages_names_them(command: str) -> None:
    without = "import sys; sys.modules['jsonpatch'] = None; from remediator.cli import main; main()"
    words = [sys.executable, "-c", without, *command.split()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 1
    assert "pip install 'remediator[sim]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.timeout(120)
def test_campaign_on_two_processes_says_what_one_says() -> None:
    schedules = [Schedule(seed=seed, replicas=1, events=(HARD,), calm_s=60) for seed in (1, 2, 3)]
    alone = {each.schedule.seed: each.digest for each in campaign.run(schedules)}
    together = {each.schedule.seed: each.digest for each in campaign.run(schedules, workers=2)}

    assert alone == together
    assert len(set(alone.values())) == 3
