"""What the tests of deploy/ share: the files as they stand, and the overlays as kubectl builds them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from remediator.testbed.binaries import Binaries

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
OVERLAYS = ("base", "overlays/enforce", "overlays/repair-job", "overlays/testbed")
RBAC_FILES = (
    "base/rbac.yaml",
    "base/people.yaml",
    "overlays/enforce/rbac.yaml",
    "overlays/repair-job/rbac.yaml",
)
BUILD_S_MAX = 30

Json = dict[str, Any]


def load(path: Path) -> list[Json]:
    """Every document of a YAML file."""
    return [each for each in YAML(typ="safe", pure=True).load_all(path.read_text("utf-8")) if each]


def load_all(folder: str) -> list[Json]:
    """Every object that stands in a folder of deploy/, without what kustomize alone reads."""
    files = sorted(each for each in (DEPLOY / folder).glob("*.yaml") if each.name != "kustomization.yaml")
    return [document for file in files for document in load(file)]


def one(objects: Iterable[Json], kind: str, name: str) -> Json:
    """The one object of that kind and name."""
    found = [each for each in objects if each["kind"] == kind and each["metadata"]["name"] == name]
    assert len(found) == 1, f"{len(found)} objects {kind}/{name}"
    return found[0]


def build(programs: Binaries, overlay: str) -> str:
    """What ``kubectl kustomize`` makes of a folder of deploy/, as YAML."""
    command = [str(programs.path("kubectl")), "kustomize", str(DEPLOY / overlay)]
    if overlay == "overlays/testbed":
        command.append("--load-restrictor=LoadRestrictionsNone")
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_S_MAX, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr  # kustomize warns of fields that it will drop
    return done.stdout


def parse(text: str) -> list[Json]:
    return [each for each in YAML(typ="safe", pure=True).load_all(text) if each]


def pod_specs(objects: Iterable[Json]) -> Iterator[tuple[str, Json]]:
    """Each pod spec among these objects, with a name for it."""
    for each in objects:
        where = f"{each['kind']}/{each['metadata']['name']}"
        if each["kind"] == "PodTemplate":
            yield where, each["template"]["spec"]
        elif "template" in each.get("spec", {}):
            yield where, each["spec"]["template"]["spec"]


def leaves(value: object, at: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], object]]:
    """Every scalar, and every empty container, with its path."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, (*at, key))
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from leaves(inner, (*at, index))
    else:
        yield at, value
