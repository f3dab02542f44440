"""Holds that no unit test touches the network, whoever of its code would: the interpreter itself tells.

Real pauses it does not tell of; those are held by tests/arch, in the source.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from pathlib import Path
from typing import Final

import pytest

HERE: Final = Path(__file__).parent
FORBIDDEN: Final = frozenset({"socket.bind", "socket.connect", "socket.getaddrinfo", "socket.sendto"})


class NetworkGuard:
    """Refuses while a unit test runs. An audit hook stays for the life of the process, so it has a switch."""

    def __init__(self) -> None:
        self.refused: list[str] | None = None  # None: off

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.refused is not None and event in FORBIDDEN:
            told = [each for each in arguments if isinstance(each, str | tuple)]
            self.refused.append(f"{event} {told}")
            raise AssertionError(f"{self.refused[-1]}: what needs a socket belongs into tests/contract")


GUARD: Final = NetworkGuard()
sys.addaudithook(GUARD)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Guard the test with all its fixtures."""
    # This hook is asked for the tests of every folder, wherever it stands.
    GUARD.refused = [] if HERE in item.path.parents else None
    try:
        return (yield)
    finally:
        GUARD.refused = None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    """Fail the test also where the code under test has caught the refusal."""
    answer = yield
    assert not GUARD.refused
    return answer
