"""The last-XID gauge read as edges; the traps are those of the gauge itself."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from remediator.core.edges import (
    GPUS_MAX,
    EdgesSeen,
    GpuMemory,
    Watch,
    edges,
    live_latches,
    merge_latches,
)
from remediator.model.instant import write_instant
from remediator.model.ledger import LATCHES_MAX, Latch
from remediator.model.signal import GpuReading, PageReading

T0 = datetime(2026, 11, 22, tzinfo=UTC)
CODES = frozenset({62, 79, 95})


class Gauge:
    """One node's gauge, page by page. ``persist`` is the ledger's write, ``restart`` our own."""

    def __init__(self, *, baselined=CODES, codes=CODES):
        self.memory = GpuMemory()
        self.ledger: tuple[Latch, ...] = ()
        self.baselined, self.codes = baselined, codes
        self.uid, self.boot = "uid-1", "boot-1"
        self.time = 0.0
        self.seen = EdgesSeen(memory=self.memory)

    def page(self, **codes: int | None) -> list[tuple[str, int, bool]]:
        """Show one page; ``a=79`` is GPU ``a`` with that code. The edges, as (GPU, code, age known)."""
        self.time += 15
        gpus = tuple(GpuReading(uuid=uuid, index="0", xid=xid) for uuid, xid in sorted(codes.items()))
        return self.read(PageReading(node="n", at=T0, at_monotonic=self.time, gpus=gpus))

    def read(self, reading: PageReading | None) -> list[tuple[str, int, bool]]:
        watch = Watch(
            node_uid=self.uid,
            boot_id=self.boot,
            codes=self.codes,
            baselined=self.baselined,
            latches=self.ledger,
            now=T0,
            monotonic=self.time,
        )
        self.seen = edges(self.memory, reading, watch)
        self.memory = self.seen.memory
        return [(edge.gpu, edge.code, edge.age_known) for edge in self.seen.edges]

    def persist(self):
        self.ledger = merge_latches(self.ledger, self.seen.latches_to_add, self.boot)

    def restart(self):
        self.memory = GpuMemory()

    def reboot(self, boot="boot-2"):
        self.boot = boot
        self.read(None)

    @property
    def states(self):
        return {(latch.gpu, latch.code): latch.state for latch in self.seen.latches_to_add}


def test_edge_fires_once_and_latches_trap_4():
    """The same XID again is invisible on the page, and the old one is no new one."""
    gauge = Gauge()
    gauge.page(a=0)

    found = [gauge.page(a=79), gauge.page(a=79), gauge.page(a=79)]

    assert found == [[("a", 79, True)], [], []]
    assert gauge.states == {("a", 79): "Fault"}


def test_latch_is_repeated_until_the_ledger_shows_it():
    """The write may be lost; a latch that nobody holds would be forgotten by a restart."""
    gauge = Gauge()
    gauge.page(a=0)
    gauge.page(a=79)
    gauge.page(a=79)
    before = gauge.states
    gauge.persist()
    gauge.page(a=79)

    assert (before, gauge.states) == ({("a", 79): "Fault"}, {})


def test_stale_gauge_of_the_baseline_is_no_fault_trap_1():
    """A GPU keeps showing an old code until something restarts."""
    gauge = Gauge()
    gauge.page(a=0)
    gauge.page(a=79)
    gauge.persist()
    gauge.ledger = tuple(replace(latch, state="Baseline") for latch in gauge.ledger)
    gauge.restart()

    assert gauge.page(a=79) == []
    assert gauge.states == {}


def test_exporter_restart_neither_heals_nor_repeats_trap_2():
    """After a restart 0 means unknown; the code that comes back is the old one."""
    gauge = Gauge()
    gauge.page(a=0)
    gauge.page(a=79)
    gauge.persist()

    found = [gauge.page(a=0), gauge.page(a=79)]

    assert found == [[], []]
    assert [latch.state for latch in gauge.ledger] == ["Fault"]


def test_later_harmless_code_hides_nothing_trap_3():
    """79 and then 45: the gauge forgets the 79, the latch does not."""
    gauge = Gauge()
    gauge.page(a=0)

    found = [gauge.page(a=79), gauge.page(a=45), gauge.page(a=79)]

    assert found == [[("a", 79, True)], [], []]
    assert gauge.states == {("a", 79): "Fault"}


def test_code_at_first_sight_of_a_fresh_installation_is_a_baseline_trap_5():
    """It may be months old and long repaired: known, and not acted on."""
    gauge = Gauge(baselined=frozenset())

    assert gauge.page(a=79, b=0) == []
    assert gauge.states == {("a", 79): "Baseline"}


def test_code_at_first_sight_after_the_baseline_is_an_edge_of_unknown_age_trap_5():
    """It came while nobody looked, or on a node that joined with it."""
    gauge = Gauge()

    assert gauge.page(a=79) == [("a", 79, False)]


def test_code_that_a_new_playbook_asks_for_is_a_baseline():
    """A playbook for 95 must not act on every 95 of the last half year."""
    gauge = Gauge(codes=frozenset({79}))
    gauge.page(a=95)
    gauge.page(a=None)  # a page without the sample takes nothing back
    gauge.codes = CODES

    assert gauge.page(a=95) == []
    assert gauge.states == {("a", 95): "Baseline"}

    restarted = Gauge(baselined=frozenset({79}))
    assert restarted.page(a=95, b=79) == [("b", 79, False)]
    assert restarted.states == {("a", 95): "Baseline", ("b", 79): "Fault"}


def test_unwatched_code_is_remembered_and_not_latched():
    """Only codes that a playbook matches may fill the ledger."""
    gauge = Gauge()
    gauge.page(a=0)

    assert (gauge.page(a=31), gauge.states) == ([], {})
    assert gauge.page(a=79) == [("a", 79, True)]


def test_vanished_gpu_is_missing_and_not_zero_trap_6():
    """A GPU that fell off the bus takes its series along."""
    gauge = Gauge()
    gauge.page(a=0, b=0)

    assert (gauge.page(b=0), gauge.seen.missing) == ([], ("a",))
    assert (gauge.page(a=79, b=0), gauge.seen.missing) == ([("a", 79, True)], ())


def test_missing_sample_changes_nothing():
    """The exporter leaves the sample out until there is an XID, and again after a restart."""
    gauge = Gauge()

    found = [gauge.page(a=None), gauge.page(a=79), gauge.page(a=None), gauge.page(a=79)]

    assert found == [[], [("a", 79, True)], [], []]
    assert gauge.seen.missing == ()


def test_restart_of_ours_neither_loses_a_fault_nor_repeats_it():
    """The latch in the ledger is what survives."""
    gauge = Gauge()
    gauge.page(a=0)
    gauge.page(a=79)
    gauge.persist()
    gauge.restart()

    assert gauge.page(a=79) == []
    assert [latch.state for latch in gauge.ledger] == ["Fault"]


def test_reboot_drops_latches_and_memory():
    """After a reboot 0 means none, and the same code is a new fault."""
    gauge = Gauge()
    gauge.page(a=0)
    gauge.page(a=79)
    gauge.persist()
    gauge.reboot()

    assert gauge.page(a=0) == []
    assert gauge.page(a=79) == [("a", 79, True)]
    gauge.persist()
    assert {latch.boot_id for latch in gauge.ledger} == {"boot-2"}


def test_page_from_before_the_reboot_is_not_read_against_the_new_boot():
    """It shows the code that the reboot has just repaired."""
    gauge = Gauge()
    gauge.page(a=0)
    gauge.page(a=79)
    gauge.persist()
    old = PageReading(node="n", at=T0, at_monotonic=gauge.time, gpus=(GpuReading("a", "0", 79),))
    gauge.time += 1
    gauge.boot = "boot-2"

    assert (gauge.read(old), gauge.states) == ([], {})
    assert gauge.page(a=79) == [("a", 79, False)]


def test_rebuilt_node_with_other_gpus_inherits_nothing_trap_16():
    """Same name, other machine: other Node uid, other boot, other UUIDs."""
    gauge = Gauge()
    gauge.page(a=0)
    gauge.page(a=79)
    gauge.uid, gauge.ledger = "uid-2", ()
    gauge.reboot()

    assert gauge.page(x=0, y=0) == []
    assert (gauge.seen.missing, gauge.states) == ((), {})


def test_new_node_uid_of_the_same_boot_keeps_the_latches():
    """Someone deleted the Node object; the machine is the same and its gauge too."""
    gauge = Gauge()
    gauge.page(a=0)
    gauge.page(a=79)
    gauge.persist()
    gauge.uid = "uid-2"
    gauge.read(None)

    assert gauge.page(a=79) == []


def test_swapped_board_starts_anew():
    """Another UUID is another GPU, whatever its index."""
    gauge = Gauge()
    gauge.page(a=0)
    gauge.page(a=79)

    assert gauge.page(b=0) == []
    assert gauge.page(b=79) == [("b", 79, True)]


def test_two_exporters_in_turn_fire_once_trap_17():
    """One remembers the code, the other started later and shows 0."""
    gauge = Gauge()
    gauge.page(a=0)

    found = [edge for code in (79, 0) * 5 for edge in gauge.page(a=code)]

    assert found == [("a", 79, True)]


def test_no_page_and_no_boot_id_change_nothing_trap_15():
    """Blindness is not health, and a code without a boot can't be bound to one."""
    gauge = Gauge()
    gauge.page(a=0)
    before = gauge.memory

    assert (gauge.read(None), gauge.memory) == ([], before)
    nameless = Gauge()
    nameless.boot = ""
    assert (nameless.page(a=79), nameless.states) == ([], {})


def test_memory_of_gpus_is_bounded():
    """A page that names new GPUs each time must not fill our memory."""
    gauge = Gauge()
    for index in range(3 * GPUS_MAX):
        gauge.page(**{f"gpu{index:04d}": 0})

    assert len(gauge.memory.last) <= GPUS_MAX


def test_merge_latches_drops_other_boots_and_keeps_faults_first():
    """What is left out may be seen as new after a restart; a handled fault must not be."""

    def a_latch(index, state, boot="boot-1", at=T0):
        return Latch(gpu=f"g{index}", code=79, boot_id=boot, node_uid="u", state=state, at=write_instant(at))

    old = [a_latch(index, "Baseline") for index in range(LATCHES_MAX)] + [a_latch(0, "Fault", boot="boot-0")]

    merged = merge_latches(old, [a_latch(900, "Fault"), a_latch(1, "Fault")], "boot-1")

    assert len(merged) == LATCHES_MAX
    assert (merged[0].gpu, {latch.boot_id for latch in merged}) == ("g900", {"boot-1"})
    assert live_latches(merged, "boot-1")[("g1", 79, "boot-1")].state == "Baseline"


@given(
    st.lists(
        st.one_of(
            st.dictionaries(st.sampled_from("abc"), st.sampled_from([None, 0, 31, 62, 79]), min_size=1),
            st.sampled_from(["persist", "restart", "reboot", "blind"]),
        ),
        max_size=25,
    )
)
def test_no_code_fires_twice_in_one_boot(story):
    """Whatever the exporter, the ledger and we do: one fault for each GPU, code and boot.

    A restart of ours before the ledger's write may repeat it: at least once is all that can be had.
    """
    gauge = Gauge()
    fired: set[tuple[str, str, int]] = set()
    boots = 1
    for event in story:
        if isinstance(event, dict):
            for gpu, code, _ in gauge.page(**event):
                assert (gauge.boot, gpu, code) not in fired
                fired.add((gauge.boot, gpu, code))
        elif event == "persist":
            gauge.persist()
        elif event == "restart":
            gauge.persist()
            gauge.restart()
        elif event == "reboot":
            boots += 1
            gauge.reboot(f"boot-{boots}")
        else:
            gauge.read(None)
