"""A busy server turns away its share and no more, never the Lease, and nothing once the file is gone."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from remediator.adapters.kube.errors import classify_write
from remediator.errors import TransientError
from remediator.ports import Lane, Outcome, Refusal
from remediator.testbed.overload import Overload
from tests.unit.testbed.yes_server import YesServer

NODE = "/api/v1/nodes/gpu-a-01"


def an_overload(flag: Path, *, share: float = 0.8) -> tuple[Overload, YesServer, list[bool]]:
    server, tried = YesServer(), list[bool]()
    made = Overload(server, flag=flag, share=share, rng=Random(4), tried=tried.append)
    return made, server, tried


@pytest.mark.asyncio
async def test_busy_server_turns_its_share_away(tmp_path: Path) -> None:
    """What is turned away was not done: the answers must be those that say so, or that leave it open."""
    flag = tmp_path / "busy"
    flag.touch()
    overload, server, tried = an_overload(flag)
    found = set()
    for _ in range(200):
        reply = await overload.request("PATCH", NODE, body=b"{}", timeout_s=1, lane=Lane.NORMAL)
        written = classify_write(reply, "PATCH")
        found.add((written.outcome, written.refusal))

    assert 140 <= sum(tried) <= 180
    assert len(server.heard) == 200 - sum(tried)
    assert found == {
        (Outcome.APPLIED, Refusal.NONE),
        (Outcome.REFUSED, Refusal.OVERLOAD),
        (Outcome.UNKNOWN, Refusal.NONE),
    }


@pytest.mark.asyncio
async def test_busy_server_serves_the_lease(tmp_path: Path) -> None:
    """Priority and fairness keeps a level for it; losing the leader in an overload would be another story."""
    flag = tmp_path / "busy"
    flag.touch()
    overload, _, tried = an_overload(flag, share=1.0)

    reply = await overload.request("PUT", "/lease", body=b"{}", timeout_s=1, lane=Lane.LEASE)

    assert reply.status == 200
    assert tried == []


@pytest.mark.asyncio
async def test_busy_server_refuses_new_watches(tmp_path: Path) -> None:
    """A watch that can't be opened is a read that failed for now."""
    flag = tmp_path / "busy"
    flag.touch()
    overload, _, tried = an_overload(flag, share=1.0)

    with pytest.raises(TransientError):
        _ = [line async for line in overload.stream(NODE, connect_timeout_s=1, idle_timeout_s=1)]
    flag.unlink()
    lines = [line async for line in overload.stream(NODE, connect_timeout_s=1, idle_timeout_s=1)]

    assert lines == [NODE.encode()]
    assert tried == [True, False]
