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
