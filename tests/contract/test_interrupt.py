"""Ctrl-C while a command waits for its server."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys

from remediator.cli.exits import INTERRUPTED
from tests.unit.adapters.kube.kubeconfigs import kubeconfig


def test_interrupt_exits_with_130(tmp_path):
    """What every shell expects after Ctrl-C; click alone would say 1.

    It comes while the connection opens, where asyncio's own way of cancelling would log a traceback.
    """
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(30)
        path = kubeconfig(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}")
        command = [sys.executable, "-m", "remediator", "status", "--kubeconfig", path]
        asking = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        with asking, silent.accept()[0]:  # it waits for an answer that never comes
            asking.send_signal(signal.SIGINT)
            _, complaint = asking.communicate(timeout=30)

    assert asking.returncode == INTERRUPTED
    assert complaint.strip() == "error: interrupted"
