"""The fake exporters as a program of their own."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys

import aiohttp

from remediator.fleet.machines import address_for
from remediator.testbed.exporter_control import control


async def fetch_all(urls: list[str]) -> list[str]:
    connector = aiohttp.TCPConnector(limit=100)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=50)) as session:

        async def fetch(url: str) -> str:
            async with session.get(url) as reply:
                return await reply.text()

        return await asyncio.gather(*map(fetch, urls))


def test_one_process_serves_a_thousand_nodes_and_takes_faults_by_http():
    """The demo and the scrape benchmark run the exporters as a program of their own."""
    command = [sys.executable, "-m", "remediator.testbed.exporters", "--nodes=1000", "--port=0"]
    with subprocess.Popen(
        [*command, "--per-node-addresses", "--node-port=0"], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            base_url, template = process.stdout.readline().split()
            control(base_url, "inject_xid", "gpu-0500", gpu=2, code=95)
            pages = asyncio.run(fetch_all([template.format(address=address_for(i)) for i in range(1000)]))
        finally:
            process.send_signal(signal.SIGTERM)

    assert process.returncode == 0
    assert all(len(page) > 140_000 for page in pages)
    assert [f'Hostname="gpu-{number + 1:04d}"' in page for number, page in enumerate(pages)] == [True] * 1000
    assert [number for number, page in enumerate(pages) if 'err_code="95"' in page] == [499]
