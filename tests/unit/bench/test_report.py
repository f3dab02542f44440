from __future__ import annotations

import msgspec
import pytest

from bench import report
from bench.__main__ import PAGE, PUBLISHED
from bench.machine import Machine
from bench.results import Count, Finding, Result, a_series, at_least, at_most, load, save
from bench.shortfalls import SHORTFALLS


def a_result(figure: str = "figure", **finding: object) -> Result:
    return Result(
        figure=figure,
        title="What it is.",
        measured_at="2026-01-01T00:00:00Z",
        took_s=1.0,
        seed=7,
        command="python -m bench figure",
        commit="abc",
        changed_files=0,
        machine=Machine(cpu="cpu", cores=2, memory_gb=8.0, kernel="6", load_1m=0.5),
        versions={"python": "3.11"},
        finding=Finding(**finding),  # type: ignore[arg-type]
    )


def test_result_survives_its_file(tmp_path):
    """What was published is what the page is made of, raw samples included."""
    result = a_result(
        series=(a_series("ours", "ms", [3.0, 1.0, 2.0]),), checks=(at_most("ratio", 1.2, 1.25),)
    )

    save(result, tmp_path)

    assert load(tmp_path) == [result]
    assert result.finding.series[0].samples == (3.0, 1.0, 2.0)


@pytest.mark.parametrize(
    ("check", "met"),
    [
        (at_most("x", 1.25, 1.25), True),
        (at_most("x", 1.2501, 1.25), False),
        (at_least("x", 1_500, 1_500), True),
        (at_least("x", 1_499, 1_500), False),
    ],
)
def test_target_is_met_at_the_limit(check, met):
    """The limit itself is good, on either side."""
    assert check.met is met
    assert ("| met |" if met else "| missed |") in report.page([a_result(checks=(check,))])


def test_missed_target_is_published():
    """The page has no way to leave a bad figure out."""
    page = report.page([a_result(checks=(at_most("P50 to bare P50", 1.9, 1.25),))])

    assert "| [figure](#figure) | P50 to bare P50 | 1.9 | <= 1.25 | missed |" in page


def test_table_holds_every_series_check_and_count():
    """The terminal shows what the file holds."""
    text = report.table(
        a_result(
            series=(a_series("ours", "ms", [1.0]), a_series("bare", "ms", [2.0])),
            checks=(at_most("ratio", 0.5, 1.0),),
            counts=(Count(name="patch nodes", value=4.0),),
        )
    )

    assert [word for word in ("ours", "bare", "ratio", "patch nodes") if word not in text] == []


def test_result_file_is_plain_json(tmp_path):
    """Other tools read it."""
    path = save(a_result(), tmp_path)

    assert msgspec.json.decode(path.read_bytes())["machine"]["cores"] == 2


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, "0"), (4.0, "4"), (1234567.0, "1,234,567"), (1234.5, "1,234"), (39.123, "39.1"), (0.24811, "0.248")],
)
def test_numbers_are_short(value, expected):
    """Digits beyond the noise are not information."""
    assert report.number(value) == expected


def test_page_in_the_docs_is_that_of_the_published_results():
    """A figure that somebody typed, or forgot to write anew, was not measured."""
    assert PAGE.read_text(encoding="utf-8") == report.page(load(PUBLISHED))


def test_each_missed_target_has_its_reason():
    """And none is left that explains what has been met since."""
    missed = {
        (result.figure, check.name)
        for result in load(PUBLISHED)
        for check in result.finding.checks
        if not check.met
    }
    assert set(SHORTFALLS) == missed
    page = PAGE.read_text(encoding="utf-8")
    assert all(reason in page for reason in SHORTFALLS.values())
