"""The service's tables: those of an earlier program get what they lack; those of a later one are left alone."""

from pathlib import Path

import pytest
from sqlalchemy import inspect

from kinship.errors import LedgerError
from search.ledger.location import LedgerLocation
from service.jobs.table import Base, open_tables


@pytest.fixture
def place(tmp_path: Path) -> LedgerLocation:
    return LedgerLocation.of_file(tmp_path / "service.sqlite")


@pytest.mark.parametrize("missing", ["model", "slot"])
def test_a_table_that_an_earlier_program_did_not_have_is_made(place: LedgerLocation, missing: str) -> None:
    engine = open_tables(place)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DROP TABLE {missing}")
    engine.dispose()
    engine = open_tables(place)
    assert set(inspect(engine).get_table_names()) >= set(Base.metadata.tables)
    engine.dispose()


@pytest.mark.parametrize("damage", ["none of SQLite", "cut short", "flipped"])
def test_a_damaged_file_is_refused_and_left_as_it_is(place: LedgerLocation, damage: str) -> None:
    assert place.file is not None
    open_tables(place).dispose()
    content = bytearray(place.file.read_bytes())
    if damage == "none of SQLite":
        content[:] = b"no database" * 500
    elif damage == "cut short":
        del content[len(content) // 2 :]
    else:
        content[4200::50] = bytes(byte ^ 1 for byte in content[4200::50])
    place.file.write_bytes(content)
    with pytest.raises(LedgerError) as refused:
        open_tables(place)
    assert "move it away" in refused.value.hint
    assert place.file.read_bytes() == content


def test_tables_of_a_later_version_are_refused_and_left_as_they_are(place: LedgerLocation) -> None:
    engine = open_tables(place)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE service_version SET version = '99'")
        connection.exec_driver_sql("DROP TABLE model")
    with pytest.raises(LedgerError, match="version 99"):
        open_tables(place)
    assert "model" not in inspect(engine).get_table_names()
    engine.dispose()


@pytest.mark.parametrize("content", [b"no database at all" * 100, None])
def test_a_file_that_is_none_says_what_is_lost_with_it(place: LedgerLocation, content: bytes | None) -> None:
    """It is no ledger: nothing of a run is in it."""
    assert place.file is not None
    if content is None:
        place.file.mkdir()
    else:
        place.file.write_bytes(content)
    with pytest.raises(LedgerError, match=r"service's own file .*service\.sqlite cannot be used") as found:
        open_tables(place)
    assert "move it away" in (found.value.hint or "")
    assert "runs verify" not in found.value.hint
