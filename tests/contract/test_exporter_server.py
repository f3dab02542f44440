"""The exporter server over loopback: every way in which its pages can be wrong, late or absent."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException, IncompleteRead

import pytest

from remediator.errors import PermanentError, TransientError
from remediator.fleet.dcgm_fields import XID
from remediator.fleet.exporter_state import ExporterStates
from remediator.fleet.machines import machine_for
from remediator.testbed.exporter_control import control
from remediator.testbed.exporters import ExporterServer, serve
from remediator.testbed.waiting import monotonic

NODE, OTHER = "gpu-a-01", "gpu-a-02"


@pytest.fixture(scope="module")
def server() -> Iterator[ExporterServer]:
    with serve([NODE, OTHER], per_node_addresses=True, node_port=0) as running:
        yield running


@pytest.fixture(autouse=True)
def mended(request: pytest.FixtureRequest) -> None:
    if "server" in request.fixturenames:
        request.getfixturevalue("server").states.mend(NODE)


def get(url: str, timeout_s: float = 5.0) -> bytes:
    with urllib.request.urlopen(url, timeout=timeout_s) as reply:
        body: bytes = reply.read()
    return body


def addresses_of(server: ExporterServer) -> tuple[str, str]:
    """Both places where the page of NODE is served."""
    return server.url(NODE), server.address_template.format(address="127.9.0.1")


def test_page_is_served_at_both_addresses(server):
    """Discovery by path and by node address must see the same page."""
    by_path, by_address = addresses_of(server)

    assert get(by_path).startswith(b"# HELP DCGM_FI_DEV_SM_CLOCK")
    assert b'Hostname="gpu-a-02"' in get(server.address_template.format(address="127.9.0.2"))
    assert b'Hostname="gpu-a-01"' in get(by_address)


def test_page_moves_to_the_address_of_its_pod():
    """An exporter pod that was replaced has another address; the old one must not answer any more."""
    with ExporterServer(ExporterStates([machine_for(NODE), machine_for(OTHER)], clock=monotonic)) as server:
        server.listen(NODE, "127.8.200.1")
        server.listen(OTHER, "127.8.200.2")
        server.listen(NODE, "127.8.200.3")

        assert b'Hostname="gpu-a-01"' in get(server.address_template.format(address="127.8.200.3"))
        assert b'Hostname="gpu-a-02"' in get(server.address_template.format(address="127.8.200.2"))
        with pytest.raises(urllib.error.URLError, match="refused"):
            get(server.address_template.format(address="127.8.200.1"))
        with pytest.raises(PermanentError, match="no exporter"):
            server.listen("gpu-z-01", "127.8.200.4")


def test_truncated_page_breaks_its_promise(server):
    """The length promised and the bytes sent must differ, or nobody could notice."""
    server.states.truncate(NODE)

    for url in addresses_of(server):
        with pytest.raises(IncompleteRead):
            get(url)


def test_down_exporter_answers_nobody(server):
    """At its own address nobody listens; under the shared one the connection ends without a reply."""
    by_path, by_address = addresses_of(server)
    server.states.down(NODE)

    with pytest.raises((OSError, HTTPException)):
        get(by_path)
    with pytest.raises(urllib.error.URLError, match="refused"):
        get(by_address)
    server.states.mend(NODE)
    assert get(by_address)
    assert get(by_path)


def test_wrong_answers_are_what_their_names_say(server):
    """Each comes with status 200: only the body tells."""
    found = {}
    for name in ("html", "binary", "empty", "malformed"):
        getattr(server.states, name)(NODE)
        found[name] = get(server.url(NODE))

    assert found["html"].startswith(b"<!DOCTYPE html>")
    assert b"\x00" in found["binary"]
    assert found["empty"] == b""
    assert b"FAILED TO CONVERT" in found["malformed"]


def test_endless_page_ends_only_with_its_reader(server):
    """More than any limit a reader may have; and the server lives on."""
    server.states.endless(NODE)

    with urllib.request.urlopen(server.url(NODE), timeout=5) as reply:
        read = len(reply.read(4_000_000))

    assert read == 4_000_000
    assert get(server.url(OTHER))


def test_slow_exporter_outlasts_an_impatient_reader(server):
    """A slow target must be met by a time-out, and delay no other."""
    server.states.slow(NODE, 5.0)

    with pytest.raises(OSError, match="timed out"):
        get(server.url(NODE), timeout_s=0.05)
    assert get(server.url(OTHER))


def test_control_endpoint_does_what_a_method_does(server):
    """The demo injects its faults from another process."""
    control(server.base_url, "inject_xid", OTHER, gpu=2, code=95)
    control(server.base_url, "down", NODE)

    page = get(server.url(OTHER)).decode().splitlines()
    xids = [line.rsplit(" ", 1)[1] for line in page if line.startswith(f"{XID}{{")]
    assert xids[2] == "95"
    assert json.loads(get(f"{server.base_url}/nodes")) == {NODE: "down", OTHER: "none"}


@pytest.mark.parametrize(
    ("operation", "node", "arguments", "text"),
    [
        ("explode", NODE, {}, "no operation 'explode'"),
        ("inject_xid", "gpu-z-99", {"gpu": 0, "code": 79}, "no exporter for node"),
        ("inject_xid", NODE, {"gpu": 0}, "takes node, gpu, code"),
        ("inject_xid", NODE, {"gpu": "0", "code": 79}, "must be int"),
        ("inject_xid", NODE, {"gpu": True, "code": 79}, "must be int"),
    ],
    ids=["operation", "node", "missing", "text", "bool"],
)
def test_control_endpoint_refuses_with_a_reason(server, operation, node, arguments, text):
    """A person types these by hand."""
    with pytest.raises(PermanentError, match=text):
        control(server.base_url, operation, node, **arguments)


def test_control_says_when_nobody_listens():
    """A demo that was not started must not look like a refused operation."""
    with pytest.raises(TransientError):
        control("http://127.0.0.1:9", "down", NODE, timeout_s=1.0)
