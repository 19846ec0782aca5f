"""How an individual came about: the merges on the way from base and founders, and one recipe for them all."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from merging.offspring.span import Genome, Span, child_seed
from merging.recipe.documents import Extent, models_of, with_models
from merging.recipe.schema import Recipe, parse_recipe
from search.ledger.ledger import Ledger, RunFacts
from search.ledger.records import Record


@dataclass(frozen=True)
class Descent:
    """What is known of how the individuals ``records`` (by id) of a run were made.

    span: of base, founders and stored children. founders: ids of the first two. genome: of an individual. seed: of the
    run.
    """

    span: Span
    records: Mapping[str, Record]
    founders: Collection[str]
    genome: Callable[[str], Genome]
    seed: int

    @classmethod
    def recorded(cls, ledger: Ledger, facts: RunFacts, records: Sequence[Record]) -> Self:
        """By what is on record of a run; genomes are read as they are asked for."""
        by_id = {record.id: record for record in records}

        def genome(id: str) -> Genome:
            return ledger.genomes([id])[id]

        return cls(Span.over(ledger.table()), by_id, facts.digests, genome, facts.config.seed)

    def recipe(self, id: str) -> Recipe:
        """How to make an individual of base and founders: one linear merge if it is one, else recipes inside recipes.

        That of a founder is itself with weight 1.

        A child outside the span, made by TIES say, is the merge that it was proposed as; what lies between is kept in
        float32 there, and in the models' dtype by the search. Raises `TooManyMerges` after many
        generations of such children.
        """
        made: dict[str, dict[str, Any]] = {}
        extents: dict[str, Extent] = {}

        def inside(model: Any) -> Any:
            return {"name": model} | made[model] if model in made else model

        for one, content in self._lineage(id).items():
            extents[one] = Extent.of(extents[model] for model in models_of(content) if model in extents)
            extents[one].require(f"The recipe of {id}", "Take its weights; the steps of its lineage tell each merge.")
            made[one] = with_models(content, inside)
        return parse_recipe(made[id])

    def last_step(self, id: str) -> Recipe:
        """The merge that an individual is of others, named by their ids; of a founder itself with weight 1."""
        return parse_recipe(self._own(id))

    def parents(self, id: str) -> list[str]:
        """Ids of base and founders whose weights are part of an individual, in the run's order."""
        own = {model for content in self._lineage(id).values() for model in models_of(content)}
        return [founder for founder in self.founders if founder in own]

    def steps(self, id: str) -> list[dict[str, Any]]:
        """Every merge on the way to an individual, ancestors first, with the seed of what was drawn at random."""
        needed: set[str] = set()
        queue = [id]
        while queue:
            last = queue.pop()
            if last not in needed and last not in self.founders:
                needed.add(last)
                queue += self.records[last].parents
        return [
            {
                "id": record.id,
                "parents": list(record.parents),
                "recipe": record.recipe,
                "seed": child_seed(self.seed, record.id),
            }
            for record in self.records.values()
            if record.id in needed
        ]

    def _lineage(self, id: str) -> dict[str, dict[str, Any]]:
        """The merges that an individual's recipe is made of, by id, what is needed first; itself is the last."""
        found: dict[str, dict[str, Any]] = {}
        queue = [id]
        while queue:
            last = queue.pop()
            if last not in found:
                found[last] = self._own(last)
                queue += [model for model in models_of(found[last]) if model not in self.founders]
        return {one: found[one] for one in self.records if one in found}

    def _own(self, id: str) -> dict[str, Any]:
        recipe = self.span.recipe_of(self.genome(id))
        made_apart = id not in self.founders and [entry.model for entry in recipe.models] == [id]
        return dict(self.records[id].recipe) if made_apart else recipe.to_dict()


def renamed(recipe: Recipe, names: Mapping[str, str]) -> Recipe:
    """The recipe with the ids in it, at whatever depth, replaced by ``names``."""

    def change(model: Any) -> Any:
        return names[model] if isinstance(model, str) else with_models(model, change)

    return parse_recipe(with_models(recipe.to_dict(), change))
