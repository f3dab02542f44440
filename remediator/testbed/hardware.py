"""Plays the hardware: reboots, silence, other machines under old names, and what exporters say to it.

Direct methods do one thing to one node and return when it has happened on the API server. The
player of repair Jobs (repair_player.py) calls ``reboot``. Everything that happens is kept as
events, so that a test can say what the hardware did and when.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from threading import Condition, Event, RLock
from typing import Final

from remediator.errors import PermanentError
from remediator.fleet.exporter_state import ExporterStates
from remediator.fleet.machines import machine_for, next_boot_id
from remediator.fleet.node_objects import NodeSpec, node_object
from remediator.fleet.repairs import RETURNED_SICK_TEXT, Reboot, Returns
from remediator.testbed import node_edits
from remediator.testbed.api import Api
from remediator.testbed.node_edits import NODES
from remediator.testbed.waiting import WaitExpiredError, monotonic

EVENTS_MAX: Final = 10_000
READY_S_MAX: Final = 60.0
REBOOT_TEXT: Final = "node is shutting down"


@dataclass(frozen=True, slots=True)
class HardwareEvent:
    """One thing that happened. ``at_s`` is monotonic seconds, ``detail`` for people."""

    at_s: float
    node: str
    what: str
    detail: str = ""


class Hardware:
    """The machines of one fleet. Safe to use from several threads; one reboot per node at a time.

    Args:
        api: an administrator's client.
        specs: the fleet as it was applied.
        exporters: what the exporters show; None where a test has none.
    """

    def __init__(
        self, api: Api, specs: Iterable[NodeSpec], *, exporters: ExporterStates | None = None
    ) -> None:
        self._api = api
        self._exporters = exporters
        self._specs = {spec.name: spec for spec in specs}
        self._busy = {name: RLock() for name in self._specs}
        self._events: deque[HardwareEvent] = deque(maxlen=EVENTS_MAX)
        self._news = Condition()
        self._stopping = Event()

    # What happened.

    @property
    def events(self) -> tuple[HardwareEvent, ...]:
        """What happened so far, oldest first; at most ``EVENTS_MAX``."""
        with self._news:
            return tuple(self._events)

    def note(self, node: str, what: str, detail: str = "") -> None:
        """Add one event."""
        with self._news:
            self._events.append(HardwareEvent(monotonic(), node, what, detail))
            self._news.notify_all()

    def wait_for(self, node: str, what: str, *, timeout_s: float, count: int = 1) -> HardwareEvent:
        """Wait until ``what`` has happened to ``node`` ``count`` times; return the last of these.

        Raises:
            WaitExpiredError: it did not; names what happened instead.
        """

        def found() -> list[HardwareEvent]:
            return [event for event in self._events if (event.node, event.what) == (node, what)]

        with self._news:
            if not self._news.wait_for(lambda: len(found()) >= count, timeout_s):
                instead = [event.what for event in self._events if event.node == node][-10:]
                raise WaitExpiredError(
                    f"{node}: {what!r} did not happen {count} times within {timeout_s:g} s: {instead}"
                )
            return found()[count - 1]

    # What can be done to a node.

    def spec(self, node: str) -> NodeSpec:
        """The node as it is now, with the machine that bears its name and that machine's last boot."""
        found = self._specs.get(node)
        if found is None:
            raise PermanentError(f"no node {node!r} in this fleet of {len(self._specs)}")
        return found

    def reboot(self, node: str, how: Reboot | None = None) -> None:
        """Reboot a node and wait until it is back in the way ``how`` says.

        Raises:
            WaitExpiredError: it should have come back Ready and did not.
        """
        plan = how or Reboot()
        self.spec(node)
        with self._busy[node]:
            self._stopping.wait(plan.late_s)
            if plan.times == 0:
                self.note(node, "reboot ignored")
            for _ in range(plan.times):
                if self._stopping.is_set():
                    self.note(node, "reboot dropped", "the hardware was stopped")
                    return
                self._reboot_once(node, plan)

    def go_silent(self, node: str, *, exporter_too: bool = True) -> None:
        """Stop the kubelet: no lease, no status. Node lifecycle finds out after its grace period."""
        self.spec(node)
        page = self._page(node)
        if page is not None and exporter_too:
            page.down(node)
        node_edits.set_kubelet(self._api, node, alive=False)
        self.note(node, "went silent")

    def come_back(self, node: str, *, timeout_s: float = READY_S_MAX) -> None:
        """Start the kubelet again, healthy, on the same boot; wait until the node is Ready and untainted.

        Pods that were to end meanwhile end now: kwok does not look at them again by itself.
        """
        self.spec(node)
        node_edits.set_not_ready(self._api, node, None)
        node_edits.set_kubelet(self._api, node, alive=True)
        page = self._page(node)
        if page is not None:
            page.up(node)
        self._wait_settled(node, timeout_s)
        self._remove_pods(node, deleted_only=True)

    def go_not_ready(self, node: str, text: str = RETURNED_SICK_TEXT) -> None:
        """Let the kubelet live and report Ready=False until ``come_back``."""
        self.spec(node)
        node_edits.set_not_ready(self._api, node, text)
        self._api.wait_for(
            f"{NODES}/{node}",
            lambda found: node_edits.status_of(found, "Ready") == "False",
            timeout_s=READY_S_MAX,
        )
        self.note(node, "not ready", text)

    def set_condition(self, node: str, type_: str, status: str, reason: str, message: str = "") -> None:
        """Set a condition as a problem detector does; heartbeats leave it alone."""
        self.spec(node)
        node_edits.set_condition(self._api, node, type_, status, reason, message)
        self.note(node, "condition", f"{type_}={status} {reason}")

    def lose_gpu(self, node: str, gpu: int) -> None:
        """Take one GPU off the bus: its lines vanish, and the device plugin offers one less."""
        spec = self.spec(node)
        left = spec.gpus - 1
        if self._exporters is not None:
            self._exporters.lose_gpu(node, gpu)
            left = sum(not each.lost for each in self._exporters.state(node).gpus)
        node_edits.set_allocatable_gpus(self._api, node, left)
        self.note(node, "gpu lost", str(gpu))

    def delete_node(self, node: str, *, keep_pods: bool = True) -> None:
        """Delete the Node object; the machine's kubelet does not register it again."""
        spec = self.spec(node)
        found = self._api.get(f"{NODES}/{node}")
        # The machine lives on: if it returns unchanged, it is still in this boot.
        boot_id = node_edits.boot_id_of(found)
        self._specs[node] = replace(spec, machine=replace(spec.machine, boot_id=boot_id))
        self._api.delete(f"{NODES}/{node}")
        self._api.wait_gone(f"{NODES}/{node}", timeout_s=READY_S_MAX, uid=found["metadata"]["uid"])
        if not keep_pods:
            self._remove_pods(node)
        self.note(node, "node deleted")

    def recreate_node(self, node: str, *, same_machine: bool = True, keep_pods: bool = True) -> NodeSpec:
        """Register a Node under this name anew, with a new uid and without foreign marks.

        Deletes the Node first if it is there. ``same_machine`` False puts another machine under the
        name: another system UUID, asset tag and boot, other GPUs. With ``keep_pods`` the pods that
        were bound to the name stay bound to it.
        """
        if self._api.find(f"{NODES}/{node}") is not None:
            self.delete_node(node, keep_pods=keep_pods)
        elif not keep_pods:
            self._remove_pods(node)
        spec = self.spec(node)
        if not same_machine:
            machine = machine_for(node, chassis=spec.machine.chassis + 1, gpus=spec.gpus)
            spec = self._specs[node] = replace(spec, machine=machine)
            if self._exporters is not None:
                self._exporters.replace_machine(node, machine)
        self._api.create(NODES, node_object(spec, at=node_edits.timestamp()))
        self.note(node, "node registered", spec.machine.system_uuid)
        self._wait_settled(node, READY_S_MAX)
        return spec

    def stop(self) -> None:
        """End every pause; reboots that wait do not begin any more."""
        self._stopping.set()

    def _reboot_once(self, node: str, plan: Reboot) -> None:
        self.note(node, "reboot began")
        page = self._page(node)
        if page is not None:
            page.down(node)
        # IMPORTANT: silent first. A kubelet that still lives would report Ready again at once.
        node_edits.set_kubelet(self._api, node, alive=False)
        node_edits.set_condition(self._api, node, "Ready", "False", "KubeletNotReady", REBOOT_TEXT)
        self._stopping.wait(plan.off_s)
        if plan.returns is Returns.SILENT:
            self.note(node, "did not return")
            return
        if plan.new_boot_id:
            current = node_edits.boot_id_of(self._api.get(f"{NODES}/{node}"))
            node_edits.set_boot_id(self._api, node, next_boot_id(current))
        if not plan.fault_persists:
            node_edits.set_allocatable_gpus(self._api, node, None)
        if page is not None:
            page.reboot(node, fault_persists=plan.fault_persists)
            page.up(node)
        sick = plan.returns is Returns.NOT_READY
        node_edits.set_not_ready(self._api, node, RETURNED_SICK_TEXT if sick else None)
        node_edits.set_kubelet(self._api, node, alive=True)
        if sick:
            self.note(node, "returned not ready")
        else:
            self._wait_settled(node, READY_S_MAX)

    def _page(self, node: str) -> ExporterStates | None:
        """The exporters, if this node has one; a system node has no GPUs and none."""
        return self._exporters if self._exporters is not None and node in self._exporters.nodes else None

    def _wait_settled(self, node: str, timeout_s: float) -> None:
        self._api.wait_for(
            f"{NODES}/{node}", node_edits.is_settled, timeout_s=timeout_s, what=f"return of {node}"
        )
        self.note(node, "node ready")

    def _remove_pods(self, node: str, *, deleted_only: bool = False) -> None:
        for pod in self._api.list("/api/v1/pods", field_selector=f"spec.nodeName={node}"):
            if deleted_only and "deletionTimestamp" not in pod["metadata"]:
                continue
            path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"
            self._api.remove(path, grace_s=0)
