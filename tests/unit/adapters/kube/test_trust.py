"""A TLS context that follows its files, and keeps what was good where they can't be used."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from kubernetes.aio.client import Configuration

from remediator.adapters.kube.trust import REREAD_S, Trust


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def monotonic(self) -> float:
        return self.time


class Files:
    """An authority's file, and contexts that remember what stood in it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "ca.crt"
        self.path.write_text("one")
        self.made: dict[int, str] = {}
        self.contexts: list[ssl.SSLContext] = []
        self.clock = Clock()
        configuration = Configuration()
        configuration.ssl_ca_cert = str(self.path)
        clock: Any = self.clock  # one question of it is enough
        self.trust = Trust(configuration, self.make, clock=clock)

    def make(self) -> ssl.SSLContext:
        text = self.path.read_text()
        if text == "broken":
            raise ssl.SSLError("no start line")
        self.contexts.append(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        self.made[id(self.contexts[-1])] = text
        return self.contexts[-1]

    @property
    def believed(self) -> str:
        return self.made[id(self.trust.context())]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_files_are_looked_at_once_a_minute(files):
    """An authority that was taken out of the bundle must not be believed until the next restart."""
    files.path.write_text("two")
    assert files.believed == "one"
    files.clock.time = REREAD_S - 1
    assert files.believed == "one"
    files.clock.time = REREAD_S
    assert files.believed == "two"


def test_files_that_did_not_change_make_no_new_context(files):
    """A new one would end the reuse of every open connection."""
    files.clock.time = REREAD_S
    assert files.believed == "one"
    assert not files.trust.renew()
    assert len(files.contexts) == 1


@pytest.mark.parametrize("spoil", ["broken", None], ids=["half written", "gone"])
def test_files_that_can_not_be_used_take_nothing_away(files, spoil):
    """A volume that is being replaced has no file for a moment; what was good may be good still."""
    if spoil is None:
        files.path.unlink()
    else:
        files.path.write_text(spoil)
    assert not files.trust.renew()
    assert files.believed == "one"

    files.path.write_text("two")
    assert files.trust.renew()
    assert files.believed == "two"
