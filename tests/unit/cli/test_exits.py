from __future__ import annotations

import re
from pathlib import Path

from remediator.cli import exits

PAGE = Path(__file__).parents[3] / "docs/cli.md"


def test_each_exit_code_is_in_the_table_of_the_docs_and_no_other():
    """Scripts are written against that table."""
    section = PAGE.read_text(encoding="utf-8").partition("## Exit codes")[2].partition("\n## ")[0]
    documented = [int(code) for code in re.findall(r"^\| (\d+) \|", section, re.M)]
    ours = [code for name, code in vars(exits).items() if name.isupper() and isinstance(code, int)]

    assert documented == sorted(ours)
