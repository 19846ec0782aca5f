"""Ledgers as the programs of earlier versions wrote them, with what those exported of them.

One a version, made once by that version: a run of three founders and two generations with a failure, small.
"""

import shutil
from pathlib import Path

from search.ledger.database import LEDGER_NAME

FROZEN = Path(__file__).parent


def thawed(version: str, folder: Path) -> Path:
    """A copy in ``folder``, to be opened and so changed."""
    path = folder / LEDGER_NAME
    shutil.copy(FROZEN / f"ledger-v{version}.sqlite", path)
    return path
