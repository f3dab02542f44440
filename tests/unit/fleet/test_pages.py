"""Exporter pages: the text, checked against the standard parser."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from remediator.fleet.dcgm_fields import ENERGY, FIELDS, REMAP_PENDING, XID
from remediator.fleet.machines import address_for, gpu_uuids, machine_for, next_boot_id
from remediator.fleet.pages import PageState, PodLabels, malformed, page_for, render

POD = PodLabels(pod="llm-pretrain-70b-h100-worker-gpu-a-01-0")


def a_page(node: str = "gpu-a-01", *, pod: PodLabels | None = POD, gpus: int = 8) -> PageState:
    return page_for(machine_for(node, gpus=gpus), pod=pod)


def text_of(page: PageState, uptime_s: float = 0.0) -> str:
    return render(page).text(uptime_s).decode()


def lines_of(page: PageState, name: str) -> list[str]:
    return [line for line in text_of(page).splitlines() if line.startswith(f"{name}{{")]


def samples_of(page: PageState) -> dict[tuple[str, str], float]:
    """(name, GPU index) -> value, as the standard parser reads it."""
    return {
        (sample.name, sample.labels["gpu"]): sample.value
        for family in text_string_to_metric_families(text_of(page))
        for sample in family.samples
    }


def test_page_has_the_size_and_shape_that_benchmarks_assume():
    """Speed figures are stated for this page: 52 families, 416 samples, about 142 KB."""
    text = text_of(a_page())
    families = list(text_string_to_metric_families(text))

    assert len(families) == 52
    assert sum(len(family.samples) for family in families) == 416
    assert 140_000 <= len(text) <= 144_000
    assert sum(field.name.startswith("DCGM_FI_DEV") for field in FIELDS) == 40


def test_page_labels_keep_the_exporters_order():
    """A scanner that relies on the order would be wrong on the real exporter, and the other way round."""
    page = a_page().with_gpu(3, xid=79)

    machine = machine_for("gpu-a-01")
    assert lines_of(page, XID)[3] == (
        f'{XID}{{gpu="3",UUID="{machine.gpu_uuids[3]}",pci_bus_id="00000000:61:00.0",device="nvidia3",'
        'modelName="NVIDIA H100 80GB HBM3",Hostname="gpu-a-01",DCGM_FI_DRIVER_VERSION="570.172.08",'
        'container="pytorch-ddp",err_code="79",err_msg="GPU has fallen off the bus",'
        'namespace="ml-pretraining",pod="llm-pretrain-70b-h100-worker-gpu-a-01-0"} 79'
    )


def test_page_is_the_same_in_every_process():
    """The fault injector and the Node builder run in different processes and must agree on UUIDs."""
    assert text_of(a_page()) == text_of(a_page())
    assert machine_for("gpu-a-01").system_uuid == "05098329-40f5-5db0-b3c6-ed608c879c77"


def test_idle_gpu_has_no_pod_labels():
    """An idle GPU has none of the three labels rather than empty ones."""
    page = a_page(pod=None)

    assert "container=" not in text_of(page)
    assert 'err_msg="No Error"} 0' in lines_of(page, XID)[0]


def test_lost_gpu_has_no_line_at_all():
    """A GPU off the bus vanishes from every family; absence is the only sign."""
    lost = machine_for("gpu-a-01").gpu_uuids[5]

    page = a_page().with_gpu(5, lost=True)

    assert lost not in text_of(page)
    assert len(samples_of(page)) == 52 * 7


def test_mig_gpu_shows_one_xid_once_per_instance():
    """A reader must fold these by UUID, else one fault counts seven times."""
    page = a_page().with_gpu(0, xid=94, instances=tuple(("1g.10gb", number) for number in range(7, 14)))
    lines = [line for line in lines_of(page, XID) if line.endswith(" 94")]

    assert len(lines) == 7
    assert 'GPU_I_PROFILE="1g.10gb",GPU_I_ID="7",Hostname=' in lines[0]


def test_new_names_replace_old_ones_and_the_host_label():
    """DCGM 4.6 renamed most fields; a reader that knows one set only is blind on the other."""
    old = a_page().with_gpu(1, xid=48)

    new = PageState(node=old.node, host=old.host, gpus=old.gpus, new_names=True)
    names = {name for name, _ in samples_of(new)}

    assert {"DCGM_FI_DEV_XID_ERROR", "DCGM_FI_DEV_ROW_REMAP_FAILED"} <= names
    assert XID not in names
    assert 'hostname="gpu-a-01"' in text_of(new)
    assert "Hostname=" not in text_of(new)


def test_energy_counter_alone_moves_by_itself():
    """A frozen page must differ from a live one, and a scrape must not render 416 lines again."""
    page = render(a_page())
    changed = [
        one
        for one, other in zip(page.text(0).splitlines(), page.text(30).splitlines(), strict=True)
        if one != other
    ]

    assert len(changed) == 8
    assert all(line.startswith(ENERGY.encode()) for line in changed)


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e15, max_value=1e15))
@settings(max_examples=25, deadline=None)
def test_set_value_reads_back_through_the_standard_parser(value: float):
    """Integers as integers, the rest with six decimals, whatever a test sets."""
    page = a_page(gpus=1).with_gpu(0, values={REMAP_PENDING: value, ENERGY: value})

    read = samples_of(page)

    assert read[REMAP_PENDING, "0"] == pytest.approx(value, abs=1e-6)
    assert read[f"{ENERGY}_total", "0"] == pytest.approx(value, abs=1e-6)


@given(st.text(max_size=40))
@settings(max_examples=25, deadline=None)
def test_any_pod_name_survives_escaping(name: str):
    """Quotes, backslashes and newlines in a label value must not end it."""
    page = a_page(pod=PodLabels(pod=name, namespace=name, container=name), gpus=1)
    text = "\n".join(line for line in text_of(page).split("\n") if line.startswith(REMAP_PENDING))

    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    assert {sample.labels["pod"] for sample in samples} == {name}


def test_malformed_page_keeps_every_good_line():
    """The trap is a reader that gives up: all that was there must still be there."""
    good = render(a_page()).text(0)

    odd = malformed(good)

    remaining = set(good.splitlines()) - set(odd.splitlines())
    assert remaining == set()
    assert b"ERROR - FAILED TO CONVERT TO STRING" in odd
    with pytest.raises(ValueError, match=r".+"):
        list(text_string_to_metric_families(odd.decode(errors="replace")))


def test_machine_changes_identity_with_its_chassis_and_its_boards():
    """A replaced machine under an old name must share nothing with the one before."""
    first, second = machine_for("gpu-a-01"), machine_for("gpu-a-01", chassis=1)

    assert first.system_uuid != second.system_uuid
    assert first.asset_tag != second.asset_tag
    assert not set(first.gpu_uuids) & set(second.gpu_uuids)
    assert not set(first.gpu_uuids) & set(gpu_uuids(first.system_uuid, gpus=8, boards=1))
    assert len({first.boot_id, next_boot_id(first.boot_id), next_boot_id(next_boot_id(first.boot_id))}) == 3


@pytest.mark.parametrize("gpus", [-1, 9])
def test_machine_refuses_an_impossible_number_of_gpus(gpus: int):
    """A typo must not become a page that no test expects."""
    with pytest.raises(ValueError, match="0 to 8"):
        machine_for("gpu-a-01", gpus=gpus)


def test_addresses_are_distinct_loopback_addresses():
    """Two nodes with one address would answer for each other."""
    addresses = {address_for(index) for index in range(1_000)}

    assert len(addresses) == 1_000
    assert all(address.startswith("127.9.") for address in addresses)
    with pytest.raises(ValueError, match="62499"):
        address_for(62_500)
