"""Evolutionary search over merges: strategies, the ledger of a run, the coordinator and what is told of a run later.

The public names are imported on first use, so that ``import search`` stays fast: see PEP 562. `search.testing` has the
checks for strategies of your own.
"""

from typing import TYPE_CHECKING

from kinship.faces import lazy_face

if TYPE_CHECKING:
    from search.config import RunConfig as RunConfig
    from search.config import load_config as load_config
    from search.config import parse_config as parse_config
    from search.history.archive import archive as archive
    from search.history.archive import restore as restore
    from search.history.audit import verify_ledger as verify_ledger
    from search.history.export import export_run as export_run
    from search.history.lineage import lineage_of as lineage_of
    from search.ledger.ledger import Ledger as Ledger
    from search.ledger.location import LedgerLocation as LedgerLocation
    from search.ledger.records import Record as Record
    from search.ledger.records import best_offspring as best_offspring
    from search.ledger.records import ranked as ranked
    from search.running.coordinator import Search as Search
    from search.running.events import Observer as Observer
    from search.strategies.base import Context as Context
    from search.strategies.base import Individual as Individual
    from search.strategies.base import Proposal as Proposal
    from search.strategies.base import Strategy as Strategy

_HOMES = {
    "Context": "search.strategies.base",
    "Individual": "search.strategies.base",
    "Ledger": "search.ledger.ledger",
    "LedgerLocation": "search.ledger.location",
    "Observer": "search.running.events",
    "Proposal": "search.strategies.base",
    "Record": "search.ledger.records",
    "RunConfig": "search.config",
    "Search": "search.running.coordinator",
    "Strategy": "search.strategies.base",
    "archive": "search.history.archive",
    "best_offspring": "search.ledger.records",
    "export_run": "search.history.export",
    "lineage_of": "search.history.lineage",
    "load_config": "search.config",
    "parse_config": "search.config",
    "ranked": "search.ledger.records",
    "restore": "search.history.archive",
    "verify_ledger": "search.history.audit",
}

__all__ = sorted(_HOMES)


__getattr__ = lazy_face(__name__, _HOMES)
