"""A disk that is full is no damaged ledger."""

from dataclasses import replace
from pathlib import Path

import pytest

from kinship.errors import LedgerError
from search.ledger.ledger import Ledger
from search.ledger.location import LEDGER_NAME
from tests.search.ledger.test_ledger import FACTS


def test_a_full_disk_is_told_from_a_damaged_ledger(tmp_path: Path) -> None:
    with Ledger(tmp_path / LEDGER_NAME) as ledger:
        with ledger.engine.connect() as connection:  # the pool hands the same one out again
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        facts = replace(FACTS, conditions={"filler": "x" * 100_000})
        with pytest.raises(LedgerError, match=r"could not be written: .*full") as caught:
            ledger.start(facts)
        assert "--resume" in caught.value.hint
    (tmp_path / "other.sqlite").write_bytes(b"rubbish" * 1000)
    with pytest.raises(LedgerError, match="not a readable ledger"):
        Ledger(tmp_path / "other.sqlite")
