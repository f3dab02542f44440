"""The program's front door: quick, complete, and with codes that scripts can trust."""

from __future__ import annotations

import json
import subprocess
import sys

import click
import pytest

from remediator.cli import COMMANDS, cli, program_name
from remediator.cli.arguments import read_hash
from remediator.cli.exits import WRONG_USAGE
from remediator.core.plan import HASH_LENGTH

HEAVY = (
    "kubernetes",
    "aiohttp",
    "structlog",
    "prometheus_client",
    "apscheduler",
    "ruamel",
    "rich",
    "msgspec.yaml",
)
# Run in a process of its own: pytest itself has imported half of the list.
PROBE = """
import contextlib, io, json, sys, time
begin = time.process_time()
import click
bare_ms = (time.process_time() - begin) * 1000
from remediator.cli import cli
with contextlib.redirect_stdout(io.StringIO()) as said:
    cli.main(["--help"], standalone_mode=False)
spent_ms = (time.process_time() - begin) * 1000
assert "status" in said.getvalue()
print(json.dumps({"times": spent_ms / bare_ms, "modules": sorted(sys.modules)}))
"""


KUBECONFIG = """
current-context: silent
contexts: [{{name: silent, context: {{cluster: silent}}}}]
clusters: [{{name: silent, cluster: {{server: "http://127.0.0.1:{port}"}}}}]
"""


def probe() -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=30, check=True
    )
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_help_imports_no_client_library():
    """Completion runs at every press of the tab key."""
    modules = probe()["modules"]
    assert isinstance(modules, list)
    loaded = {str(name).partition(".")[0] for name in modules}

    assert not loaded & set(HEAVY)


def test_help_costs_at_most_two_and_a_half_times_what_click_alone_costs():
    """Bare click takes 40 ms of a quiet core, so this is 100; a ratio holds on a busy machine too."""
    ratios = [float(str(probe()["times"])) for _ in range(5)]

    assert min(ratios) < 2.5, ratios


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_is_there_and_says_what_it_does(name):
    """An entry that points nowhere breaks the help of all others."""
    command = cli.get_command(click.Context(cli), name)

    assert command is not None
    assert command.get_short_help_str()


@pytest.mark.parametrize(
    "name", ["status", "why", "plan", "show", "hold", "unhold", "pause", "resume", "cancel", "remediate",
             "adopt", "cleanup"],
)  # fmt: skip
def test_every_command_on_a_cluster_takes_the_same_options(name):
    """Who has learnt one has learnt all; each one shows an example."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    options = {word for parameter in command.params for word in parameter.opts}

    assert {"--kubeconfig", "--context", "--namespace"} <= options
    assert "Example: remediator" in (command.help or "")


def test_usage_names_the_kubectl_plugin():
    """kubectl runs a plugin as a program of its own name."""
    assert program_name("/usr/local/bin/kubectl-remediator") == "kubectl remediator"
    assert program_name("remediator") == "remediator"


@pytest.mark.parametrize(
    "words",
    [
        ("why",),
        ("hold", "gpu-1", "--reason", "x"),
        ("pause", "--pool", "a", "--playbook", "b", "--reason", "x"),
        ("adopt", "--until", "7d", "--reason", "x"),
        ("adopt", "gpu-1", "--cordoned", "--until", "7d", "--reason", "x"),
        ("remediate", "gpu-1"),
        ("status", "--kubeconfig", "/nowhere/at/all"),
    ],
    ids=["no node", "no length", "two scopes", "no nodes", "both", "no playbook", "no kubeconfig"],
)
def test_wrong_usage_exits_with_2_and_says_so_on_stderr(words):
    """Standard output stays empty: a pipe must never take a complaint for an answer."""
    done = run(*words)

    assert done.returncode == WRONG_USAGE, done.stderr
    assert done.stdout == ""
    assert "rror" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        (("hold", "gpu-1", "--for", "4x", "--reason", "x"), "write 90s, 15m, 2h30m or 14d"),
        (("hold", "gpu-1", "--for", "400d", "--reason", "x"), "between 1s and 366d"),
        (("hold", "node/GPU-1", "--for", "4h", "--reason", "x"), "write gpu-1"),
        (("hold", "gpu-1/status", "--for", "4h", "--reason", "x"), "is no name"),
        (("hold", "gpu-1", "--for", "4h", "--reason", " "), "say why"),
        (("pause", "--reason", "x", "--for", "soon"), "write 90s"),
        (("pause", "--pool", "../nodes", "--reason", "x"), "is no name"),
        (("adopt", "gpu-1", "--until", "tomorrow", "--reason", "x"), "write 90s"),
        (("adopt", "gpu-1", "--until", "2026-11-32", "--reason", "x"), "write 2026-12-01"),
        (("adopt", "gpu-1", "--until", "2020-01-01", "--reason", "x"), "not within the next 366 days"),
        (("remediate", "gpu-1", "--plan", "7f3c"), "write the 8 digits"),
        (("remediate", "gpu-1", "--playbook", "p", "--timeout", "6"), "write 90s"),
        (("plan", "gpu-1", "--playbook", ""), "is no name"),
        (("why", "gpu_1"), "write lower case letters"),
        (("show", "remediation/gpu-1-1"), "write gpu-1-1"),
        (("status", "--namespace", "a/b"), "is no name"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_value_is_told_before_anybody_is_asked(words, fix, tmp_path):
    """With the server away a typo would hide behind 20, and be met a second time after the outage."""
    path = tmp_path / "kubeconfig"
    path.write_text(KUBECONFIG.format(port=1))
    done = run(*words, "--kubeconfig", str(path))

    assert done.returncode == WRONG_USAGE, done.stderr
    assert done.stdout == ""
    assert fix in done.stderr


def test_hash_of_a_plan_is_read_as_plans_are_hashed():
    """The two are written down apart, so that the help stays quick."""
    assert read_hash("0" * HASH_LENGTH)
    with pytest.raises(ValueError, match="no hash"):
        read_hash("0" * (HASH_LENGTH + 1))


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "remediator", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
