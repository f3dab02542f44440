"""Gives the tests of deploy/ the programs of the test bed: kubectl builds the overlays."""

from __future__ import annotations

import pytest

from tests.deploy.promtools import promtools

__all__ = ["promtools"]

CONTROL_PLANE = "tests.controlplane"


def pytest_configure(config: pytest.Config) -> None:
    """Register the plugin unless a folder above or beside did."""
    if not config.pluginmanager.has_plugin(CONTROL_PLANE):
        config.pluginmanager.import_plugin(CONTROL_PLANE)
