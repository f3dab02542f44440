"""The scraped pages of a real exporter, over the real client and in real time."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from random import Random

import pytest
from aiohttp import web

from remediator.adapters.clock import SystemClock
from remediator.adapters.exporters.fetch import HttpPages
from remediator.adapters.exporters.source import ExporterSource
from remediator.core.dcgm import XID
from remediator.model.meta import LabelSelector
from remediator.model.policy import ExporterSpec
from remediator.model.signal import PageReading, PageTrouble
from remediator.model.views import NodeView

pytestmark = pytest.mark.asyncio
BODY = f'{XID}{{gpu="0",UUID="GPU-1"}} 0\n'.encode()


def a_node(name: str) -> NodeView:
    return NodeView(name=name, uid=f"uid-{name}", resource_version="1")


async def test_pages_over_real_sockets():
    """Everything together: a real exporter, the real client and the real clock."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(body=BODY)

    application = web.Application()
    application.router.add_get("/metrics", page)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    read: asyncio.Queue[PageReading] = asyncio.Queue()
    failed: asyncio.Queue[tuple[str, PageTrouble]] = asyncio.Queue()
    try:
        async with HttpPages(connections_max=8, keepalive_s=5, user_agent="test") as pages:
            source = ExporterSource(
                pages=pages,
                clock=SystemClock(),
                rng=Random(1),
                on_reading=read.put_nowait,
                on_failure=lambda node, trouble: failed.put_nowait((node, trouble)),
            )
            spec = ExporterSpec(pod_selector=LabelSelector(match_labels={"app": "dcgm"}), port=port)
            nodes = [a_node("good"), a_node("bad")]
            source.follow(spec, nodes, {"good": ("127.0.0.1",), "bad": ("127.0.0.2",)}, frozenset())
            task = asyncio.create_task(source.run())
            reading = await asyncio.wait_for(read.get(), 10)
            node, trouble = await asyncio.wait_for(failed.get(), 10)
            assert source.round_complete
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
    finally:
        await runner.cleanup()

    assert reading.node == "good"
    assert [gpu.uuid for gpu in reading.gpus] == ["GPU-1"]
    assert (node, trouble.kind, "127.0.0.2" in trouble.text) == ("bad", "Unreachable", True)
