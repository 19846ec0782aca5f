"""Would this program have proposed what a ledger says was proposed? From the ledger alone: no weights are read."""

from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby

from merging.span import Span
from search.config import RunConfig
from search.ledger import Ledger, RunFacts
from search.mating import BASE
from search.records import Record
from search.relations import Relations
from search.strategies.base import Context
from search.strategies.make import make_strategy

GENOMES = 2048  # kept at hand


def replayed(ledger: Ledger, facts: RunFacts) -> Iterator[tuple[int, bool]]:
    """Each recorded generation, and whether a fresh strategy, told of those before it, proposes it.

    Ends after the first that differs, and before one whose parents' generation has no scores yet. A generation that a
    budget cut short is compared as far as it goes. Cost: that of the strategy, and the kinship it asks for.
    """
    config = RunConfig.model_validate(facts.config)
    records = {record.id: record for record in ledger.records()}
    span = Span.over(ledger.table())
    genome = lru_cache(maxsize=GENOMES)(lambda id: ledger.genomes([id])[id].padded(len(span.ids)))
    relations = Relations(
        config.strategy.metric,
        lambda: span,
        genome,
        lambda id: records[id].fitness,
        lambda id: ledger.results(records[id].twin or id, "search"),
    )
    founders = [records[id] for id in facts.table.rows[1:]]
    if not all(record.done for record in [records[BASE], *founders]):
        return
    context = Context(
        records[BASE].individual(),
        tuple(record.individual() for record in founders),
        facts.table.names,
        relations.closeness,
        relations.complementarity,
        lambda: facts.table.total()[0],
    )
    strategy = make_strategy(config.strategy, config.merge, context, config.seed, facts.budget)
    offspring = sorted((record for record in records.values() if record.generation > 0), key=_generation)
    for generation, group in groupby(offspring, key=_generation):
        recorded = list(group)
        proposals = strategy.ask()[: len(recorded)]
        same = [(each.recipe.to_dict(), each.role, each.parents) for each in proposals] == [
            (record.recipe, record.role, record.parents) for record in recorded
        ]
        yield generation, same
        if not (same and all(record.done for record in recorded)):
            return
        strategy.tell([record.individual() for record in recorded])


def _generation(record: Record) -> int:
    return record.generation
