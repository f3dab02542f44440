"""The demo: three incidents on a real control plane, told as they happen, judged from its audit log.

Nothing is scripted but the faults and the people. What is printed is read from the cluster.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from textwrap import wrap
from typing import Any, Final

from remediator.adapters.audit import writes
from remediator.app.telling import granted_words, step_words
from remediator.errors import PermanentError
from remediator.fleet.repairs import (
    JobEnds,
    Reboot,
)
from remediator.testbed.demo_verdict import evictions_without_taint
from remediator.testbed.stage import NODES, USER, Stage
from remediator.testbed.waiting import WaitExpiredError, wait_until
from remediator.testbed.workloads import pending_pods, running_pods

QUARANTINE: Final = "remediator.dev/quarantine"
INCIDENT_S_MAX: Final = 90.0
SLOW_REBOOT_S: Final = 25.0  # long enough to be asked why while the only spare is gone
SAY_WIDTH: Final = 94


class NotAsToldError(PermanentError):
    """An incident did not go as the demo promises. The message names the incident and what is missing."""


class Teller:
    """Prints one line per thing that happens, with the time since the start."""

    def __init__(self, echo: Callable[[str], None]) -> None:
        self._echo = echo
        self._began = time.monotonic()
        self._told: set[tuple[str, str]] = set()

    def first_time(self, node: str, what: str) -> bool:
        """Is this news? Asking makes it known."""
        known = (node, what) in self._told
        self._told.add((node, what))
        return not known

    def title(self, text: str) -> None:
        self._echo("")
        self._echo(f"── {text} " + "─" * max(3, 96 - len(text)))

    def say(self, who: str, text: str) -> None:
        past = time.monotonic() - self._began
        first, *rest = wrap(text, SAY_WIDTH) or [""]
        self._echo(f" {int(past) // 60:02d}:{past % 60:04.1f}  {who:<12} {first}")
        for line in rest:
            self._echo(f"{'':<23}{line}")

    def note(self, text: str) -> None:
        self._echo(f"          {text}")


def play(stage: Stage, echo: Callable[[str], None]) -> bool:
    """Play the three incidents on a started stage. True when the audit log found no harm.

    Raises:
        NotAsToldError: one of them did not happen as it should.
    """
    teller = Teller(echo)
    running = len(running_pods(stage.api))
    stage.start_controller()
    teller.say("cluster", f"64 GPU nodes in 8 racks, 8 of them spares; {running} pods run, train is full")
    incidents: tuple[tuple[str, Callable[[], None]], ...] = (
        ("1  a GPU falls off the bus", lambda: _hard_fault(stage, teller, running)),
        ("2  two faults, one spare", lambda: _scarcity(stage, teller)),
        ("3  a person says no in mid-run", lambda: _people(stage, teller)),
    )
    for title, incident in incidents:
        teller.title(title)
        try:
            incident()
        except (NotAsToldError, WaitExpiredError) as error:
            raise NotAsToldError(f"incident {' '.join(title.split())}: {error}") from error
    return _verdict(stage, teller)


def _hard_fault(stage: Stage, teller: Teller, running: int) -> None:
    teller.say("gpu-b-02", "GPU 5 reports XID 79 on its exporter's page")
    stage.exporters.inject_xid("gpu-b-02", 5, 79)
    _follow(stage, teller, "gpu-b-02", until=("Returned",))
    wait_until(
        lambda: len(running_pods(stage.api)) >= running and not pending_pods(stage.api),
        timeout_s=INCIDENT_S_MAX,
        what="the workload to run in full again",
    )
    teller.say("workload", f"{running} pods run, none is pending")


def _scarcity(stage: Stage, teller: Teller) -> None:
    for node in stage.api.list(NODES):
        name = node["metadata"]["name"]
        spare = node["metadata"]["labels"].get("example.com/pool") == "buffer"
        if spare and name != "gpu-c-08":
            stage.api.merge_patch(f"{NODES}/{name}", {"spec": {"unschedulable": True}})
    stage.patch_playbook("gpu-row-remap", {"limits": {"maxConcurrent": 2}})
    teller.say("operator", "cordons every spare but gpu-c-08, and lets two soft repairs run at once")
    for name in ("gpu-c-01", "gpu-d-01"):
        stage.player.plan(name, Reboot(late_s=SLOW_REBOOT_S))
    for name in ("gpu-c-01", "gpu-d-01"):
        stage.exporters.set_gauge(name, 1, "DCGM_FI_DEV_ROW_REMAP_PENDING", 1)
        teller.say(name, "GPU 1 wants a row remap: a soft fault, it needs a reboot but no hurry")
    first = _follow_first(stage, teller, ("gpu-c-01", "gpu-d-01"))
    other = "gpu-d-01" if first == "gpu-c-01" else "gpu-c-01"
    teller.say("operator", f"$ remediator why {other} --playbook gpu-row-remap")
    why = wait_until(lambda: _stop_line(stage, other), timeout_s=INCIDENT_S_MAX, what=f"{other} to wait")
    if stage.runs(other) or _taint(stage.node(other)) is not None:
        raise NotAsToldError(f"{other} should wait untouched while there is no spare")
    teller.say(other, f"waits untouched: {why}")
    stage.player.plan(other, Reboot())
    teller.say("operator", "gives the spares back")
    for node in stage.api.list(NODES):
        if node["spec"].get("unschedulable") and not _taint(node):
            stage.api.merge_patch(f"{NODES}/{node['metadata']['name']}", {"spec": {"unschedulable": None}})
    for node_name in (other, first):
        _follow(stage, teller, node_name, until=("Returned",))


def _people(stage: Stage, teller: Teller) -> None:
    stage.player.plan("gpu-e-03", job=JobEnds.HANGS)
    stage.exporters.inject_xid("gpu-e-03", 2, 79)
    teller.say("gpu-e-03", "GPU 2 reports XID 79; its reboot Job will hang")
    _follow(stage, teller, "gpu-e-03", until=("Repairing",))
    teller.say("alice", "$ kubectl uncordon gpu-e-03")
    stage.cluster.kubectl("uncordon", "gpu-e-03")
    _follow(stage, teller, "gpu-e-03", until=("Cancelled",))
    node = stage.node("gpu-e-03")
    if _taint(node) is not None or node["spec"].get("unschedulable"):
        raise NotAsToldError("gpu-e-03 should be as it was before, but our taint or a cordon is left")
    teller.say("gpu-e-03", "as it was before: no taint, no cordon")


def _follow_first(stage: Stage, teller: Teller, nodes: tuple[str, ...]) -> str:
    def begun() -> str | None:
        return next((name for name in nodes if stage.runs(name)), None)

    first = wait_until(begun, timeout_s=INCIDENT_S_MAX, what="the first run")
    _follow(stage, teller, first, until=("Repairing", "Verifying", "Returned"))
    return first


def _follow(stage: Stage, teller: Teller, node: str, *, until: tuple[str, ...]) -> None:
    """Tell the newest run's steps as they end, until it is in one of these states.

    Raises:
        NotAsToldError: the run has ended otherwise, or the controller has.
        WaitExpiredError: it is in none of them in time.
    """

    def look() -> bool:
        if not stage.controller_alive:
            raise NotAsToldError(f"the controller has ended:\n{stage.log_tail()}")
        runs = stage.runs(node)
        if not runs:
            return False
        if teller.first_time(node, "granted"):
            teller.say(node, granted_words(runs[-1]))
        status = runs[-1].get("status", {})
        for step in status.get("steps", []):
            if step["state"] != "Intent" and teller.first_time(node, step["id"]):
                teller.say(node, step_words(step))
        state = status.get("state", "")
        if state in until and state not in ("Returned", "Repairing", "Verifying"):
            teller.say(node, f"{state}: {status.get('message', '')}")
        if "finishedAt" in status and state not in until:
            ended = f"the run of {node} ended as {state}, not as {' or '.join(until)}"
            raise NotAsToldError(f"{ended}: {status.get('message', '')}")
        return state in until

    wait_until(look, timeout_s=INCIDENT_S_MAX, what=f"{node} to be {' or '.join(until)}", every_s=0.1)


def _taint(node: dict[str, Any]) -> dict[str, Any] | None:
    return next((taint for taint in node["spec"].get("taints") or [] if taint["key"] == QUARANTINE), None)


def _stop_line(stage: Stage, node: str) -> str:
    """The gate that holds this node's request back, in the words of ``why``."""
    lines = stage.cli("why", node, "--playbook", "gpu-row-remap").stdout.splitlines()
    return next((" ".join(line.split()) for line in lines if "STOP" in line), "")


def _verdict(stage: Stage, teller: Teller) -> bool:
    """Count harm in the API server's own audit log."""
    everything = list(stage.audit.since())
    records = [record for record in writes(everything, users=[USER]) if record.committed]
    teller.title("judged from the API server's audit log, not from its own word")
    evictions = [each for each in records if each.object_ref.subresource == "eviction"]
    patches = [each for each in records if each.object_ref.resource == "nodes"]
    early = evictions_without_taint(everything)
    unsigned = [each for each in patches if "term=" not in each.user_agent]
    left = [node for node in stage.api.list(NODES) if _taint(node) is not None]
    rows = [
        ("writes to nodes", len(patches), ""),
        ("evictions", len(evictions), ""),
        ("evictions from a node without our taint", len(early), "must be 0"),
        ("node writes without our term", len(unsigned), "must be 0"),
        ("nodes still quarantined", len(left), "must be 0"),
    ]
    for name, number, wanted in rows:
        teller.note(f"{name:<40} {number:>4}   {wanted}".rstrip())
    for line in early:
        teller.note(f"evicted without our taint: {line}")
    return not (early or unsigned or left)
