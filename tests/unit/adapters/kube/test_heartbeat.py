"""A Lease becomes an age by the server's clock, whatever the kubelet's own clock says."""

from __future__ import annotations

import msgspec
import pytest

from remediator.adapters.kube.heartbeat import read_heartbeat
from remediator.errors import PermanentError
from remediator.ports import Response

NOON = "Thu, 01 Jan 2026 12:00:00 GMT"


def read(*, date=NOON, times=("2026-01-01T11:59:30Z",), renew="2026-01-01T11:59:30.000000Z", duration=40):
    spec = {"renewTime": renew, "leaseDurationSeconds": duration}
    fields = [{"manager": "kubelet", "time": each} for each in times]
    lease = {"metadata": {"managedFields": fields}, "spec": spec}
    return read_heartbeat(Response(200, {"date": date}, b""), msgspec.json.encode(lease))


def test_age_is_by_the_servers_clock():
    """A kubelet whose clock is an hour ahead would live for ever, one behind would always be dead."""
    for renew in ("2026-01-01T13:00:00Z", "2026-01-01T11:00:00Z"):
        assert (read(renew=renew).age_s, read(renew=renew).duration_s) == (30.0, 40.0)


def test_age_is_that_of_the_newest_write():
    """Another writer makes the Lease look younger than it is: the side on which nothing is done."""
    assert read(times=("2026-01-01T11:00:00Z", "2026-01-01T11:59:50Z")).age_s == 10.0


def test_age_falls_back_to_the_kubelets_own_time():
    """Where the server keeps no field managers there is nothing else."""
    assert read(times=()).age_s == 30.0


def test_period_falls_back_to_the_kubelets_default():
    """The field may be absent."""
    assert read(duration=None).duration_s == 40.0


@pytest.mark.parametrize(
    "wrong",
    [{"date": ""}, {"date": "soon"}, {"times": (), "renew": None}, {"times": ("noon",)}],
    ids=["no date", "no readable date", "no time at all", "no readable time"],
)
def test_what_cannot_be_read_is_no_witness(wrong):
    """Unknown must not pass for dead."""
    with pytest.raises(PermanentError, match="Lease"):
        read(**wrong)
