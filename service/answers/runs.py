"""Runs: which there are, what is in one, how several compare."""

from pathlib import Path

from kinship.errors import LedgerError
from search.ledger.database import runs_in
from search.ledger.ledger import Ledger
from search.ledger.location import LedgerLocation


def open_run(name: str) -> Ledger:
    """The ledger of a run that is there: by its folder, or as URL#NAME. Raises `LedgerError` where there is none."""
    if "://" not in name:
        return Ledger.of_run(Path(name))
    location = LedgerLocation.parse(name)
    if location.run not in runs_in(location):
        raise LedgerError(f"There is no run {location}.", hint="`kinship runs list URL` tells which there are.")
    return Ledger(location)
