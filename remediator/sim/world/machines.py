"""The machines under the nodes: reboots that go well or badly, silence, lost GPUs, and repairs by Jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from remediator.fleet.exporter_state import ExporterStates
from remediator.fleet.machines import machine_for, next_boot_id
from remediator.fleet.node_objects import NodeSpec, condition, node_object
from remediator.fleet.repairs import RETURNED_SICK_TEXT, JobEnds, Reboot, Returns
from remediator.ports import Clock
from remediator.sim.objects import wire_time
from remediator.sim.patches import STRATEGIC
from remediator.sim.refusal import Json
from remediator.sim.server import Server
from remediator.sim.store import Change
from remediator.sim.world.kubelets import Kubelets
from remediator.sim.world.lifecycle import NodeLifecycle
from remediator.sim.world.part import Part, key_of

NODES: Final = "/api/v1/nodes"
JOB_S: Final = 0.5
REBOOT_TEXT: Final = "the node is rebooting"
GPU: Final = "nvidia.com/gpu"


class Machines(Part):
    """All machines of a fleet.

    Args:
        repair_label: on the pods of repair Jobs; the variables of these name node and boot.
    """

    def __init__(
        self, server: Server, clock: Clock, kubelets: Kubelets, lifecycle: NodeLifecycle,
        exporters: ExporterStates, specs: Iterable[NodeSpec], *, repair_label: str,
    ) -> None:  # fmt: skip
        super().__init__(server, clock, user="system:node", delay_s=JOB_S)
        self.exporters = exporters
        self._kubelets = kubelets
        self._lifecycle = lifecycle
        self._specs = {spec.name: spec for spec in specs}
        self._label = repair_label
        self._plans: dict[str, tuple[Reboot, JobEnds]] = {}
        self._problems: dict[str, set[str]] = {}  # what a problem detector has said of a node
        self._tasks: set[asyncio.Task[None]] = set()
        self._pods = self.listen("", "pods", self._repairs)
        self.reboots: list[tuple[float, str]] = []  # when which machine went down

    def register(self) -> None:
        """Let every kubelet register its Node, and become Ready."""
        for spec in self._specs.values():
            self._register(spec)

    def add(self, spec: NodeSpec) -> None:
        """One more machine, whose kubelet registers its Node now.

        Raises:
            ValueError: there is one of that name.
        """
        if spec.name in self._specs:
            raise ValueError(f"{spec.name} is there already")
        self._specs[spec.name] = spec
        if spec.gpus:
            self.exporters.add(spec.machine)
        self._register(spec)

    def _register(self, spec: NodeSpec) -> None:
        self.actor.send("POST", NODES, node_object(spec, at=wire_time(self.clock.now())))
        self._say_ready(spec.name)

    @property
    def _at(self) -> str:
        return wire_time(self.clock.now())

    # -- repairs by Jobs

    def plan(self, node: str, reboot: Reboot | None = None, *, job: JobEnds = JobEnds.SUCCEEDS) -> None:
        """Say how repairs of ``node`` go from now on; without arguments, well."""
        self._plans[node] = (reboot or Reboot(), job)

    def _repairs(self, change: Change) -> Iterable[str]:
        pod = change.entry.obj
        mine = self._label in (pod["metadata"].get("labels") or {})
        before = change.before.obj["status"].get("phase") if change.before is not None else ""
        starts = pod["status"].get("phase") == "Running" and before != "Running"
        return (key_of(pod),) if mine and starts and change.type != "DELETED" else ()

    def work(self, key: str) -> None:
        """Play the repair that a pod asks for."""
        namespace, name = key.split("/")
        pod = self._pods.get((namespace, name))
        if pod is None:
            return
        rows = pod.obj["spec"]["containers"][0].get("env") or ()
        asked = {row["name"]: row.get("value", "") for row in rows}
        node = asked.get("NODE_NAME") or pod.obj["spec"]["nodeName"]
        reboot, ends = self._plans.get(node, (Reboot(), JobEnds.SUCCEEDS))
        if ends is JobEnds.HANGS:
            return
        self._kubelets.finish(key, ends.value)
        expected = asked.get("EXPECTED_BOOT_ID", "")
        # A machine that has rebooted since the Job was written: a second reboot would be harm.
        if ends is JobEnds.SUCCEEDS and (not expected or expected == self._boot_id(node)):
            self.reboot(node, reboot)

    def _boot_id(self, node: str) -> str:
        found = self.shelf("", "nodes").get(("", node))
        return str(found.obj["status"]["nodeInfo"]["bootID"]) if found is not None else ""

    # -- what happens to a machine

    def reboot(self, node: str, how: Reboot | None = None) -> None:
        """Reboot a machine as ``how`` says; it goes on by itself."""
        task = asyncio.get_running_loop().create_task(self._reboot(node, how or Reboot()))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reboot(self, node: str, plan: Reboot) -> None:
        await self.clock.sleep(plan.late_s)
        for _ in range(plan.times):
            self.reboots.append((self.clock.monotonic(), node))
            self._page(node, self.exporters.down)
            self._say(node, condition("Ready", "False", "KubeletNotReady", REBOOT_TEXT, self._at))
            self._kubelets.fall_silent(node)
            self._lifecycle.watch_silence(node)
            await self.clock.sleep(plan.off_s)
            if plan.returns is Returns.SILENT:
                return
            self._boot(node, plan)

    def _boot(self, node: str, plan: Reboot) -> None:
        if plan.new_boot_id:
            info = {"nodeInfo": {"bootID": next_boot_id(self._boot_id(node))}}
            self.actor.send("PATCH", f"{NODES}/{node}/status", {"status": info}, content_type=STRATEGIC)
        if not plan.fault_persists:
            self._offer_gpus(node, None)
            self.clear_conditions(node, "Rebooted")
        self._page(node, lambda name: self.exporters.reboot(name, fault_persists=plan.fault_persists))
        self._page(node, self.exporters.up)
        self._kubelets.come_back(node)
        if plan.returns is Returns.NOT_READY:
            self._say(node, condition("Ready", "False", "KubeletNotReady", RETURNED_SICK_TEXT, self._at))
        else:
            self._say_ready(node)

    def go_silent(self, node: str, *, exporter_too: bool = True) -> None:
        """Stop the kubelet: no lease, no status. Node lifecycle finds out after its grace period."""
        if exporter_too:
            self._page(node, self.exporters.down)
        self._kubelets.fall_silent(node)
        self._lifecycle.watch_silence(node)

    def come_back(self, node: str) -> None:
        """Start the kubelet again, healthy, on the same boot."""
        self._page(node, self.exporters.up)
        self._kubelets.come_back(node)
        self._say_ready(node)

    def set_condition(self, node: str, type_: str, status: str, reason: str, message: str = "") -> None:
        """Set a condition as a problem detector does; a good reboot ends what it says."""
        self._say(node, condition(type_, status, reason, message, self._at))
        self._problems.setdefault(node, set()).add(type_)

    def clear_conditions(self, node: str, reason: str) -> bool:
        """Take back all that a problem detector has said of a node. False: it had said nothing."""
        said = sorted(self._problems.pop(node, ()))
        for type_ in said:
            self._say(node, condition(type_, "False", reason, "", self._at))
        return bool(said)

    def lose_gpu(self, node: str, gpu: int) -> None:
        """Take one GPU off the bus: its lines vanish, and the device plugin offers one less."""
        self.exporters.lose_gpu(node, gpu)
        self._offer_gpus(node, sum(not each.lost for each in self.exporters.state(node).gpus))

    def delete_node(self, node: str) -> None:
        """Delete the Node object, as an autoscaler does."""
        boot_id = self._boot_id(node)
        spec = self._specs[node]
        self._specs[node] = replace(
            spec, machine=replace(spec.machine, boot_id=boot_id or spec.machine.boot_id)
        )
        self.actor.send("DELETE", f"{NODES}/{node}")

    def recreate_node(self, node: str, *, same_machine: bool = True) -> None:
        """Register a Node under this name anew; ``same_machine`` False puts another machine there."""
        self.delete_node(node)
        if not same_machine:
            spec = self._specs[node]
            machine = machine_for(node, chassis=spec.machine.chassis + 1, gpus=spec.gpus)
            self._specs[node] = replace(spec, machine=machine)
            self.exporters.replace_machine(node, machine)
        self._kubelets.come_back(node)
        self._register(self._specs[node])

    def _page(self, node: str, change: Callable[[str], object]) -> None:
        if node in self.exporters.nodes:  # a system node has no GPUs, and no page
            change(node)

    def _offer_gpus(self, node: str, count: int | None) -> None:
        found = self.shelf("", "nodes").get(("", node))
        capacity = (found.obj["status"].get("capacity") or {}).get(GPU) if found is not None else None
        if capacity is not None:
            offered = {"allocatable": {GPU: capacity if count is None else str(count)}}
            self.actor.send("PATCH", f"{NODES}/{node}/status", {"status": offered}, content_type=STRATEGIC)

    def _say_ready(self, node: str) -> None:
        self._say(
            node, condition("Ready", "True", "KubeletReady", "kubelet is posting ready status", self._at)
        )

    def _say(self, node: str, fresh: Json) -> None:
        """Report one condition; its transition time moves only if the status changes."""
        found = self.shelf("", "nodes").get(("", node))
        for known in (found.obj["status"].get("conditions") or ()) if found is not None else ():
            if known["type"] == fresh["type"] and known["status"] == fresh["status"]:
                fresh["lastTransitionTime"] = known.get("lastTransitionTime", fresh["lastTransitionTime"])
        status = {"status": {"conditions": [fresh]}}
        self.actor.send("PATCH", f"{NODES}/{node}/status", status, content_type=STRATEGIC)

    def close(self) -> None:
        """End every reboot that is under way."""
        super().close()
        for task in self._tasks:
            task.cancel()
