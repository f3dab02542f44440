"""What the pages say of playbooks, gates and commands is there, and their own examples run."""

import ast
import inspect
import re
from pathlib import Path

import click
import msgspec
import pytest

from remediator.adapters.files.loader import load_objects
from remediator.adapters.files.testfile import HAPPENINGS
from remediator.app.rehearsal.rehearse import rehearse
from remediator.cli import COMMANDS, cli
from remediator.core import gates
from remediator.model.playbook import (
    DrainStep,
    JobRepair,
    Matcher,
    Playbook,
    PlaybookSpec,
    Step,
    SwapStep,
    VerifyStep,
)

ROOT = Path(__file__).resolve().parents[2]
RUNBOOKS = ROOT / "docs/runbooks"
OPERATIONS = (RUNBOOKS / "operations.md").read_text(encoding="utf-8")
PLAYBOOKS = (ROOT / "docs/playbooks.md").read_text(encoding="utf-8")
PAGES = [*sorted(RUNBOOKS.glob("*.md")), ROOT / "docs/playbooks.md"]


def shipped() -> list[Playbook]:
    found = (each.value for each in load_objects([ROOT / "playbooks"]))
    return [each for each in found if isinstance(each, Playbook)]


def test_every_shipped_playbook_has_its_runbook():
    """The annotation is what an alert links to at three in the morning."""
    for playbook in shipped():
        page = ROOT / (playbook.metadata.annotations or {})["remediator.dev/runbook"]
        text = page.read_text(encoding="utf-8")

        assert text.startswith(f"# {playbook.metadata.name}\n")
        classes = {each.fault_class or playbook.spec.fault_class for each in playbook.spec.match.any_of}
        for fault_class in classes:
            assert f"`{fault_class}`" in text
        for matcher in playbook.spec.match.any_of:
            if matcher.node_condition:
                assert matcher.node_condition.type in text
            if matcher.xid:
                assert all(str(code) in text for code in matcher.xid.codes)
            if matcher.gpu_metric:
                assert matcher.gpu_metric.field in text
        for part in ("## What the program does", "## How it ends", "## False alarm"):
            assert part in text


def test_operations_names_every_reason_of_every_gate():
    """Whoever reads a code in an Event searches this page for it."""
    texts = {
        node.value
        for node in ast.walk(ast.parse(inspect.getsource(gates)))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    codes = {text for text in texts if re.fullmatch(r"([A-Z][a-z]+){2,}", text)} - {"WithoutSpare"}

    assert {"HoldActive", "BreakerOpen", "OldTerm"} <= codes
    assert {code for code in codes if f"`{code}`" not in OPERATIONS} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    """A dead link in a runbook costs minutes when they count."""
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^a-z0-9 -]", "", each.lower()).replace(" ", "-") for each in headings}
            assert anchor in anchors, target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_the_pages_exist(page: Path):
    """A command that was renamed must not be found out in an incident."""
    context = click.Context(cli)
    for name, rest in re.findall(r"[`$ ]remediator ([a-z]+)([^`\n]*)", page.read_text(encoding="utf-8")):
        if name not in COMMANDS:
            continue  # prose: "of remediator on the cluster"
        command = cli.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            sub = rest.split()[0]
            assert sub in command.commands
            command = command.commands[sub]
        known = {option for each in command.params for option in each.opts}
        for option in re.findall(r" (--?[a-z-]+)", rest.split("#")[0].split('"')[0]):
            assert option in known, f"{name} {option}"


def test_playbooks_page_names_every_key():
    """A key that nobody explained is used wrongly."""
    keys = {
        field.encode_name
        for type_ in (PlaybookSpec, Matcher, Step, DrainStep, SwapStep, VerifyStep, JobRepair)
        for field in msgspec.structs.fields(type_)
    }

    missing = {
        key for key in (keys | set(HAPPENINGS)) if not re.search(rf"[`{{ .]{key}[`:}}, .(]", PLAYBOOKS)
    }

    assert missing == set()


def test_examples_of_the_playbooks_page_run_as_they_stand(tmp_path: Path):
    """An example that fails teaches distrust."""
    fleet, test = re.findall(r"```yaml\n(.*?)```", PLAYBOOKS, re.DOTALL)
    (tmp_path / "small.yaml").write_text(fleet, encoding="utf-8")
    (tmp_path / "test.yaml").write_text(test, encoding="utf-8")
    playbook = (ROOT / "playbooks/gpu-off-bus.yaml").read_text(encoding="utf-8")
    (tmp_path / "gpu-off-bus.yaml").write_text(playbook, encoding="utf-8")

    results = rehearse([tmp_path / "test.yaml"])

    assert [str(problem) for each in results for problem in each.problems] == []
    assert len(results) == 3
