"""Plays what a repair Job does on its node: reads its orders, ends, and reboots the machine.

The pod of such a Job carries the label ``remediator.dev/repair`` and, in its environment,
NODE_NAME and EXPECTED_BOOT_ID. A real one asks the host for a reboot and exits before the host
goes down; so does this one.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Final, Self

from remediator.errors import RemediatorError
from remediator.fleet.node_objects import Object
from remediator.fleet.repairs import JobEnds, Reboot
from remediator.model.keys import LABEL_NODE, LABEL_REPAIR
from remediator.testbed import node_edits
from remediator.testbed.api import Api
from remediator.testbed.hardware import (
    Hardware,
)
from remediator.testbed.node_edits import NODES

LOOK_EVERY_S: Final = 0.2
THREADS: Final = 16
STOP_S_MAX: Final = 90.0
END_S_MAX: Final = 30.0
PODS_MAX: Final = 10_000
ANNOTATION_COMPLETE: Final = "testbed/complete"  # a Job's pod ends so (data/stages.yaml)


class RepairPlayer:
    """A thread that looks for running repair pods and plays each once.

    Args:
        api: an administrator's client.
        hardware: does the reboots and keeps the events.
        namespace: where repair Jobs live.
    """

    def __init__(self, api: Api, hardware: Hardware, *, namespace: str) -> None:
        self._api = api
        self._hardware = hardware
        self._pods = f"/api/v1/namespaces/{namespace}/pods"
        self._plans: dict[str, tuple[Reboot, JobEnds]] = {}
        self._plans_lock = Lock()
        self._played: set[str] = set()
        self._stopping = Event()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="repair")
        self._thread = Thread(target=self._run, name="repair-player", daemon=True)

    def plan(self, node: str, reboot: Reboot | None = None, *, job: JobEnds = JobEnds.SUCCEEDS) -> None:
        """Say how repairs of ``node`` go from now on; without arguments, well."""
        with self._plans_lock:
            self._plans[node] = (reboot or Reboot(), job)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Stop looking, let reboots that began end, join all threads."""
        self._stopping.set()
        self._hardware.stop()
        if self._thread.ident is not None:
            self._thread.join(STOP_S_MAX)
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_EVERY_S):
            try:
                pods = self._api.list(
                    self._pods, label_selector=LABEL_REPAIR, field_selector="status.phase=Running"
                )
            except RemediatorError as error:
                # The API server may be away on purpose; the player looks again.
                self._hardware.note("", "look failed", str(error)[:500])
                continue
            for pod in pods:
                if pod["metadata"]["uid"] not in self._played and len(self._played) < PODS_MAX:
                    self._played.add(pod["metadata"]["uid"])
                    self._pool.submit(self._play, pod)

    def _play(self, pod: Object) -> None:
        node = _node_of(pod)
        try:
            self._play_on(node, pod)
        except RemediatorError as error:
            self._hardware.note(node, "repair failed", str(error)[:500])

    def _play_on(self, node: str, pod: Object) -> None:
        with self._plans_lock:
            reboot, job = self._plans.get(node, (Reboot(), JobEnds.SUCCEEDS))
        name = pod["metadata"]["name"]
        if job is JobEnds.HANGS:
            self._hardware.note(node, "job hangs", name)
            return
        if job is JobEnds.FAILS:
            self._end(pod, JobEnds.FAILS)
            self._hardware.note(node, "job failed", name)
            return
        expected = _environment(pod).get("EXPECTED_BOOT_ID", "")
        current = node_edits.boot_id_of(self._api.get(f"{NODES}/{node}"))
        self._end(pod, JobEnds.SUCCEEDS)
        if expected and expected != current:
            # The machine has rebooted since the Job was written: a second reboot would be harm.
            self._hardware.note(node, "boot id differs", f"{name}: expected {expected!r}, is {current!r}")
            return
        self._hardware.note(node, "reboot requested", name)
        self._hardware.reboot(node, reboot)

    def _end(self, pod: Object, how: JobEnds) -> None:
        path = f"{self._pods}/{pod['metadata']['name']}"
        self._api.merge_patch(path, {"metadata": {"annotations": {ANNOTATION_COMPLETE: how.value}}})
        # A kubelet that is gone could not report the end any more. The Job may also be deleted meanwhile.
        self._api.wait_for(
            self._pods,
            lambda pods: all(
                each["status"].get("phase") == how.value
                for each in pods["items"]
                if each["metadata"]["uid"] == pod["metadata"]["uid"]
            ),
            timeout_s=END_S_MAX,
            what=f"end of pod {pod['metadata']['name']}",
        )


def _environment(pod: Object) -> dict[str, str]:
    rows = pod["spec"]["containers"][0].get("env") or []
    return {row["name"]: row.get("value", "") for row in rows}


def _node_of(pod: Object) -> str:
    named = _environment(pod).get("NODE_NAME") or pod["metadata"]["labels"].get(LABEL_NODE)
    return str(named or pod["spec"].get("nodeName", ""))
