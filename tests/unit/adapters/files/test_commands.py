"""The commands print what people and scripts rely on, and exit as documented."""

import json
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

from remediator.cli.generate import generate
from remediator.cli.playbook import playbook
from tests.unit.adapters.files.examples import a_playbook, a_policy

ROOT = Path(__file__).resolve().parents[4]


def test_lint_exits_with_13_on_a_bad_file(tmp_path: Path):
    """Scripts tell a lint failure from a crash by the code."""
    path = tmp_path / "a.yaml"
    path.write_text("kind: Playbok\n")

    result = CliRunner().invoke(playbook, ["lint", str(path)])

    assert result.exit_code == 13
    assert f"{path}:1:1: kind: unknown kind 'Playbok'" in result.stdout


def test_lint_fails_on_warnings_only_when_strict(tmp_path: Path):
    """A warning is a question, unless the team says otherwise."""
    made = a_playbook()
    made["metadata"]["annotations"] = {}
    path = tmp_path / "a.json"
    path.write_text(json.dumps(made))

    loose = CliRunner().invoke(playbook, ["lint", str(path), "-o", "json"])
    strict = CliRunner().invoke(playbook, ["lint", str(path), "--strict"])

    assert loose.exit_code == 0
    assert [row["rule"] for row in json.loads(loose.stdout)] == ["runbook-missing"]
    assert strict.exit_code == 13


def test_lint_passes_the_shipped_playbooks():
    """The first command a new user runs must not fail."""
    result = CliRunner().invoke(playbook, ["lint", "--strict", str(ROOT / "playbooks")])

    assert result.exit_code == 0, result.output


def test_show_spells_the_defaults_out():
    """What the file leaves out is what surprises people."""
    result = CliRunner().invoke(playbook, ["show", str(ROOT / "playbooks/gpu-off-bus.yaml")])

    assert result.exit_code == 0
    assert "step 4    drain: drain deadline 30m, protectDeadline 24h" in result.stdout


def test_show_says_when_there_is_no_playbook(tmp_path: Path):
    """Empty output would read as success."""
    path = tmp_path / "a.json"
    path.write_text(json.dumps(a_policy()))

    assert CliRunner().invoke(playbook, ["show", str(path)]).exit_code == 1


def test_schema_is_json():
    """Editors are pointed at its output."""
    result = CliRunner().invoke(playbook, ["schema", "playbook"])

    assert json.loads(result.stdout)["properties"]["kind"] == {"const": "Playbook"}


def test_generate_check_passes_here_and_refuses_elsewhere(tmp_path: Path):
    """CI calls it; run in a wrong directory it must not write there."""
    assert CliRunner().invoke(generate, ["--check", "--root", str(ROOT)]).exit_code == 0
    assert CliRunner().invoke(generate, ["--root", str(tmp_path)]).exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_commands_import_nothing_heavy_until_they_run():
    """`remediator --help` has 150 ms, and a YAML reader alone takes a third of that."""
    code = "import sys, remediator.cli.playbook, remediator.cli.generate; print('ruamel.yaml' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)

    assert done.stdout.strip() == "False"
