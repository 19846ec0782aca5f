"""Runs: which there are, what is in one, how several compare."""

from pathlib import Path

from kinship.errors import LedgerError
from search.ledger.database import Place, runs_in
from search.ledger.ledger import Ledger


def open_run(name: str) -> Ledger:
    """The ledger of a run that is there: by its folder, or as URL#NAME. Raises `LedgerError` where there is none."""
    if "://" not in name:
        return Ledger.of_run(Path(name))
    place = Place.parse(name)
    if place.run not in runs_in(place):
        raise LedgerError(f"There is no run {place}.", hint="`kinship runs list URL` tells which there are.")
    return Ledger(place)
