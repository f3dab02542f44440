"""Building is tried with a small `go` of our own, so that each failure can be had at will."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from remediator.testbed import binaries
from remediator.testbed.binaries import COMPONENTS, BuildError, Progress

# Answers `go env GOVERSION`, and "builds" by writing the package's name to the output file.
GO = """#!/bin/sh
if [ "$1" = env ]; then echo go1.26.3; exit 0; fi
while [ $# -gt 1 ]; do [ "$1" = -o ] && out=$2; shift; done
echo "built $1" >> "$(dirname "$out")/calls"
echo "$1" > "$out"; chmod +x "$out"
"""


def environment(tmp_path: Path, go: str | None = GO) -> dict[str, str]:
    tools = tmp_path / "tools"
    tools.mkdir(exist_ok=True)
    if go is not None:
        (tools / "go").write_text(go)
        (tools / "go").chmod(0o755)
    for needed in ("sh", "dirname", "chmod", "sleep", "seq"):
        (tools / needed).symlink_to(shutil.which(needed) or needed)
    return {"PATH": str(tools), "REMEDIATOR_TESTBED_CACHE": str(tmp_path / "cache")}


def test_versions_come_from_the_modules():
    """One place to raise a version: the require line."""
    known = binaries.versions(binaries.modules_directory({}))

    assert known["kube-apiserver"] == known["kubectl"] == "v1.36.4"
    assert known["etcd"] == "v3.6.16"
    assert known["kwok"] == "v0.8.0"


def test_oldest_kubernetes_shares_all_but_itself_with_the_newest():
    """One etcd and one kwok for both; a word that is neither is refused."""
    oldest = {binaries.KUBERNETES_VARIABLE: binaries.OLDEST}
    newest = binaries.versions(binaries.modules_directory({}))
    known = binaries.versions(binaries.modules_directory(oldest))

    assert known["kube-apiserver"] == known["kubectl"] == "v1.31.4"
    assert (known["etcd"], known["kwok"]) == (newest["etcd"], newest["kwok"])
    assert binaries.find(oldest) != binaries.find({}) or binaries.find({}) is None
    with pytest.raises(BuildError, match="write newest or oldest"):
        binaries.modules_directory({binaries.KUBERNETES_VARIABLE: "1.31"})


def test_build_arguments_carry_the_version_of_kubernetes_only():
    """Without them /version shows a placeholder and clients misjudge the skew."""
    server = binaries.build_arguments(COMPONENTS[1], "v1.36.4")
    etcd = binaries.build_arguments(COMPONENTS[0], "v3.6.16")

    assert "version.gitVersion=v1.36.4" in " ".join(server)
    assert "version.gitMinor=36" in " ".join(server)
    assert "gitVersion" not in " ".join(etcd)


def test_cache_directory_changes_with_every_sum(tmp_path):
    """A cache that ignores an input would serve stale programs."""
    modules = tmp_path / "modules"
    shutil.copytree(binaries.modules_directory({}), modules)
    environ = {"REMEDIATOR_TESTBED_CACHE": str(tmp_path)}
    seen = {binaries.cache_directory(environ, modules)}
    for name in ("controlplane", "etcd", "kwok"):
        with open(modules / name / "go.sum", "a", encoding="utf-8") as sums:
            sums.write("\n")
        seen.add(binaries.cache_directory(environ, modules))

    assert len(seen) == 4


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"REMEDIATOR_TESTBED_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, Path("/a")),
        ({"XDG_CACHE_HOME": "/b"}, Path("/b/remediator/testbed")),
        ({}, Path.home() / ".cache" / "remediator" / "testbed"),
    ],
    ids=["own", "xdg", "home"],
)
def test_cache_directory_follows_the_environment(environ, expected):
    """A runner keeps caches where it says, not in the home folder."""
    assert binaries.cache_directory(environ, binaries.modules_directory({})).parent == expected


def test_build_makes_everything_once(tmp_path):
    """The second call must find all of it and call nothing."""
    environ = environment(tmp_path)
    seen: list[Progress] = []
    assert binaries.find(environ) is None
    built = binaries.build(environ, progress=seen.append)
    again = binaries.build(environ, progress=seen.append)

    assert built == again == binaries.find(environ)
    assert built.path("kwok").read_text() == "sigs.k8s.io/kwok/cmd/kwok\n"
    assert len((built.directory / "calls").read_text().splitlines()) == 6
    assert [(p.component, p.position, p.state) for p in seen[:2]] == [
        ("etcd", 1, "building"),
        ("etcd", 1, "built"),
    ]
    assert {p.state for p in seen[12:]} == {"cached"}


def test_build_by_two_at_once_does_the_work_once(tmp_path):
    """Two test workers on a fresh machine must not build everything twice, or half."""
    environ = environment(tmp_path, GO.replace('echo "built', 'sleep 0.05; echo "built'))
    threads = [threading.Thread(target=binaries.build, args=(environ,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    found = binaries.find(environ)

    assert found is not None
    assert len((found.directory / "calls").read_text().splitlines()) == 6


def test_build_says_what_is_left_out_when_there_is_no_go(tmp_path):
    """The newcomer without Go must read what to install and what they miss."""
    with pytest.raises(
        BuildError, match=r"needs Go >= 1\.26 .*no `go` in PATH; not built: etcd, kube-apiserver"
    ):
        binaries.build(environment(tmp_path, go=None))


@pytest.mark.parametrize("version", ["go1.25.9", "go1.9", "devel +abc"])
def test_build_refuses_a_go_that_is_too_old(tmp_path, version):
    """1.9 is older than 1.26, though not as text."""
    with pytest.raises(BuildError, match=r"needs Go >= 1\.26, .* says"):
        binaries.build(environment(tmp_path, GO.replace("go1.26.3", version)))


def test_build_shows_the_end_of_what_go_said_when_it_fails(tmp_path):
    """The cause is in the last lines; and no half-built file may pass for a program."""
    failing = (
        "#!/bin/sh\n[ $1 = env ] && { echo go1.26.3; exit 0; }\nseq 1 50; echo 'no space left' >&2; exit 1\n"
    )
    environ = environment(tmp_path, failing)
    with pytest.raises(
        BuildError, match=r"(?s)could not build etcd \(exit 1\):\n32\n.*no space left\n\(the last 20 of 51"
    ):
        binaries.build(environ)

    assert binaries.find(environ) is None


def test_build_goes_on_after_a_builder_that_died(tmp_path):
    """A killed builder leaves a partial file; it is removed and never taken for a program."""
    environ = environment(tmp_path)
    directory = binaries.cache_directory(environ, binaries.modules_directory({}))
    directory.mkdir(parents=True)
    leftover = directory / ".kwok.partial"
    leftover.write_text("half")
    binaries.build(environ)

    assert not leftover.exists()
