"""What every fake exporter shows right now, and the ways to break it. Thread-safe; no sockets.

Tests, the hardware player and the control endpoint call the methods; the server asks for
``answer``. Texts are rendered on change only, so a scrape costs one copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from threading import RLock

from remediator.errors import PermanentError
from remediator.fleet.dcgm_fields import BY_NAME, FIELDS, Reset
from remediator.fleet.machines import Machine, gpu_uuids, machine_for
from remediator.fleet.pages import (
    Answer,
    GpuState,
    PageState,
    PodLabels,
    Rendered,
    Trouble,
    a_training_pod,
    malformed,
    page_for,
    render,
)

SLOW_S_MAX = 600.0


@dataclass(slots=True)
class _Exporter:
    machine: Machine
    state: PageState
    booted_at: float
    boards: int = 0  # how often the GPUs were swapped
    trouble: Trouble = Trouble.NONE
    slow_s: float = 0.0
    frozen: bytes | None = None
    rendered: Rendered | None = None

    def show(self, state: PageState) -> None:
        self.state = state
        self.rendered = None

    def text(self, now: float) -> bytes:
        if self.frozen is not None:
            return self.frozen
        if self.rendered is None:
            self.rendered = render(self.state)
        return self.rendered.text(now - self.booted_at)


class ExporterStates:
    """The state of one exporter per machine.

    Every method that names a node raises ``PermanentError`` for one that has no exporter; those
    that name a GPU do so for an index which the machine does not have.

    Args:
        machines: one per node; names must differ.
        clock: monotonic seconds, for the counters that grow by themselves.
        pod: the pod that holds all GPUs at first, by node; None for idle GPUs.
    """

    def __init__(
        self,
        machines: Iterable[Machine],
        *,
        clock: Callable[[], float],
        pod: Callable[[str], PodLabels | None] = a_training_pod,
    ) -> None:
        self._clock = clock
        self._pod = pod
        self._lock = RLock()
        self._on_reach: Callable[[str, bool], None] | None = None
        self._exporters: dict[str, _Exporter] = {}
        for machine in machines:
            self.add(machine)

    def add(self, machine: Machine) -> None:
        """One more machine, whose exporter starts now."""
        page = page_for(machine, pod=self._pod(machine.node))
        with self._lock:
            self._exporters[machine.node] = _Exporter(machine, page, booted_at=self._clock())

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of all nodes, in the order they were given."""
        return tuple(self._exporters)

    def on_reach(self, hook: Callable[[str, bool], None] | None) -> None:
        """Call ``hook(node, up)`` whenever an exporter goes down or comes up. One hook at a time."""
        self._on_reach = hook

    def machine(self, node: str) -> Machine:
        """The machine under this name now, with the GPUs that are in it now."""
        with self._lock:
            exporter = self._exporter(node)
            return replace(exporter.machine, gpu_uuids=tuple(gpu.uuid for gpu in exporter.state.gpus))

    def state(self, node: str) -> PageState:
        with self._lock:
            return self._exporter(node).state

    def trouble(self, node: str) -> Trouble:
        with self._lock:
            return self._exporter(node).trouble

    def answer(self, node: str) -> Answer:
        """What a scrape of ``node`` gets now."""
        with self._lock:
            exporter = self._exporter(node)
            body = exporter.text(self._clock())
            if exporter.trouble is Trouble.MALFORMED:
                body = malformed(body)
            return Answer(exporter.trouble, exporter.slow_s, body)

    # Faults of the hardware.

    def inject_xid(self, node: str, gpu: int, code: int) -> None:
        """Show ``code`` as the last XID of one GPU. Stays until a restart, a reboot or another code."""
        if not 0 <= code <= 999:
            raise PermanentError(f"{node}: XID {code} is not between 0 and 999")
        self._with_gpu(node, gpu, xid=code)

    def set_gauge(self, node: str, gpu: int, field_name: str, value: float | str) -> None:
        """Show ``value`` for one field of one GPU; text goes out as it is. Old and new names are known."""
        known = BY_NAME.get(field_name)
        if known is None:
            raise PermanentError(f"{node}: no field {field_name!r}; the page has {len(BY_NAME)} names")
        with self._lock:
            values = {**self._gpu(node, gpu).values, known.name: value}
            self._with_gpu(node, gpu, values=values)

    def lose_gpu(self, node: str, gpu: int) -> None:
        """Drop all lines of one GPU, as after it fell off the bus."""
        self._with_gpu(node, gpu, lost=True)

    def replace_gpus(self, node: str) -> None:
        """Put new boards in: new UUIDs, no error, nothing remembered."""
        with self._lock:
            exporter = self._exporter(node)
            exporter.boards += 1
            uuids = gpu_uuids(
                exporter.machine.system_uuid, gpus=len(exporter.state.gpus), boards=exporter.boards
            )
            gpus = tuple(
                replace(gpu, uuid=uuid, values={}, xid=0, lost=False)
                for gpu, uuid in zip(exporter.state.gpus, uuids, strict=True)
            )
            exporter.show(replace(exporter.state, gpus=gpus))

    def replace_machine(self, node: str, machine: Machine | None = None) -> Machine:
        """Put ``machine`` (None: the next chassis) under the name; return it. Site settings stay."""
        with self._lock:
            old = self._exporter(node)
            if machine is None:
                machine = machine_for(node, chassis=old.machine.chassis + 1, gpus=len(old.state.gpus))
            pod = old.state.gpus[0].pod if old.state.gpus else None
            state = replace(old.state, gpus=page_for(machine, pod=pod).gpus, counters_reset=False)
            self._exporters[node] = _Exporter(machine, state, self._clock(), trouble=old.trouble)
            return machine

    def reboot(self, node: str, *, fault_persists: bool = False) -> None:
        """What a reboot does to a page: no XID, volatile errors gone, lost GPUs back.

        With ``fault_persists`` the values that were set stay (a remap that is pending again) and
        lost GPUs stay lost; the XID gauge starts at 0 all the same, since it is only a memory.
        """
        with self._lock:
            exporter = self._exporter(node)
            gpus = tuple(_rebooted(gpu, fault_persists=fault_persists) for gpu in exporter.state.gpus)
            exporter.booted_at = self._clock()
            exporter.show(replace(exporter.state, gpus=gpus, counters_reset=True))

    # Faults of the exporter and of the way to it.

    def restart_exporter(self, node: str) -> None:
        """Start the exporter process again: XID gauges and its own counters at 0, the fault unchanged."""
        with self._lock:
            exporter = self._exporter(node)
            gpus = tuple(replace(gpu, xid=0, values=_kept(gpu, Reset.RESTART)) for gpu in exporter.state.gpus)
            exporter.show(replace(exporter.state, gpus=gpus, counters_reset=True))

    def stale(self, node: str) -> None:
        """Freeze the page as it is: later changes do not show, counters stand still."""
        with self._lock:
            exporter = self._exporter(node)
            exporter.frozen = exporter.text(self._clock())

    def slow(self, node: str, seconds: float) -> None:
        """Answer ``seconds`` later; 0 ends that."""
        if not 0 <= seconds <= SLOW_S_MAX:
            raise PermanentError(f"{node}: slow by {seconds} s; 0 to {SLOW_S_MAX:.0f} s are possible")
        with self._lock:
            self._exporter(node).slow_s = seconds

    def truncate(self, node: str) -> None:
        self._set_trouble(node, Trouble.TRUNCATED)

    def malformed(self, node: str) -> None:
        self._set_trouble(node, Trouble.MALFORMED)

    def html(self, node: str) -> None:
        self._set_trouble(node, Trouble.HTML)

    def binary(self, node: str) -> None:
        self._set_trouble(node, Trouble.BINARY)

    def endless(self, node: str) -> None:
        self._set_trouble(node, Trouble.ENDLESS)

    def empty(self, node: str) -> None:
        self._set_trouble(node, Trouble.EMPTY)

    def down(self, node: str) -> None:
        self._set_trouble(node, Trouble.DOWN)

    def up(self, node: str) -> None:
        """End ``down``, and no other trouble."""
        with self._lock:
            is_down = self._exporter(node).trouble is Trouble.DOWN
        if is_down:
            self._set_trouble(node, Trouble.NONE)

    def mend(self, node: str) -> None:
        """End every trouble of the exporter and of the way to it; the hardware stays as it is."""
        with self._lock:
            exporter = self._exporter(node)
            exporter.slow_s = 0.0
            exporter.frozen = None
            self._set_trouble(node, Trouble.NONE)

    def heal(self, node: str) -> None:
        """Take every fault back, of the hardware and of the exporter, as if there had been none."""
        with self._lock:
            exporter = self._exporter(node)
            gpus = tuple(replace(gpu, values={}, xid=0, lost=False) for gpu in exporter.state.gpus)
            exporter.show(replace(exporter.state, gpus=gpus))
            self.mend(node)

    # How the site set its exporter up.

    def set_new_names(self, node: str, on: bool = True) -> None:
        """Show the field names of DCGM 4.6 and the lower-case ``hostname`` label."""
        self._change(node, new_names=on)

    def set_host(self, node: str, host: str) -> None:
        """Show ``host`` in the host label, for example the exporter's pod name."""
        self._change(node, host=host)

    def hide_field(self, node: str, field_name: str) -> None:
        """Leave one family out, as a counters file without it does."""
        known = BY_NAME.get(field_name)
        if known is None:
            raise PermanentError(f"{node}: no field {field_name!r}; the page has {len(BY_NAME)} names")
        with self._lock:
            self._change(node, hidden=self._exporter(node).state.hidden | {known.name})

    def show_only(self, names: frozenset[str]) -> None:
        """Leave out of all pages every family but these."""
        for field in FIELDS:
            if field.name not in names:
                for node in self.nodes:
                    self.hide_field(node, field.name)

    def set_pod(self, node: str, gpu: int, pod: PodLabels | None) -> None:
        """Show another pod as the holder of one GPU (None: idle). The same XID becomes a new series."""
        self._with_gpu(node, gpu, pod=pod)

    def set_mig(self, node: str, gpu: int, instances: int, profile: str = "1g.10gb") -> None:
        """Cut one GPU into ``instances`` MIG instances, 0 to 7; 0 makes it whole again."""
        if not 0 <= instances <= 7:
            raise PermanentError(f"{node}: {instances} MIG instances; 0 to 7 are possible")
        self._with_gpu(node, gpu, instances=tuple((profile, number) for number in range(7, 7 + instances)))

    def _exporter(self, node: str) -> _Exporter:
        found = self._exporters.get(node)
        if found is None:
            raise PermanentError(f"no exporter for node {node!r}; {len(self._exporters)} nodes are served")
        return found

    def _gpu(self, node: str, gpu: int) -> GpuState:
        gpus = self._exporter(node).state.gpus
        if not 0 <= gpu < len(gpus):
            raise PermanentError(f"{node}: no GPU {gpu}; it has {len(gpus)}, counted from 0")
        return gpus[gpu]

    def _with_gpu(self, node: str, gpu: int, **changes: object) -> None:
        with self._lock:
            self._gpu(node, gpu)
            exporter = self._exporter(node)
            exporter.show(exporter.state.with_gpu(gpu, **changes))

    def _change(self, node: str, **changes: object) -> None:
        with self._lock:
            exporter = self._exporter(node)
            exporter.show(replace(exporter.state, **changes))  # type: ignore[arg-type]

    def _set_trouble(self, node: str, trouble: Trouble) -> None:
        with self._lock:
            exporter = self._exporter(node)
            before, exporter.trouble = exporter.trouble, trouble
        hook = self._on_reach
        if hook is not None and (before is Trouble.DOWN) != (trouble is Trouble.DOWN):
            hook(node, trouble is not Trouble.DOWN)


def _kept(gpu: GpuState, *resets: Reset) -> dict[str, float | str]:
    """The set values of a GPU without those that ``resets`` bring back."""
    return {name: value for name, value in gpu.values.items() if BY_NAME[name].reset not in resets}


def _rebooted(gpu: GpuState, *, fault_persists: bool) -> GpuState:
    if fault_persists:
        return replace(gpu, xid=0)
    return replace(gpu, xid=0, lost=False, values=_kept(gpu, Reset.REBOOT, Reset.RESTART))
