"""Documents that name each other: what a few lines may ask for."""

import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from kinship.errors import InvalidConfig
from merging.recipe.documents import DEEPEST, MOST_MERGES, TooManyMerges, models_of, separate
from merging.recipe.schema import load_recipe

Documents = list[dict[str, Any]]


def linear(*models: object) -> dict[str, Any]:
    return {"merge_method": "linear", "parameters": {"weight": 1.0}, "models": [{"model": model} for model in models]}


def generations(count: int, parents: int = 2) -> Documents:
    """Each merges the latest ones before it, as a search's children do."""
    names = [f"founder-{number}" for number in range(parents)]
    found: Documents = []
    for number in range(count):
        found.append({"name": f"g-{number}"} | linear(*names[-parents:]))
        names.append(f"g-{number}")
    return found


def write(folder: Path, documents: Documents) -> Path:
    path = folder / "recipe.yml"
    path.write_text(yaml.safe_dump_all(documents), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "documents",
    [
        generations(40),  # 330 million merges
        generations(1000),  # a number of 200 digits
        generations(2000, parents=1),
        [{"name": "a"} | linear("x", "y"), linear(*["a"] * (MOST_MERGES + 1))],
    ],
    ids=["exponential", "long and exponential", "one after another", "wide"],
)
def test_short_documents_that_are_many_merges_are_refused(tmp_path: Path, documents: Documents) -> None:
    began = time.process_time()
    with pytest.raises(TooManyMerges, match=f"at most {MOST_MERGES:,}, {DEEPEST} in one another"):
        load_recipe(write(tmp_path, documents))
    assert time.process_time() - began < 20  # without the bound it is for ever


def test_a_lineage_within_bounds_is_one_recipe_and_comes_back_in_documents(tmp_path: Path) -> None:
    documents = generations(12)
    recipe = load_recipe(write(tmp_path, documents))
    assert set(recipe.references) == {"founder-0", "founder-1"}
    assert len(separate(recipe.to_dict())) == len(documents)
    deep = load_recipe(write(tmp_path, generations(DEEPEST, parents=1)))
    assert deep.to_yaml().count("---") == DEEPEST - 1


def test_a_circle_is_told_as_one_however_long(tmp_path: Path) -> None:
    circle = [{"name": f"c-{number}"} | linear(f"c-{(number + 1) % 30}", "x") for number in range(30)]
    with pytest.raises(InvalidConfig, match="needs itself"):
        load_recipe(write(tmp_path, [*circle, linear("c-0", "y")]))


def test_models_are_listed_as_often_as_they_stand_there() -> None:
    assert models_of(linear("a", linear("b"), "a") | {"base_model": "c"}) == ["a", linear("b"), "a", "c"]
