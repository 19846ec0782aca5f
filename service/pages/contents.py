"""What a report shows of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Self

from kinship.measures.matrix import KinshipMatrix
from merging.offspring.span import Span
from merging.recipe.schema import Recipe, parse_recipe
from search.history.export import export_run
from search.history.lineage import shown
from search.ledger.ledger import Ledger
from search.strategies.recipes import BASE
from service.answers.export import Individual, RunExport
from service.answers.gains import TopKinship, related_tops, tops_of
from service.answers.scores import Split, SplitScore

MOST_RELATED = 200


@dataclass(frozen=True)
class RunContents:
    """A run's canonical export, and the kinship of its individuals, computed from their genomes.

    Of a large run, kinship is that of `search.history.lineage.shown` individuals. top: kinship among the best
    k, by generation.
    """

    run: RunExport
    kinship: KinshipMatrix
    top: Sequence[TopKinship] = ()

    @classmethod
    def open(cls, folder: Path, ledger: str | None = None) -> Self:
        """Read a run (``ledger``: see `Ledger.of_run`); raises `LedgerError` where ``folder`` holds none."""
        with Ledger.of_run(folder, ledger) as run:
            return cls.of(run)

    @classmethod
    def of(cls, ledger: Ledger) -> Self:
        """Read the run in an open ledger; raises `LedgerError` where it holds none."""
        export = export_run(ledger)
        records, strategy = ledger.records(), export["config"]["strategy"]
        span, metric = Span.over(ledger.table()), strategy["metric"]
        kinship = span.kinship(ledger.genomes(id for id in shown(export, MOST_RELATED) if id != BASE), metric)
        tops = tops_of(records, strategy["k"])
        best = ledger.genomes(id for id in dict.fromkeys(chain(*tops.values())) if id != BASE)
        top = related_tops(tops, span.kinship(best, metric)) if len(best) > 1 else []
        return cls(RunExport.model_validate(export), kinship, top)

    @cached_property
    def individuals(self) -> Mapping[str, Individual]:
        """The individuals by id."""
        return {individual.id: individual for individual in self.run.individuals}

    @cached_property
    def export(self) -> dict[str, Any]:
        """The export as plain data."""
        return self.run.content()

    @property
    def best_recipe(self) -> Recipe | None:
        """How to make the best offspring from base and founders in one step."""
        content = self.run.best_offspring_recipe
        return None if content is None else parse_recipe(content)

    def score(self, id: str | None, split: Split) -> SplitScore | None:
        """The score of an individual on a split, where it was scored."""
        return None if id is None else self.individuals[id].scores.get(split)
