"""Flags and options: what is promised about them, checked on the flags themselves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from remediator.errors import PermanentError
from remediator.testbed import kubeconfig
from remediator.testbed.certificates import Authority
from remediator.testbed.components import START_ORDER, Layout, Options, arguments
from remediator.testbed.kubeconfig import Access

LAYOUT = Layout(
    directory=Path("/testbed"), etcd=1, etcd_peer=2, api=3, controller_manager=4, scheduler=5, kwok=6
)


@pytest.mark.parametrize("name", START_ORDER)
def test_arguments_name_no_address_but_loopback(name):
    """A control plane for tests must never be reachable from outside."""
    flags = arguments(name, LAYOUT, Options())
    listening = [flag for flag in flags if re.search("bind|listen|server-address|advertise", flag)]

    assert listening
    assert all("127.0.0.1" in flag for flag in listening)


def test_arguments_leave_the_server_s_protection_on():
    """Speed bought by switching authorization or fairness off would prove nothing."""
    flags = arguments("kube-apiserver", LAYOUT, Options())

    assert "--authorization-mode=Node,RBAC" in flags
    assert "--audit-log-mode=blocking" in flags
    assert not [flag for flag in flags if re.search("enable-priority|max-requests|disable-admission", flag)]


def test_arguments_put_extra_flags_last():
    """The last flag wins, and a story's choice must win."""
    options = Options(extra={"kube-apiserver": ("--event-ttl=5m",)})

    assert arguments("kube-apiserver", LAYOUT, options)[-1] == "--event-ttl=5m"
    assert "--event-ttl=5m" not in arguments("etcd", LAYOUT, options)


@pytest.mark.parametrize(
    "wrong",
    [
        {"lease_s": 50},
        {"lease_s": 3},
        {"monitor_period_s": 0},
        {"extra": {"kubelet": ()}},
        {"toleration_s": -1},
    ],
    ids=["lease-at-grace", "lease-short", "period", "component", "toleration"],
)
def test_options_refuse_what_cannot_work(wrong):
    """A lease as long as the grace makes every node flap; better no start than that."""
    with pytest.raises(PermanentError):
        Options(**wrong)


def test_kubeconfig_reads_back_what_was_written(tmp_path):
    """Certificates and tokens must survive the file bit by bit, and nobody else may read it."""
    authority = Authority.create(tmp_path)
    access = Access(
        server="https://127.0.0.1:3",
        authority=Authority.load(tmp_path).certificate,
        pair=authority.client("alice", ("ops",)),
        token="t",
    )
    path = tmp_path / "kubeconfig"
    kubeconfig.write(path, "alice", access)

    assert kubeconfig.read(path) == access
    assert path.stat().st_mode & 0o077 == 0


def test_kubeconfig_of_another_make_is_refused(tmp_path):
    """General kubeconfigs (exec plugins, files) are the product's business."""
    path = tmp_path / "config"
    path.write_text("apiVersion: v1\nkind: Config\n")

    with pytest.raises(PermanentError, match="is no kubeconfig of a test bed"):
        kubeconfig.read(path)
