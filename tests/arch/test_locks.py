"""The locks hold what pyproject.toml asks for, each version checked by its hash."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
RUN = PROJECT["project"]["dependencies"]
BUILD = PROJECT["dependency-groups"]["build"]
DEV = [
    *RUN,
    *PROJECT["project"]["optional-dependencies"]["testbed"],
    *BUILD,
    *(entry for entry in PROJECT["dependency-groups"]["dev"] if isinstance(entry, str)),
]
LOCKS = {"run.txt": RUN, "build.txt": BUILD, "dev.txt": DEV}


def locked(name: str) -> dict[str, tuple[Version, int]]:
    """Return version and number of hashes of each package in one lock."""
    text = (ROOT / "requirements" / name).read_text("utf-8").replace("\\\n", " ")
    pins = re.finditer(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;]+)(?P<rest>.*)$", text, re.MULTILINE)
    return {
        canonicalize_name(pin["name"]): (Version(pin["version"]), pin["rest"].count("--hash=sha256:"))
        for pin in pins
    }


@pytest.mark.parametrize(("name", "asked"), LOCKS.items(), ids=LOCKS)
def test_lock_satisfies_the_project(name, asked):
    """A bound that was raised without `make lock` would be tested against the old version."""
    pins = locked(name)
    wrong = [
        text
        for text in asked
        if (wanted := Requirement(text))
        and (
            canonicalize_name(wanted.name) not in pins
            or pins[canonicalize_name(wanted.name)][0] not in wanted.specifier
        )
    ]

    assert wrong == [], f"requirements/{name} is out of date: run `make lock`"


@pytest.mark.parametrize("name", [*LOCKS, "uv.txt"])
def test_lock_pins_every_package_by_hash(name):
    """One package without a hash makes the installer refuse, or worse, not look."""
    pins = locked(name)

    assert pins != {}
    assert [package for package, (_, hashes) in pins.items() if hashes == 0] == []


def test_what_is_tested_is_what_is_shipped():
    """The image installs run.txt, the tests run on dev.txt."""
    shipped, tested = locked("run.txt"), locked("dev.txt")

    assert {name: tested.get(name) for name in shipped} == shipped


def test_every_dependency_says_why():
    """A dependency without a reason is never removed."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    silent = [wanted for wanted in DEV if not re.search(rf'"{re.escape(wanted)}",\s+# \w', text)]

    assert silent == []
