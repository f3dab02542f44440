"""The demo as a stranger runs it: what it tells, and whether the API server's audit log says the same."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from remediator.adapters.audit import AuditRecord, writes
from remediator.errors import RemediatorError
from remediator.testbed import processes
from remediator.testbed.api import Api
from remediator.testbed.audit import AuditLog
from remediator.testbed.demo_verdict import evictions_without_taint
from remediator.testbed.stage import RUNS, USER
from remediator.testbed.waiting import wait_until
from tests.e2e.verdict import OURS, QUARANTINE, adds_quarantine, landed, patch_of

LINE: Final = re.compile(r" \d\d:\d\d\.\d  (?P<who>\S+) +(?P<text>.*)")
POOL: Final = "example.com/pool"
PLAYED_S_MAX: Final = 240.0

pytestmark = pytest.mark.timeout(400)
Start = Callable[[Path], subprocess.Popen[str]]


class Told(NamedTuple):
    who: str
    text: str


@pytest.fixture
def start(control_plane_binaries: object) -> Iterator[Start]:
    """Start the demo as a process; at the end it is asked to stop, as by Ctrl-C, if it still plays."""
    del control_plane_binaries
    with ExitStack() as opened:

        def begin(directory: Path) -> subprocess.Popen[str]:
            command = [sys.executable, "-m", "remediator", "demo", "--real", "--directory", str(directory)]
            playing = opened.enter_context(
                subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            )
            opened.callback(playing.send_signal, signal.SIGINT)  # does nothing once it has ended
            return playing

        yield begin


def test_demo_tells_three_incidents_in_order_and_all_of_it_is_true(start: Start, tmp_path: Path) -> None:
    """The first thing that a stranger sees of us must work at the first try, and must not lie."""
    playing = start(tmp_path / "demo")
    out, error = playing.communicate(timeout=PLAYED_S_MAX)
    assert playing.returncode == 0, f"{out}\n{error}"
    told = [Told(found["who"], found["text"]) for found in map(LINE.fullmatch, out.splitlines()) if found]
    records = list(AuditLog(next((tmp_path / "demo").rglob("audit.log"))).since())

    check_swap(told, records)
    check_scarcity(told, records)
    check_veto(told, records)
    check_verdict(out, records)
    assert processes.leftovers(tmp_path / "demo" / "cluster") == ()


def test_demo_fails_with_the_reason_when_an_incident_does_not_happen(start: Start, tmp_path: Path) -> None:
    """A demo that ends with 0 whatever happens would hide that the product is broken."""
    playing = start(tmp_path / "demo")
    path = tmp_path / "demo" / "cluster" / "kubeconfig" / "admin.kubeconfig"
    wait_until(lambda: path.exists() and path.stat().st_size, timeout_s=60, what="the cluster's kubeconfig")
    api = Api.from_kubeconfig(path)
    run = wait_until(lambda: first_run(api), timeout_s=90, what="the first run", every_s=0.1)
    api.merge_patch(f"{RUNS}/{run}", {"spec": {"cancel": {"by": "eve", "reason": "sabotage"}}})
    api.close()
    out, error = playing.communicate(timeout=PLAYED_S_MAX)

    assert playing.returncode == 1, f"{out}\n{error}"
    assert error.startswith(
        "error: incident 1 a GPU falls off the bus: the run of gpu-b-02 ended as Cancelled"
    )
    assert "Traceback" not in error
    assert "two faults, one spare" not in out
    assert processes.leftovers(tmp_path / "demo" / "cluster") == ()


def first_run(api: Api) -> str:
    """The name of the first run; empty while there is none, or no server yet to ask."""
    try:
        return next((str(run["metadata"]["name"]) for run in api.list(RUNS)), "")
    except RemediatorError:
        return ""


def check_swap(told: list[Told], records: list[AuditRecord]) -> None:
    """Incident 1: told step by step, and each step a write of ours on that node, in that order."""
    lines = in_order(
        told,
        "gpu-b-02",
        r"GPU 5 reports XID 79",
        r"run (?P<run>\S+) granted: gpu-off-bus, spare (?P<spare>\S+)",
        r"tainted and cordoned, in one patch",
        r"a spare has joined the pool: (?P<spare>\S+)",
        r"Events, conditions and page lines copied",
        r"empty: (?P<pods>\d+) pods? evicted",
        r"taken out of its pool",
        r"rebooted: bootID (?P<before>\w+) -> (?P<after>\w+)",
        r"good signals for",
        r"back, as a spare on probation: buffer",
    )
    assert Told("workload", "182 pods run, none is pending") in told
    granted, pods, boots = lines[1], int(lines[5]["pods"]), lines[7]
    spec = birth(records, granted["run"])["spec"]
    assert (spec["node"]["name"], spec["spare"]["name"]) == ("gpu-b-02", granted["spare"])
    assert lines[3]["spare"] == granted["spare"]
    assert spec["bootId"].startswith(boots["before"])
    assert boots["before"] != boots["after"]

    order = [
        position(records, lambda each: is_birth(each, granted["run"])),
        position(records, lambda each: of_node(each, "gpu-b-02") and cordons(each) and adds_quarantine(each)),
        position(records, lambda each: of_node(each, granted["spare"]) and moves_to(each, "train")),
        position(records, lambda each: of_node(each, "gpu-b-02") and moves_to(each, None)),
        position(records, lambda each: is_job(each, granted["run"])),
        position(records, lambda each: of_node(each, "gpu-b-02") and moves_to(each, "buffer")),
    ]
    assert order == sorted(order)
    evictions = [number for number, each in enumerate(records) if is_eviction(each)]
    assert len([number for number in evictions if order[1] < number < order[3]]) == pods > 0


def check_scarcity(told: list[Told], records: list[AuditRecord]) -> None:
    """Incident 2: one spare serves one, and the other is not touched before there is another spare."""
    asked = next(each for each in told if each.text.startswith("$ remediator why"))
    other = asked.text.split()[3]
    first = "gpu-c-01" if other == "gpu-d-01" else "gpu-d-01"
    lucky = in_order(
        told,
        first,
        r"GPU 1 wants a row remap",
        r"run (?P<run>\S+) granted: gpu-row-remap, spare gpu-c-08",
        r"a spare has joined the pool: gpu-c-08",
        r"tainted and cordoned, in one patch",
        r"back, as a spare on probation: buffer",
    )
    waited = in_order(
        told,
        other,
        r"GPU 1 wants a row remap",
        r"waits untouched: .*NoSpareReady",
        r"run (?P<run>\S+) granted: gpu-row-remap, spare (?P<spare>\S+)",
        r"tainted and cordoned, in one patch",
        r"back, as a spare on probation: buffer",
    )
    places = [
        told.index(next(each for each in told if each.text.startswith(text)))
        for text in ("cordons every spare", "$ remediator why", "waits untouched", "gives the spares back")
    ]
    assert places == sorted(places)

    given_back = position(records, lambda each: uncordons_spare(each))
    granted = position(records, lambda each: is_birth(each, waited[2]["run"]))
    touched = position(records, lambda each: of_node(each, other))
    assert given_back < granted < touched
    assert birth(records, waited[2]["run"])["spec"]["firstSeen"] < spoken_at(records[given_back])
    assert waited[2]["spare"] != "gpu-c-08"
    assert birth(records, lucky[1]["run"])["spec"]["spare"]["name"] == "gpu-c-08"


def check_veto(told: list[Told], records: list[AuditRecord]) -> None:
    """Incident 3: after the uncordon nothing happens to the node but that our marks go."""
    in_order(
        told,
        "gpu-e-03",
        r"GPU 2 reports XID 79; its reboot Job will hang",
        r"run (?P<run>\S+) granted: gpu-off-bus, spare",
        r"tainted and cordoned, in one patch",
        r"Cancelled: somebody uncordoned the node",
        r"as it was before: no taint, no cordon",
    )
    assert Told("alice", "$ kubectl uncordon gpu-e-03") in told
    no = position(records, lambda each: each.username != USER and uncordons(each, "gpu-e-03"))
    after = [each for each in landed(records[no:]) if each.username == USER]
    restored = [patch_of(each) for each in after if of_node(each, "gpu-e-03")]

    assert [each for each in after if is_eviction(each)] == []
    assert restored, "our taint has to go"
    assert restored[-1]["metadata"]["labels"].get(POOL) == "train", "detached before, it is a member again"
    keys = [taint["key"] for taint in restored[-1]["spec"]["taints"]]
    assert QUARANTINE not in keys
    assert "unschedulable" not in restored[-1]["spec"]


def check_verdict(out: str, records: list[AuditRecord]) -> None:
    """The numbers at the end are counted once more, from the same log."""
    ours = landed(writes(records, users=[USER]))
    rows = dict(re.findall(r"^ {10}(\S.*?) {2,}(\d+)", out, re.MULTILINE))

    assert int(rows["writes to nodes"]) == sum(each.object_ref.resource == "nodes" for each in ours)
    assert int(rows["evictions"]) == sum(is_eviction(each) for each in ours) > 0
    assert int(rows["evictions from a node without our taint"]) == len(evictions_without_taint(records)) == 0
    assert (rows["node writes without our term"], rows["nodes still quarantined"]) == ("0", "0")


def in_order(told: list[Told], who: str, *patterns: str) -> list[re.Match[str]]:
    """The lines about one node that match, each after the one before it."""
    rest = iter([each.text for each in told if each.who == who])
    found = []
    for pattern in patterns:
        hit = next((hit for text in rest if (hit := re.match(pattern, text))), None)
        assert hit is not None, f"{who}: no line {pattern!r} in its place among {told}"
        found.append(hit)
    return found


def position(records: list[AuditRecord], wanted: Callable[[AuditRecord], bool]) -> int:
    """Where in the log the first such write that landed stands."""
    return next(
        number
        for number, record in enumerate(records)
        if record.committed and record.verb in ("create", "patch") and wanted(record)
    )


def of_node(record: AuditRecord, node: str) -> bool:
    """A write of ours to this Node."""
    where = record.object_ref
    return record.username == USER and where.resource == "nodes" and where.name == node


def cordons(record: AuditRecord) -> bool:
    return patch_of(record).get("spec", {}).get("unschedulable") is True


def moves_to(record: AuditRecord, pool: str | None) -> bool:
    labels = patch_of(record).get("metadata", {}).get("labels") or {}
    return POOL in labels and labels[POOL] == pool


def is_eviction(record: AuditRecord) -> bool:
    return record.committed and record.username == USER and record.object_ref.subresource == "eviction"


def is_job(record: AuditRecord, run: str) -> bool:
    labels = patch_of(record).get("metadata", {}).get("labels") or {}
    return record.object_ref.resource == "jobs" and labels.get(f"{OURS}repair") == run


def is_birth(record: AuditRecord, run: str) -> bool:
    where = record.object_ref
    return record.verb == "create" and where.resource == "remediations" and where.name == run


def birth(records: list[AuditRecord], run: str) -> dict[str, Any]:
    return patch_of(records[position(records, lambda each: is_birth(each, run))])


def uncordons(record: AuditRecord, node: str) -> bool:
    where, spec = record.object_ref, patch_of(record).get("spec") or {}
    return where.resource == "nodes" and where.name == node and spec.get("unschedulable", 1) in (None, False)


def uncordons_spare(record: AuditRecord) -> bool:
    name = record.object_ref.name
    return record.username != USER and name.endswith("-08") and uncordons(record, name)


def spoken_at(record: AuditRecord) -> str:
    """When the server heard of it, spelled as our objects spell times."""
    return record.received_at.isoformat().replace("+00:00", "Z")
