"""Recipes of individuals whose lineage is shared: the same ancestor in many places."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from kinship.measures.gram import GramTable
from merging.offspring.span import Genome, Span
from merging.recipe.documents import TooManyMerges
from search.history.descent import Descent
from search.ledger.records import Record

FOUNDERS = ("base", "one", "two")


def ties(*models: str) -> dict[str, Any]:
    merged = [{"model": model} for model in models]
    return {"merge_method": "ties", "base_model": "base", "models": merged, "parameters": {"density": 0.5}}


def descent(generations: int) -> Descent:
    """A run by TIES, each child of which is stored and has the latest two for its parents."""
    ids = [*FOUNDERS, *(f"{number}-1" for number in range(1, generations + 1))]
    records: dict[str, Record] = {id: Record(id, 0, "founder", (), {}, id) for id in FOUNDERS}
    for place in range(len(FOUNDERS), len(ids)):
        parents = (ids[place - 2], ids[place - 1])
        records[ids[place]] = Record(ids[place], place - 2, "offspring", parents, ties(*parents), ids[place])
    size = len(ids)
    table = GramTable(tuple(ids), ("w",), np.ones(1), np.zeros((1, size)), np.zeros((1, size, size)))
    genomes: Mapping[str, Genome] = {id: Genome(np.eye(size)[[place]]) for place, id in enumerate(ids)}
    return Descent(Span.over(table), records, FOUNDERS, genomes.__getitem__, seed=0)


def test_an_individual_of_few_generations_is_recipes_inside_recipes() -> None:
    found = descent(8)
    recipe = found.recipe("8-1")
    assert set(recipe.references) == set(FOUNDERS)
    assert recipe.to_yaml().count("merge_method: ties") == 8  # each once
    assert found.parents("8-1") == list(FOUNDERS)
    assert found.recipe("one").references == ("one",)


def test_of_many_generations_the_recipe_is_refused_and_the_rest_is_told() -> None:
    found = descent(400)
    with pytest.raises(TooManyMerges, match="The recipe of 400-1 is more than 1,000 merges"):
        found.recipe("400-1")
    assert found.parents("400-1") == list(FOUNDERS)
    assert found.last_step("400-1").merged == ("398-1", "399-1")
    assert len(found.steps("400-1")) == 400
