"""Who is left to be the partner of the best model, and when the pool is widened."""

import pytest

from search.strategies.base import Individual, Population
from search.strategies.partners import Choice, choice_of, new_pairs
from search.strategies.settings import StrategySettings


def population(*founders: float, children: tuple[tuple[str, str, str, float], ...] = ()) -> Population:
    """Founders a, b, c ... by score; children: id, parents, score."""
    people = [Individual(chr(97 + place), 0, score) for place, score in enumerate(founders)]
    people += [Individual(id, int(id[0]), score, (one, other)) for id, one, other, score in children]
    return Population(people)


def settings(**given: object) -> StrategySettings:
    return StrategySettings.model_validate({"name": "topk", "k": 2} | given)


# a and b made 1-1, the best; c was merged with both, and with nobody else.
FAMILY = (("1-1", "a", "b", 0.9), ("1-2", "a", "c", 0.2), ("1-3", "b", "c", 0.1))


@pytest.mark.parametrize(
    ("pool", "partners"),
    [("previous", ("b", "c")), ("outside", ("1-2", "1-3", "b", "c")), ("all", ("1-2", "1-3", "b", "c"))],
)
def test_those_of_the_pool_whom_the_best_does_not_meet_anyway(pool: str, partners: tuple[str, ...]) -> None:
    # The top are 1-1 and a, which are merged as a pair of the best.
    found = choice_of(population(0.5, 0.4, 0.3, children=FAMILY), settings(partner_pool=pool), 2)
    assert found == Choice("1-1", pool, partners)  # type: ignore[arg-type]


def test_a_pool_that_leaves_nobody_is_widened_to_all() -> None:
    # A founder leads, who was merged with every other founder: in generation 2 the pool `previous` is empty.
    people = population(0.95, 0.4, 0.3, children=FAMILY)
    assert choice_of(people, settings(), 2) == Choice("a", "all", ("1-2", "1-3"))
    assert choice_of(people, settings(k=4), 2) == Choice("a", "all", ("1-2", "1-3"))
    for variant in ("random", "complementary"):
        assert choice_of(people, settings(variant=variant), 2) == Choice("a", "all", ("1-2", "1-3"))


def test_exploration_is_skipped_where_everybody_was_met() -> None:
    assert choice_of(population(0.5, 0.4, children=(("1-1", "a", "b", 0.3),)), settings(k=3), 2) == Choice(
        "a", "all", ()
    )


@pytest.mark.parametrize(("variant", "generation"), [("vanilla", 2), ("kinship", 1)])
def test_nobody_is_added_to_plain_greedy_merging_nor_to_the_first_generation(variant: str, generation: int) -> None:
    assert choice_of(population(0.5, 0.4, 0.3, children=FAMILY), settings(variant=variant), generation) is None


def test_new_pairs_are_those_of_the_best_not_merged_yet() -> None:
    people = population(0.5, 0.4, 0.3, children=FAMILY)
    assert new_pairs(people, 3) == [("1-1", "a"), ("1-1", "b")]
    assert new_pairs(people, 4) == [("1-1", "a"), ("1-1", "b"), ("1-1", "c")]
