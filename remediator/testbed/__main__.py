"""``python -m remediator.testbed``: the same as ``remediator testbed``, for a checkout without the CLI."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TextIO

from remediator.errors import RemediatorError
from remediator.testbed import binaries, lifecycle
from remediator.testbed.components import Options


def main(arguments: list[str]) -> int:
    """Run one command and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m remediator.testbed", description=__doc__)
    parser.add_argument("command", choices=("build", "up", "status", "down"))
    parser.add_argument("--directory", type=Path, default=lifecycle.default_directory(os.environ))
    parser.add_argument(
        "--quick", action="store_true", help="lease 8 s and grace 12 s instead of 40 s and 50 s"
    )
    chosen = parser.parse_args(arguments)
    try:
        return _run(chosen.command, chosen.directory, Options.quick() if chosen.quick else Options())
    except RemediatorError as error:
        _say(str(error), sys.stderr)
        return 1


def _run(command: str, directory: Path, options: Options) -> int:
    def progress(seen: binaries.Progress) -> None:
        _say(lifecycle.describe_progress(seen), sys.stderr)

    match command:
        case "build":
            _say(str(binaries.build(os.environ, progress=progress).directory))
        case "up":
            started = lifecycle.up(directory, environ=os.environ, options=options, progress=progress)
            _say(f"{lifecycle.describe(started.status)}\n{lifecycle.usage(started)}")
        case "down":
            killed = lifecycle.down(directory)
            _say(f"stopped{', killed: ' + ', '.join(killed) if killed else ''}")
        case _:
            found = lifecycle.status(directory)
            _say(lifecycle.describe(found))
            return 0 if found.healthy else 1
    return 0


def _say(text: str, stream: TextIO | None = None) -> None:
    (stream or sys.stdout).write(text + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
