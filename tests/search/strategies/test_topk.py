import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from kinship.measures.metrics import get_metric
from search.strategies.base import Context, Individual, Proposal
from search.strategies.recipes import recipe_for
from search.strategies.settings import MergeSettings, StrategySettings
from search.strategies.topk import TopKGreedy


def unrelated(one: str, other: str) -> float:
    return 0.0


def table(values: Mapping[str, float], metric: str = "pcc") -> Any:
    """Closeness from values of a metric by pair, written "a b"; pairs not listed have none."""

    def closeness(one: str, other: str) -> float:
        value = values.get(f"{one} {other}", values.get(f"{other} {one}", math.nan))
        return get_metric(metric).closeness(value)

    return closeness


def founders(**scores: float) -> list[Individual]:
    return [Individual(id, 0, score) for id, score in scores.items()]


def context(given: Sequence[Individual], closeness: Any = unrelated, complementarity: Any = unrelated) -> Context:
    return Context(Individual("base", 0, 0.0), tuple(given), (), closeness, complementarity, lambda: np.zeros((0, 0)))


def strategy(
    given: list[Individual],
    closeness: Any = unrelated,
    seed: int = 0,
    complementarity: Any = unrelated,
    **settings: Any,
) -> TopKGreedy:
    chosen = StrategySettings.model_validate({"name": "topk", "variant": "vanilla"} | settings)
    return TopKGreedy(chosen, MergeSettings(), context(given, closeness, complementarity), seed)


def give(search: TopKGreedy, generation: int, *scores: float | None) -> list[Proposal]:
    """Answer what the strategy asks for with these scores; returns what it asked for."""
    proposals = search.ask()
    assert len(proposals) >= len(scores)
    search.tell(
        [
            Individual(f"{generation}-{number}", generation, score, proposal.parents)
            for number, (proposal, score) in enumerate(zip(proposals, scores, strict=False), 1)
        ]
    )
    return proposals


def pairs(proposals: list[Proposal], role: str = "greedy") -> list[tuple[str, ...]]:
    return [proposal.parents for proposal in proposals if proposal.role == role]


def test_the_first_generation_merges_all_pairs_better_parent_first() -> None:
    search = strategy(founders(a=0.1, b=0.4, c=0.3, d=0.2), variant="kinship", k=2)
    asked = search.ask()
    assert pairs(asked) == list(combinations(["b", "c", "d", "a"], 2))
    assert asked[0].recipe == recipe_for(("b", "c"), MergeSettings())


def test_equal_scores_are_ordered_by_id() -> None:
    search = strategy(founders(c=0.5, b=0.5, a=0.2, d=0.5))
    assert pairs(search.ask()) == [("b", "c"), ("b", "d"), ("b", "a"), ("c", "d"), ("c", "a"), ("d", "a")]
    assert search.top == ["b", "c", "d"]


def test_later_generations_merge_the_best_whatever_their_generation() -> None:
    search = strategy(founders(a=0.5, b=0.4, c=0.3))
    assert pairs(give(search, 1, 0.45, 0.1, 0.6)) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert search.top == ["1-3", "a", "1-1"]
    assert pairs(give(search, 2, 0.2, 0.7, 0.3)) == [("1-3", "a"), ("1-3", "1-1"), ("a", "1-1")]
    assert search.top == ["2-2", "1-3", "a"]
    assert pairs(search.ask()) == [("2-2", "1-3"), ("2-2", "a")]  # 1-3 and a were merged in generation 2


def test_a_pair_is_never_merged_again_in_the_other_order() -> None:
    search = strategy(founders(a=0.5, b=0.4), k=2)
    give(search, 1, 0.45)  # a (0.5), 1-1 (0.45)
    assert pairs(give(search, 2, 0.47)) == [("a", "1-1")]
    assert pairs(give(search, 3, 0.6)) == [("a", "2-1")]
    assert search.top == ["3-1", "a"]
    assert pairs(give(search, 4, 0.55)) == [("3-1", "a")]
    assert pairs(search.ask()) == [("3-1", "4-1")]


def test_it_stops_when_the_best_stay_the_same() -> None:
    search = strategy(founders(a=0.5, b=0.4, c=0.3))
    give(search, 1, 0.1, 0.2, 0.25)
    assert search.ask() == []
    search = strategy(founders(a=0.5, b=0.4, c=0.3))
    give(search, 1, 0.1, 0.2, 0.35)
    give(search, 2, 0.1, 0.2)
    assert search.ask() == []


@pytest.mark.parametrize("variant", ["kinship", "random"])
def test_it_stops_when_the_best_stay_the_same_though_a_partner_is_left(variant: str) -> None:
    search = strategy(founders(a=0.5, b=0.4, c=0.3, d=0.2), variant=variant, partner_pool="all")
    give(search, 1, *[0.1] * 6)
    assert search.ask() == []


def test_another_order_among_the_same_best_does_not_count_as_a_change() -> None:
    search = strategy(founders(a=0.5, b=0.4, c=0.3), k=2)
    give(search, 1, 0.45, 0.1, 0.1)
    assert search.top == ["a", "1-1"]
    give(search, 2, 0.3)
    assert search.ask() == []


def test_a_pair_whose_child_failed_is_not_tried_again_nor_the_child_selected() -> None:
    search = strategy(founders(a=0.5, b=0.4, c=0.1))
    give(search, 1, None, 0.3, 0.2)
    assert search.top == ["a", "b", "1-2"]
    assert pairs(search.ask()) == [("a", "1-2"), ("b", "1-2")]


def test_a_generation_of_failures_ends_the_search() -> None:
    search = strategy(founders(a=0.5, b=0.4, c=0.3))
    give(search, 1, None, None, None)
    assert search.ask() == []


def test_a_generation_cut_short_leaves_its_other_pairs_to_the_next() -> None:
    search = strategy(founders(a=0.5, b=0.4, c=0.3))
    give(search, 1, 0.45)
    assert pairs(search.ask()) == [("a", "1-1"), ("1-1", "b")]


def grown(
    pool: str, values: Mapping[str, float], variant: str = "kinship", third: Sequence[float] = (), **options: Any
) -> TopKGreedy:
    """A search in generation 3; best is 2-1 (1-1 + a), then 1-1 (a + b) and a (founder), far behind the others.

    third: the score of a third child in generation 2, of 1-1 and the partner that was chosen for it.
    """
    search = strategy(founders(a=0.6, b=0.4, c=0.1), table(values), variant=variant, partner_pool=pool, **options)
    give(search, 1, 0.7, 0.2, 0.15)
    assert search.top == ["1-1", "a", "b"]
    asked = give(search, 2, 0.8, 0.3, *third)
    assert pairs(asked) == [("1-1", "a"), ("1-1", "b")]
    assert search.top == ["2-1", "1-1", "a"]
    return search


KINSHIP = {
    "1-1 c": 0.9, "2-1 1-1": -0.99, "2-1 a": -0.98, "2-1 1-2": 0.3, "2-1 1-3": 0.4, "2-1 b": 0.1, "2-1 2-2": 0.2,
    "2-1 c": 0.05,
}  # fmt: skip


@pytest.mark.parametrize(("pool", "partner"), [("previous", "1-2"), ("all", "2-3"), ("outside", "2-3")])
def test_the_partner_is_the_least_related_of_its_pool_not_merged_yet(pool: str, partner: str) -> None:
    # In generation 2 the pool `previous` are the founders, of which 1-1 has merged with none but gets a and b.
    search = grown(pool, KINSHIP | {"2-1 2-3": 0.01}, third=[0.2])  # 2-3 is of 1-1 and c
    assert pairs(search.ask(), "exploration") == [("2-1", partner)]


def test_the_pool_of_the_second_generation_are_the_founders() -> None:
    values = {"1-1 c": 0.9, "1-1 1-2": -0.5, "1-1 1-3": 0.1}
    previous, everyone = (
        strategy(founders(a=0.6, b=0.4, c=0.1), table(values), variant="kinship", partner_pool=pool)
        for pool in ("previous", "all")
    )
    for search in (previous, everyone):
        give(search, 1, 0.7, 0.2, 0.15)
    assert pairs(previous.ask(), "exploration") == [("1-1", "c")]
    assert pairs(everyone.ask(), "exploration") == [("1-1", "1-2")]


def test_the_exploration_is_left_out_where_every_partner_was_merged() -> None:
    search = strategy(founders(a=0.5, b=0.4), variant="kinship", k=2)
    give(search, 1, 0.45)
    assert [(asked.parents, asked.role) for asked in search.ask()] == [
        (("a", "1-1"), "greedy")
    ]  # of the founders only a itself, and b that it merged with


def test_the_least_related_by_distance_is_the_farthest() -> None:
    distances = {"1-1 c": 3.0, "1-1 1-2": 4.0, "1-1 1-3": 2.0}
    search = strategy(
        founders(a=0.6, b=0.4, c=0.1), table(distances, "euclidean"), variant="kinship", partner_pool="all"
    )
    give(search, 1, 0.7, 0.2, 0.15)
    assert pairs(search.ask(), "exploration") == [("1-1", "1-2")]


def test_a_kinship_that_is_no_number_is_never_chosen() -> None:
    search = strategy(founders(a=0.6, b=0.4, c=0.1), table({"1-1 1-3": 0.9}), variant="kinship", partner_pool="all")
    give(search, 1, 0.7, 0.2, 0.15)
    assert pairs(search.ask(), "exploration") == [("1-1", "1-3")]
    search = strategy(founders(a=0.6, b=0.4, c=0.1), table({}), variant="kinship", partner_pool="all")
    give(search, 1, 0.7, 0.2, 0.15)
    assert pairs(search.ask(), "exploration") == []
    assert len(search.ask()) == 2


def test_equally_related_partners_are_ordered_by_id() -> None:
    search = strategy(founders(a=0.6, b=0.4, d=0.2, c=0.1), variant="kinship", k=2)
    give(search, 1, 0.7, *[0.0] * 5)
    assert pairs(search.ask(), "exploration") == [("1-1", "b")]


def test_vanilla_explores_nothing() -> None:
    assert {asked.role for asked in grown("all", KINSHIP, "vanilla").ask()} == {"greedy"}


def test_a_failed_child_is_no_partner() -> None:
    search = strategy(founders(a=0.6, b=0.4, c=0.1), table({"1-1 1-3": -1.0, "1-1 c": 0.5}), variant="kinship",
                      partner_pool="all")  # fmt: skip
    give(search, 1, 0.7, 0.2, None)
    assert pairs(search.ask(), "exploration") == [("1-1", "c")]


def drawn(seed: int) -> list[str]:
    """The random partners of four generations."""
    search = strategy(
        [Individual(id, 0, 0.1 + index / 100) for index, id in enumerate("abcdefgh")],
        seed=seed, variant="random", k=2, partner_pool="all",
    )  # fmt: skip
    give(search, 1, *[0.2 + index / 1000 for index in range(28)])
    partners = []
    for generation in range(2, 6):
        partners += [asked.parents[1] for asked in search.ask() if asked.role == "random"]
        give(search, generation, *[generation + index / 10 for index in range(len(search.ask()))])
    return partners


def test_the_random_partner_follows_from_seed_and_generation() -> None:
    assert [drawn(seed) for seed in (1, 1, 2)].count(drawn(1)) == 2
    assert len({tuple(drawn(seed)) for seed in range(10)}) > 5
    assert len(drawn(1)) == 4


def test_the_random_partner_is_any_of_the_pool_but_no_merged_one() -> None:
    partners = set()
    for seed in range(60):
        search = grown("all", {}, "random", seed=seed)
        partners |= {pair[1] for pair in pairs(search.ask(), "random")}
    # b, c, 1-2, 1-3 and 2-2 are free; a and 1-1 are merged with the best in this very generation.
    assert partners == {"b", "c", "1-2", "1-3", "2-2"}


@pytest.mark.parametrize("variant", ["vanilla", "kinship", "random"])
def test_asking_does_not_change_the_state(variant: str) -> None:
    search, asked_often = grown("all", KINSHIP, variant), grown("all", KINSHIP, variant)
    first = asked_often.ask()
    assert asked_often.ask() == first == asked_often.ask()
    assert give(search, 3, 0.9, 0.1) == give(asked_often, 3, 0.9, 0.1)
    assert search.ask() == asked_often.ask()


def test_the_pools_all_and_outside_are_one() -> None:
    # Every pair of the top k is merged at once, so a partner from the top is always taken.
    for seed in range(20):
        asked = []
        for pool in ("all", "outside"):
            search = grown(pool, {}, "random", seed=seed)
            asked.append(search.ask())
        assert asked[0] == asked[1] != []


def test_a_partner_stopped_early_ranks_last_whatever_its_estimate() -> None:
    search = strategy(founders(a=0.5, b=0.4, c=0.3))
    search.tell([Individual("1-1", 1, 0.9, ("a", "b"), complete=False), Individual("1-2", 1, 0.45, ("a", "c"))])
    assert search.top == ["a", "1-2", "b"]


def test_the_complementary_partner_is_right_most_often_where_the_best_is_wrong() -> None:
    search = strategy(
        founders(a=0.6, b=0.5, c=0.4, d=0.2), complementarity=table({"1-1 c": 0.1, "1-1 d": 0.3}),
        variant="complementary", k=2,
    )  # fmt: skip
    give(search, 1, 0.7, *[0.0] * 5)
    assert pairs(search.ask(), "exploration") == [("1-1", "d")]
