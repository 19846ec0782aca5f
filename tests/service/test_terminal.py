import re
from pathlib import Path

import pytest
from rich.table import Table

from service.terminal import Terminal


@pytest.mark.parametrize("columns", ["0", "1", "7", "-3", "x", "200"])
def test_a_table_can_be_read_whatever_the_width_is_said_to_be(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    table = Table("model", "kinship")
    table.add_row("max-add", "0.3259")
    Terminal().print(table)
    assert any("max-add" in line and "0.3259" in line for line in capsys.readouterr().out.splitlines())


def test_a_title_is_whole_above_a_table_that_is_narrower(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("a", title="A title of many words, [red]none[/] of which goes to another line")
    table.add_row("1")
    Terminal().print(table)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].rstrip() == "A title of many words, [red]none[/] of which goes to another line"
    assert max(map(len, printed[1:])) < 10


def test_percentages_are_written_one_way() -> None:
    """As 66.46 %, not as 66.46%, which the format of that name makes."""
    for package in ("kinship", "merging", "evaluators", "search", "service"):
        for file in (Path(__file__).parents[2] / package).rglob("*.py"):
            found = re.search(r":\.?\d*%\}", file.read_text())
            assert found is None, f"{file} has {found and found[0]}"
