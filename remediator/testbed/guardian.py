"""Ends a test bed whose launcher is gone, however it went: SIGKILL, a crash, a closed terminal.

The launcher holds the other end of this process's standard input. End of file without the word
``released`` means that the launcher died. Why not PR_SET_PDEATHSIG: it fires when the *thread* that
started the child ends, kills all components at once (kube-apiserver hangs without etcd), and needs
code between fork and exec. Why not only a state file: somebody would have to come and read it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import remediator
from remediator.testbed.processes import reap

RELEASED: Final = b"released"


class Guardian:
    """The launcher's handle on its guardian process."""

    def __init__(self, directory: Path) -> None:
        root = Path(remediator.__file__).resolve().parents[1]
        with open(directory / "logs" / "guardian.log", "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "remediator.testbed.guardian", str(directory)],
                cwd=directory,
                env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # what ends the launcher's process group must not end this
            )

    @property
    def pid(self) -> int:
        """Process id, for tests."""
        return self._process.pid

    def release(self, *, timeout_s: float = 20.0) -> None:
        """Tell it that nothing is left to guard, and wait for its end."""
        try:
            self._process.communicate(RELEASED, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def main(directory: Path) -> None:
    """Wait for the launcher's word or its end; in the latter case, end what it started."""
    if sys.stdin.buffer.read(len(RELEASED)) != RELEASED:
        reap(directory)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
