"""``remediator generate`` makes every generated file, those of other adapters too."""

from pathlib import Path

from click.testing import CliRunner

from remediator.adapters.files.generated import write_files
from remediator.adapters.telemetry.table import METRICS
from remediator.cli.generate import generate, metrics_page

ROOT = Path(__file__).resolve().parents[3]


def test_check_passes_on_this_tree():
    """A stale page tells of a metric that is not there; run `make generate`."""
    result = CliRunner().invoke(generate, ["--check", "--root", str(ROOT)])

    assert result.exit_code == 0, result.output


def test_check_names_a_metrics_page_that_is_stale(tmp_path: Path):
    """It is made outside of the registry of files: forgetting it must not go unseen."""
    (tmp_path / "remediator/model").mkdir(parents=True)
    write_files(tmp_path)

    result = CliRunner().invoke(generate, ["--check", "--root", str(tmp_path)])

    assert result.exit_code == 1
    assert "docs/reference/metrics.md is stale" in result.output


def test_metrics_page_names_every_metric():
    """Who wakes to an alert looks its metric up there."""
    (page,) = metrics_page().values()

    assert [name for name in METRICS if f"| `{name}` |" not in page] == []
