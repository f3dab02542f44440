"""Reading exporter pages: what is taken, what is skipped, and what is no page at all."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from remediator.adapters.exporters import scan
from remediator.adapters.exporters.scan import Scanner
from remediator.core.dcgm import ALWAYS_READ, OLD_NAMES, XID
from remediator.errors import PageError
from remediator.fleet.machines import machine_for
from remediator.fleet.pages import PodLabels, page_for, render
from remediator.model.signal import PageReading

T0 = datetime(2026, 11, 22, 3, 14, 7, tzinfo=UTC)
GPU_A = "GPU-6f0a1c52-0d1e-4b7a-9a31-0c5be2f4aa01"
GPU_B = "GPU-6f0a1c52-0d1e-4b7a-9a31-0c5be2f4aa04"
TEMP = "DCGM_FI_DEV_GPU_TEMP"
PENDING = "DCGM_FI_DEV_ROW_REMAP_PENDING"


def a_line(value="0", *, name=XID, uuid=GPU_A, index="0", host='Hostname="gpu-a-017"', more=""):
    labels = f'gpu="{index}",UUID="{uuid}",pci_bus_id="00000000:1B:00.0",device="nvidia{index}",{host}'
    return f"{name}{{{labels}{more}}} {value}\n"


def read(*lines: str, fields=()) -> PageReading:
    return Scanner(fields).scan("".join(lines).encode(), node="gpu-a-017", at=T0, at_monotonic=5.0)


def test_scan_reads_the_whole_page_of_a_machine():
    """The page of the test bed has the shape of the real one: 52 families of eight GPUs."""
    machine = machine_for("gpu-a-017")
    state = page_for(machine, pod=PodLabels("llm-worker-17")).with_gpu(3, xid=79)

    reading = Scanner().scan(render(state).text(1000), node="gpu-a-017", at=T0, at_monotonic=5.0)

    assert {gpu.uuid for gpu in reading.gpus} == set(machine.gpu_uuids)
    assert [gpu.uuid for gpu in reading.gpus] == sorted(machine.gpu_uuids)
    assert {gpu.index: gpu.xid for gpu in reading.gpus} == {str(i): 79 if i == 3 else 0 for i in range(8)}
    assert all({name for name, _ in gpu.values} == set(ALWAYS_READ) - {XID} for gpu in reading.gpus)
    assert (reading.host, reading.driver, reading.lines, reading.bad_lines) == (
        "gpu-a-017",
        "570.172.08",
        520,
        0,
    )


def test_scan_drops_the_series_of_a_lost_gpu_trap_6():
    """A GPU that fell off the bus vanishes from the page; it must not turn up as zero."""
    machine = machine_for("gpu-a-017")
    state = page_for(machine).with_gpu(3, lost=True)

    reading = Scanner().scan(render(state).text(1000), node="gpu-a-017", at=T0, at_monotonic=5.0)

    assert [gpu.uuid for gpu in reading.gpus] == sorted(set(machine.gpu_uuids) - {machine.gpu_uuids[3]})


def test_scan_ignores_the_pod_labels_trap_7():
    """A GPU that changes its pod is a new series, and still the same GPU with the same old code."""
    before = read(a_line("79", more=',namespace="team-a",pod="one"'))
    after = read(a_line("79", more=',namespace="team-a",pod="two"'))

    assert before.gpus == after.gpus


def test_scan_folds_mig_instances_by_uuid_trap_8():
    """One XID of a GPU with seven instances is one XID; values of instances keep both their ends."""
    lines = [
        a_line("79", more=f',GPU_I_PROFILE="1g.10gb",GPU_I_ID="{instance}"')
        + a_line(str(40 + instance), name=TEMP, more=f',GPU_I_PROFILE="1g.10gb",GPU_I_ID="{instance}"')
        for instance in range(7)
    ]

    (gpu,) = read(*lines).gpus

    assert gpu.xid == 79
    assert gpu.values == ((TEMP, 46.0), (TEMP, 40.0))
    assert gpu.value(TEMP) == 46.0


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ('Hostname="dcgm-exporter-x7k2p"', "dcgm-exporter-x7k2p"),
        ('hostname="gpu-a-017"', "gpu-a-017"),
        ('other="x"', ""),
    ],
    ids=["pod name, trap 9", "lower case, trap 10", "left out"],
)
def test_scan_reads_either_host_label(host, expected):
    """The label was renamed, and without NODE_NAME it carries the pod's name."""
    assert read(a_line(host=host)).host == expected


def test_scan_ignores_exported_pod_labels_trap_11():
    """A page that went through a Prometheus has other pod labels; neither kind is read."""
    (gpu,) = read(a_line("79", more=',exported_pod="llm-worker-17",pod="dcgm-exporter-x7k2p"')).gpus

    assert gpu.xid == 79


def test_scan_ignores_the_windowed_count_trap_12():
    """The count falls by itself and loses its xid label; it is no reading of the gauge."""
    count = a_line("2", name="DCGM_EXP_XID_ERRORS_COUNT", more=',window_size_in_ms="300000",xid="79"')

    reading = read(a_line("0"), count)

    assert [gpu.xid for gpu in reading.gpus] == [0]


def test_scan_reads_154_without_its_text_trap_13():
    """The exporter has no text for 154; the code alone is what there is."""
    (gpu,) = read(a_line("154", more=',err_code="154",err_msg="None"')).gpus

    assert gpu.xid == 154


@pytest.mark.parametrize(("new", "old"), OLD_NAMES.items())
def test_scan_maps_new_names_to_the_old_ones_trap_14(new, old):
    """DCGM 4.6 renamed the fields; playbooks and pages may use either name."""
    by_new, by_old = (read(a_line("1", name=new), fields=[asked]) for asked in (new, old))

    assert by_new.gpus == by_old.gpus
    assert by_new.gpus[0].xid == 1 if old == XID else by_new.gpus[0].value(old) == 1.0


def test_scan_reads_lower_case_uuid_and_gpu_uuid():
    """Old releases write ``uuid``, NVLink lines ``gpu_uuid``."""
    lines = f'{XID}{{gpu="0",uuid="{GPU_A}"}} 0\n', f'{TEMP}{{gpu="1",gpu_uuid="{GPU_B}"}} 41\n'

    assert [gpu.uuid for gpu in read(*lines).gpus] == [GPU_A, GPU_B]


def test_scan_reads_a_code_above_172_trap_18():
    """The exporter's table of texts ends at 172; newer codes are codes all the same."""
    (gpu,) = read(a_line("201", more=',err_code="201",err_msg="Unknown Error"')).gpus

    assert gpu.xid == 201


@pytest.mark.parametrize(
    "line",
    [
        a_line("ERROR - FAILED TO CONVERT TO STRING"),
        a_line("7_9"),
        a_line("79.5"),
        a_line("-1"),
        a_line("1000"),
        a_line("79 now"),
        a_line("79 1 2"),
        a_line(""),
        a_line("79", uuid=""),
        a_line("79", uuid="GPU-" + "x" * 61),
        a_line("79", more=',err_msg="no end'),
        a_line("79", more=',err_msg="escaped end\\"'),
        a_line("79", more=" garbage"),
        a_line("79").replace("}", ""),
        f"{XID}{{}} 79\n",
        f'{XID}{{nvswitch="0"}} 79\n',
        a_line("79", more=f',pod="{"x" * scan.LINE_BYTES_MAX}"'),
    ],
)
def test_scan_skips_and_counts_a_bad_line(line):
    """One bad line must cost that line and nothing else."""
    reading = read(line, a_line("0", uuid=GPU_B))

    assert reading.bad_lines == 1
    assert {gpu.uuid: gpu.xid for gpu in reading.gpus if gpu.xid is not None} == {GPU_B: 0}


def test_scan_takes_good_lines_after_a_bad_one_with_equal_labels():
    """A line that lost its brace must not spoil the labels that it shares with good lines."""
    good = a_line("79")
    bad = good.replace("} 79", "x")

    reading = read(bad, good)

    assert (reading.bad_lines, [gpu.xid for gpu in reading.gpus]) == (1, [79])


@pytest.mark.parametrize("value", ["NaN", "nan", "+Inf", "-Inf", "9223372036854775792"])
def test_scan_takes_no_data_as_missing(value):
    """NaN compares false with everything: read as a number it would be a healthy one."""
    (gpu,) = read(a_line(value), a_line(value, name=TEMP)).gpus

    assert (gpu.xid, gpu.value(TEMP)) == (None, None)


def test_scan_accepts_timestamps_escapes_braces_and_carriage_returns():
    """The format allows them, whatever this exporter writes today."""
    more = ',err_msg="a \\"quoted\\" } 13 \\\\",pod="x{y}"'

    (gpu,) = read(a_line("79 1732245247000\r", more=more)).gpus

    assert gpu.xid == 79


def test_scan_drops_an_unterminated_last_line():
    """A page cut in the middle of 79 would read 7."""
    reading = read(a_line("0"), a_line("79", uuid=GPU_B)[:-2])

    assert (reading.bad_lines, [gpu.uuid for gpu in reading.gpus]) == (1, [GPU_A])


def test_scan_keeps_the_telling_lines_as_evidence():
    """The lines go into the record before a repair destroys them: XIDs first, short, value kept."""
    lines = [a_line("1", name=PENDING, uuid=f"GPU-{index}") for index in range(20)]
    long = a_line("79", more=f',err_msg="{"x" * 400}"')

    excerpt = read(*lines, long, a_line("50", name=TEMP)).excerpt

    assert len(excerpt) == scan.EXCERPT_LINES_MAX
    assert all(len(line) <= scan.EXCERPT_CHARS_MAX for line in excerpt)
    assert excerpt[0].startswith(XID)
    assert excerpt[0].endswith("} 79")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "empty"),
        (b" \n\n", "empty"),
        (b"<html><body>Bad gateway</body></html>", "starts with '<html'"),
        (b"\n<!DOCTYPE html>\n", "starts with '<!doctype html'"),
        (b'{"error": "no"}', 'starts with \'{"error": "no"}\''),
        (b"404 page not found\n", "starts with '404 page not fou'"),
        (b"service unavailable\n", "starts with 'service unavaila'"),
        (b"\x1f\x8b\x08\x00\x00", "binary"),
        (b"\x7fELF\x02", "binary"),
        (b"# \0\0", "binary"),
    ],
)
def test_scan_says_what_is_no_metrics_page(body, reason):
    """A proxy's error page is unknown, and the reason names what came instead."""
    with pytest.raises(PageError, match=r"^gpu-a-017: not a metrics page: ") as caught:
        Scanner().scan(body, node="gpu-a-017", at=T0, at_monotonic=0.0)

    assert reason in str(caught.value)


def test_scan_refuses_a_page_of_too_many_lines_or_gpus():
    """What no node can have would block the loop while it is read."""
    lines = b"# x\n" * (scan.LINES_MAX + 1)
    gpus = "".join(a_line(uuid=f"GPU-{index}") for index in range(scan.GPUS_MAX + 1))

    with pytest.raises(PageError, match="more than 20000 lines"):
        Scanner().scan(lines, node="n", at=T0, at_monotonic=0.0)
    with pytest.raises(PageError, match="names 257 GPUs"):
        read(gpus)


def test_scan_of_another_exporters_page_names_no_gpu():
    """It is a metrics page, so it is read; that it says nothing about GPUs is judged elsewhere."""
    reading = read("# HELP go_goroutines x\n# TYPE go_goroutines gauge\n", "go_goroutines 7\n")

    assert (reading.gpus, reading.lines, reading.bad_lines) == ((), 3, 0)


def test_scan_shares_equal_values_between_readings():
    """Ten thousand healthy nodes say the same zeros; one copy must do."""
    scanner = Scanner()

    first, second = (
        scanner.scan(a_line("0", name=TEMP).encode(), node=node, at=T0, at_monotonic=0.0) for node in "ab"
    )

    assert first.gpus[0].values[0] is second.gpus[0].values[0]


TEXTS = st.text(
    st.characters(codec="utf-8", exclude_characters="\0\r\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"), max_size=12
)
NUMBERS = st.one_of(
    st.integers(0, 999).map(str),
    st.floats(0, 1e6).map(lambda value: f"{value:.6f}"),
    st.sampled_from(["NaN", "+Inf", "-Inf", "-3", "1e3"]),
)


@st.composite
def lines(draw):
    name = draw(st.sampled_from([*ALWAYS_READ, *OLD_NAMES, "go_goroutines", XID + "_X"]))
    pairs = draw(
        st.dictionaries(st.sampled_from(["pod", "err_msg", "modelName", "xUUID"]), TEXTS, max_size=3)
    )
    pairs["gpu"] = draw(st.sampled_from("012"))
    pairs[draw(st.sampled_from(["UUID", "uuid"]))] = draw(st.sampled_from([GPU_A, GPU_B]))
    order = draw(st.permutations(sorted(pairs)))
    escaped = {key: pairs[key].replace("\\", "\\\\").replace('"', '\\"') for key in order}
    labels = ",".join(f'{key}="{escaped[key]}"' for key in order)
    comma = draw(st.sampled_from(["", ","]))
    stamp = draw(st.sampled_from(["", " 1732245247000"]))
    return f"{name}{{{labels}{comma}}} {draw(NUMBERS)}{stamp}\n"


@given(st.lists(lines(), max_size=12))
def test_scan_agrees_with_the_standard_parser(page):
    """Seventy times faster is worth nothing if it reads something else."""
    text = "# a page\n" + "".join(page)
    expected: dict[str, dict[str, list[float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            uuid = sample.labels.get("UUID") or sample.labels.get("uuid")
            field = OLD_NAMES.get(sample.name, sample.name)
            if uuid and field in ALWAYS_READ:
                seen = expected.setdefault(uuid, {})
                if field != XID or (float(sample.value).is_integer() and 0 <= sample.value <= 999):
                    seen.setdefault(field, []).append(sample.value)

    reading = read(text)

    assert {gpu.uuid for gpu in reading.gpus} == set(expected)
    for gpu in reading.gpus:
        found = {
            field: [v for v in values if math.isfinite(v)] for field, values in expected[gpu.uuid].items()
        }
        codes = found.pop(XID, [])
        assert gpu.xid == (int(max(codes)) if codes else None)
        ends = {(field, end(values)) for field, values in found.items() if values for end in (max, min)}
        assert set(gpu.values) == ends


@given(st.binary(max_size=400))
def test_scan_never_raises_anything_else(body):
    """Whatever a server sends, it is a reading or one kind of error."""
    page = b"# x\n" + XID.encode() + b"{" + body + b"\n"

    try:
        Scanner().scan(page, node="n", at=T0, at_monotonic=0.0)
    except PageError as error:
        assert "not a metrics page" in str(error)  # noqa: PT017  (most bodies raise nothing)
