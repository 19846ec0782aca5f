from itertools import permutations
from typing import Any

import pytest

from merging.recipe.schema import parse_recipe
from search.strategies.base import Individual, Population, Proposal

MEMBERS = [
    Individual("b", 0, 0.5),
    Individual("a", 0, 0.5),
    Individual("c", 0, -0.1),
    Individual("1-1", 1, None, ("a", "b")),
    Individual("1-2", 1, 0.0, ("b", "c")),
]


def test_ranking_leaves_out_failures() -> None:
    assert Population(MEMBERS).ranked() == ["a", "b", "1-2", "c"]
    assert Population().ranked() == []


def test_equal_scores_are_ordered_by_error_then_by_weights() -> None:
    """Whatever they are called."""
    facts = [(0.5, 0.2, "w4"), (0.5, 0.1, "w9"), (0.5, 0.1, "w2"), (0.5, None, "w1"), (0.7, 0.9, "w8")]
    for names in permutations("abcde"):
        members = [
            Individual(name, 0, score, stderr=stderr, identity=identity)
            for name, (score, stderr, identity) in zip(names, facts, strict=True)
        ]
        population = Population(members)
        assert [population[id].identity for id in population.ranked()] == ["w8", "w2", "w9", "w4", "w1"]
        assert [population[id].identity for id in population.by_weights(names)] == ["w1", "w2", "w4", "w8", "w9"]


def test_generations_and_pairs() -> None:
    population = Population(MEMBERS)
    assert population.generation(0) == ["b", "a", "c"]
    assert population.generation(1) == ["1-2"]
    assert population.merged_pairs() == {frozenset("ab"), frozenset("bc")}
    population.add(Individual("2-1", 2, 1.0, ("c", "a")))
    assert population.ranked()[0] == "2-1"
    assert frozenset("ac") in population.merged_pairs()


def test_who_was_stopped_early_never_ranks_above_a_complete_one() -> None:
    early = Individual("1-3", 1, 9.0, ("a", "c"), stderr=0.2, complete=False)
    assert Population([*MEMBERS, early]).ranked() == ["a", "b", "1-2", "c", "1-3"]


@pytest.mark.parametrize(
    ("recipe", "parents"),
    [
        ({"merge_method": "linear", "models": ["a", "b"], "parameters": {"weight": 1}}, ("a", "b")),
        (
            {"merge_method": "linear", "models": ["a"], "base_model": "base", "parameters": {"weight": 1, "scale": 2}},
            ("a",),
        ),
        ({"merge_method": "slerp", "models": ["b", "a"], "base_model": "a", "parameters": {"t": 0.3}}, ("a", "b")),
        ({"merge_method": "linear", "models": ["base", "a", "a"], "parameters": {"weight": 1}}, ("base", "a")),
        (
            {"merge_method": "ties", "models": ["base", "b"], "base_model": "base", "parameters": {"weight": 1}},
            ("b",),
        ),
    ],
)
def test_parents_are_who_is_merged_each_once(recipe: dict[str, Any], parents: tuple[str, ...]) -> None:
    content = recipe | {"models": [{"model": model} for model in recipe["models"]]}
    assert Proposal(parse_recipe(content), "greedy").parents == parents
