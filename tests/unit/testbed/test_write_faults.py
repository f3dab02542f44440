"""The fault strikes at the write that was named and nowhere else, and is told before the process ends."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import NoReturn

import pytest

from remediator.errors import TransientError
from remediator.ports import Lane, Response
from remediator.testbed.write_faults import Fate, Journal, WriteFaults, point_of, read_journal
from tests.unit.testbed.yes_server import YesServer

NODE = "/api/v1/nodes/gpu-a-01"
RUNS = "/apis/remediator.dev/v1alpha1/remediations"
POLICY = "/apis/remediator.dev/v1alpha1/remediationpolicies/cluster/status"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/remediator/leases/remediator"
AGENT = {"User-Agent": "remediator/0.1 (term=3; run=a-1; step=fence; attempt=1)"}


class Died(BaseException):
    """Stands for the end of the process."""


class Froze(Exception):
    """Stands for a process that stands still."""


def die() -> NoReturn:
    raise Died


def freeze() -> None:
    raise Froze


def a_transport(server: YesServer, journal: Path, point: str, fate: Fate) -> WriteFaults:
    return WriteFaults(server, journal=Journal(journal), point=point, fate=fate, die=die, freeze=freeze)


async def send(transport: WriteFaults, method: str, path: str) -> Response:
    return await transport.request(method, path, headers=AGENT, body=b"{}", timeout_s=1, lane=Lane.NORMAL)


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("PATCH", NODE, b"{}", "PATCH nodes of fence"),
        ("POST", "/api/v1/namespaces/a/pods/b/eviction", b"{}", "POST pods/eviction of fence"),
        ("POST", "/apis/batch/v1/namespaces/a/jobs", b"{}", "POST jobs of fence"),
        ("PATCH", f"{RUNS}/a-1/status", b"{}", "PATCH remediations/status of fence"),
        ("PUT", POLICY, b'{"status": {}}', "PUT remediationpolicies/status with 0 grants"),
        ("PUT", POLICY, b'{"status": {"grants": [{}]}}', "PUT remediationpolicies/status with 1 grants"),
        ("GET", NODE, None, None),
        ("PUT", LEASE, b"{}", None),
        ("POST", "/apis/events.k8s.io/v1/namespaces/default/events", b"{}", None),
        ("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", b"{}", None),
        ("PATCH", "/apis/remediator.dev/v1alpha1/resourcepools/train/status", b"{}", None),
    ],
)
def test_point_names_what_a_write_does(
    method: str, path: str, body: bytes | None, expected: str | None
) -> None:
    """A choice of crash points is read by people; a lease renewal among them would shift all others."""
    assert point_of(method, path, AGENT, body) == expected


@pytest.mark.asyncio
async def test_killed_before_sends_nothing(tmp_path: Path) -> None:
    """Killed before means that the server cannot know."""
    server = YesServer()
    transport = a_transport(server, tmp_path / "journal", "PATCH nodes of fence", Fate.KILLED_BEFORE)

    with pytest.raises(Died):
        await send(transport, "PATCH", NODE)

    assert server.heard == []
    assert read_journal(tmp_path / "journal") == [("PATCH nodes of fence", "killed-before")]


@pytest.mark.asyncio
async def test_killed_after_sends_and_dies_at_the_reply(tmp_path: Path) -> None:
    """The server has committed; only the caller never gets to know."""
    server = YesServer()
    transport = a_transport(server, tmp_path / "journal", "PATCH nodes of fence", Fate.KILLED_AFTER)

    with pytest.raises(Died):
        await send(transport, "PATCH", NODE)

    assert server.heard == [f"PATCH {NODE}"]
    assert read_journal(tmp_path / "journal") == [("PATCH nodes of fence", "killed-after: 200")]


@pytest.mark.asyncio
async def test_lost_reply_is_a_transient_error_once(tmp_path: Path) -> None:
    """The next write of the same kind is another one, and gets its reply."""
    server = YesServer()
    transport = a_transport(server, tmp_path / "journal", "PATCH nodes of fence", Fate.REPLY_LOST)

    with pytest.raises(TransientError):
        await send(transport, "PATCH", NODE)
    reply = await send(transport, "PATCH", NODE)

    assert reply.status == 200
    assert len(server.heard) == 2
    assert [point for point, _ in read_journal(tmp_path / "journal")] == [
        "PATCH nodes of fence",
        "PATCH nodes of fence #2",
    ]


@pytest.mark.asyncio
async def test_fault_at_the_second_write_spares_the_first(tmp_path: Path) -> None:
    """A run writes its status many times; each is a crash point of its own."""
    server = YesServer()
    transport = a_transport(server, tmp_path / "journal", "PATCH nodes of fence #2", Fate.KILLED_BEFORE)

    await send(transport, "PATCH", NODE)
    with pytest.raises(Died):
        await send(transport, "PATCH", NODE)

    assert server.heard == [f"PATCH {NODE}"]


@pytest.mark.asyncio
async def test_overtaken_write_is_never_sent(tmp_path: Path) -> None:
    """The later of two writes lands alone: what a client does that opens a connection for one of them."""
    server = YesServer()
    transport = a_transport(server, tmp_path / "journal", "POST remediations of fence", Fate.OVERTAKEN)
    first = asyncio.ensure_future(send(transport, "POST", RUNS))
    await asyncio.wait([first], timeout=0)  # it gets as far as it will

    with pytest.raises(Died):
        await send(transport, "PATCH", NODE)

    assert not first.done()
    first.cancel()
    assert server.heard == [f"PATCH {NODE}"]


@pytest.mark.asyncio
async def test_frozen_write_is_sent_after_the_thaw(tmp_path: Path) -> None:
    """The process has checked that it leads, and sends when another one leads already."""
    server, stops = YesServer(), list[int]()
    journal = Journal(tmp_path / "journal")
    transport = WriteFaults(
        server,
        journal=journal,
        point="PATCH nodes of fence",
        fate=Fate.FROZEN,
        die=die,
        freeze=lambda: stops.append(len(server.heard)),
    )
    reply = await send(transport, "PATCH", NODE)

    assert (stops, server.heard, reply.status) == ([0], [f"PATCH {NODE}"], 200)
    assert [what for _, what in read_journal(tmp_path / "journal")] == ["frozen", "frozen: 200"]


@pytest.mark.asyncio
async def test_everything_else_passes(tmp_path: Path) -> None:
    """Reads, watches and the Lease are not the subject, and must not change a run."""
    server = YesServer()
    transport = a_transport(server, tmp_path / "journal", "PATCH nodes of fence", Fate.KILLED_BEFORE)

    await send(transport, "GET", NODE)
    await send(transport, "PUT", LEASE)
    lines = [line async for line in transport.stream("/x", connect_timeout_s=1, idle_timeout_s=1)]

    assert server.heard == [f"GET {NODE}", f"PUT {LEASE}"]
    assert lines == [b"/x"]
    assert read_journal(tmp_path / "journal") == []
