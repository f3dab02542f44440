"""One process of the controller: its command line, its log, and what can be done to it from outside."""

from __future__ import annotations

import json
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from remediator.testbed.waiting import wait_until

STOP_S_MAX: Final = 15.0
SERVES_S_MAX: Final = 60.0
ANSWER_S_MAX: Final = 10.0


def tail(log: Path, chars: int = 4_000) -> str:
    """The end of a log, for whoever has to say why a wait failed; empty where there is none yet."""
    return log.read_text(errors="replace")[-chars:] if log.exists() else ""


class Replica:
    """A process that can be started again, stopped, killed, and thawed where it has frozen itself.

    Args:
        command: its words, the program first.
        log: gets what it says; what is in it already stays.
    """

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self.log = log
        self._command = list(command)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, the first time or once more, as a kubelet does with a container. Does not wait."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, start_new_session=True)

    def stop(self, *, crash: bool = False) -> None:
        """End it: by SIGTERM, or as a crash would. Does nothing to one that was never started."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGKILL if crash else signal.SIGTERM)
        process.send_signal(signal.SIGCONT)  # a frozen one would not hear it
        try:
            process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_S_MAX)

    def thaw(self) -> None:
        """Let one that stands still go on, with all that it was about to do."""
        assert self._process is not None, "it was not started"
        self._process.send_signal(signal.SIGCONT)

    def await_end(self, timeout_s: float) -> int:
        """Wait until it has ended by itself; its exit code, negative for a signal."""
        assert self._process is not None, "it was not started"
        process = self._process
        wait_until(
            lambda: process.poll() is not None,
            timeout_s=timeout_s,
            what="the end of the controller",
            detail=lambda: f"\nlog:\n{self.log_tail()}",
        )
        self._process = None
        return process.wait()

    @property
    def pid(self) -> int:
        assert self._process is not None, "it was not started"
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def leads_since(self, since: int = 0) -> bool:
        """Has it said behind this place in its log that it leads?"""
        return self.log.exists() and b'"event":"leading"' in self.log.read_bytes()[since:]

    def log_tail(self) -> str:
        return tail(self.log)

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Every line of its log about one event, oldest first."""
        texts = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        found = [json.loads(text) for text in texts if text.startswith("{")]
        return [line for line in found if line["event"] == event]

    def ask(self, path: str) -> tuple[int, str]:
        """One GET of its health port: status and text."""
        try:
            with urllib.request.urlopen(f"{self.health_url}{path}", timeout=ANSWER_S_MAX) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read().decode()

    @property
    def health_url(self) -> str:
        """Base URL of its health and metrics port; waits until it serves."""
        serving = wait_until(
            lambda: self.lines("serving health and metrics"), timeout_s=SERVES_S_MAX, what="a health port"
        )
        return f"http://127.0.0.1:{serving[-1]['port']}"
