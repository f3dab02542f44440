"""A real API server whose certificate comes from a new authority: believed without a restart of ours."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from remediator.errors import PermanentError
from remediator.ports import Lane
from remediator.testbed.binaries import Binaries
from remediator.testbed.launcher import ControlPlane
from remediator.testbed.waiting import wait_until
from tests.contract.loopback import connect
from tests.contract.transport_calls import get
from tests.rotation import NAME, answering, presents, sign
from tests.unit.adapters.kube.kubeconfigs import kubeconfig

pytestmark = [pytest.mark.asyncio, pytest.mark.real_server]


@pytest.fixture
def rotating(control_plane_binaries: Binaries, tmp_path: Path) -> Iterator[ControlPlane]:
    sign(tmp_path, "first")
    with ControlPlane(tmp_path / "plane", control_plane_binaries, answering(tmp_path)) as started:
        yield started


@pytest.mark.timeout(180)
async def test_rotated_authority_is_believed_without_a_restart(rotating: ControlPlane, tmp_path: Path):
    """Not before its file says so, and then at once; the old one is not believed any more."""
    authority = tmp_path / "ca.crt"
    authority.write_bytes((tmp_path / "first" / "ca.crt").read_bytes())
    client = rotating.admin().access.pair
    assert client is not None
    user = {
        "client-certificate-data": base64.b64encode(client.certificate).decode(),
        "client-key-data": base64.b64encode(client.key).decode(),
    }
    cluster = {"certificate-authority": str(authority), "tls-server-name": NAME}
    path = kubeconfig(tmp_path, f"https://127.0.0.1:{rotating.layout.api}", user=user, cluster=cluster)
    async with connect(path) as transport:
        assert (await get(transport)).status == 200

        new, port = sign(tmp_path, "second"), rotating.layout.api
        wait_until(lambda: presents(port, new), timeout_s=90, what="the API server to take the new pair")
        assert (await get(transport)).status == 200, "what is open goes on"
        with pytest.raises(PermanentError, match="does not verify"):
            await get(transport, lane=Lane.URGENT)  # a connection of its own
        authority.write_bytes(new.read_bytes())
        assert (await get(transport, lane=Lane.URGENT)).status == 200
