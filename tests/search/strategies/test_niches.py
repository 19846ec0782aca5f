"""Niches, against closed forms and a plain genetic algorithm."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinship.errors import InvalidConfig
from search.config import parse_config
from search.strategies.niches import Niches, arc, attraction, layer_order, shared, split_recipe
from search.strategies.settings import MergeSettings, StrategySettings
from search.testing.strategy import NAMES, Bowl, follow

# Two documents: the first is passed by all, the second by one alone.
ANSWERS = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
HALVES = np.array([0.5, 0.5])


def niches(bowl: Bowl, budget: int | None = None, seed: int = 0, **settings: object) -> Niches:
    given = StrategySettings.model_validate({"name": "niches", **settings})
    return Niches(given, MergeSettings(), bowl.context(), seed, budget)


def test_a_document_is_shared_among_all_who_get_it_right() -> None:
    np.testing.assert_allclose(shared(ANSWERS, HALVES, 1.0), [[0.25, 0.0], [0.25, 0.0], [0.0, 0.5]])
    np.testing.assert_allclose(shared(ANSWERS, HALVES, 2.0), [[0.125, 0.0], [0.125, 0.0], [0.0, 0.5]])


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_the_fiercest_competition_leaves_all_to_who_is_right_where_fewest_are(unit: float) -> None:
    gains = shared(ANSWERS * unit, HALVES, 100.0)  # 1e-9 and 1e9 to this power are no numbers
    assert np.isfinite(gains).all()
    np.testing.assert_allclose(gains.sum(axis=1) / gains.sum(), [0.0, 0.0, 1.0], atol=1e-12)
    np.testing.assert_array_equal(shared(ANSWERS * 0.0, HALVES, 100.0), 0.0)


@given(st.integers(0, 2**32 - 1))
def test_without_competition_fitness_is_the_score_and_with_it_all_that_documents_are_worth_is_given(seed: int) -> None:
    random = np.random.default_rng(seed)
    answers = (random.random((4, 7)) < 0.5).astype(float)
    weights = random.random(7)
    np.testing.assert_allclose(shared(answers, weights, 0.0).sum(axis=1), answers @ weights)
    np.testing.assert_allclose(shared(answers, weights, 1.0).sum(), weights[answers.any(axis=0)].sum())


def test_who_is_right_where_the_first_is_wrong_attracts() -> None:
    gains = shared(ANSWERS, HALVES, 1.0)
    np.testing.assert_allclose(attraction(gains, 0), [0.0, 0.0, 0.5])
    np.testing.assert_allclose(attraction(gains, 2), [0.25, 0.25, 0.0])


@given(st.floats(0, 1), st.floats(-0.99, 0.99))
def test_the_arc_keeps_the_length_of_its_ends(t: float, cosine: float) -> None:
    one, other = arc(t, cosine)
    assert one**2 + other**2 + 2 * one * other * cosine == pytest.approx(1.0, abs=1e-9)
    assert arc(1.0 - t, cosine) == pytest.approx((other, one))


@pytest.mark.parametrize("cosine", [1.0, -1.0, float("nan")])
def test_without_an_angle_the_way_is_straight(cosine: float) -> None:
    assert arc(0.3, cosine) == (0.7, 0.3)


def test_a_child_takes_after_one_parent_up_to_a_tensor_and_after_the_other_from_there_on() -> None:
    bowl, order = Bowl(founders=3), layer_order(NAMES)
    one, other = bowl.ids[:2]
    child = bowl.span.merge(split_recipe((one, other), order, 2, 0.25, 0.0), bowl.genomes)
    rows = dict(zip(NAMES, child.coefficients[:, 1:].round(4).tolist(), strict=True))
    most, least = round(np.sin(0.75 * np.pi / 2), 4), round(np.sin(0.25 * np.pi / 2), 4)
    assert order[0] == "model.embed_tokens.weight"
    assert order[-1] == "model.norm.weight"
    assert [rows[name] for name in order] == [[most, least, 0.0]] * 2 + [[least, most, 0.0]] * 4


def test_the_archive_keeps_the_fittest() -> None:
    bowl = Bowl(founders=4)
    strategy = niches(bowl, archive=5, batch=3)
    everybody = set(strategy.members)
    course = follow(strategy, bowl, budget=12)
    everybody |= {child.id for batch in course.results for child in batch}
    assert len(strategy.members) == 5
    assert set(strategy.members) < everybody


def test_without_competition_the_best_stay() -> None:
    bowl = Bowl(founders=4)
    plain = niches(bowl, archive=5, batch=3, competition=0.0, attraction=False)
    kept = list(plain.members)
    for batch in follow(plain, bowl, budget=12).results:
        kept = sorted([*kept, *(child.id for child in batch)], key=lambda id: -(bowl.individuals[id].score or 0.0))[:5]
    assert set(plain.members) == set(kept)


def test_partners_are_drawn_by_attraction_or_evenly() -> None:
    bowl = Bowl(founders=3)
    one, other, third = bowl.ids
    for id, values in zip(bowl.ids, ([1.0, 0.0], [1.0, 0.0], [0.0, 1.0]), strict=True):
        bowl._scores[id] = np.repeat(values, 30)
    drawn = {frozenset(proposal.parents) for proposal in niches(bowl, batch=60).ask()}
    assert drawn == {frozenset((one, third)), frozenset((other, third))}
    evenly = {frozenset(proposal.parents) for proposal in niches(bowl, batch=60, attraction=False).ask()}
    assert len(evenly) == 3


def test_answers_below_nought_count_from_the_least_of_the_archive() -> None:
    bowl = Bowl(founders=2)
    for id, value in zip(bowl.ids, (-5.0, -2.0), strict=True):
        bowl._scores[id] = np.full(60, value)
    np.testing.assert_allclose(niches(bowl)._gains().sum(axis=1), [0.0, 1.0])


def test_who_failed_or_was_stopped_early_joins_nobody() -> None:
    bowl = Bowl(failing=2, partial=3)
    strategy = niches(bowl, batch=6)
    (children,) = follow(strategy, bowl, budget=6).results
    assert set(strategy.members) - set(bowl.ids) == {each.id for each in children if each.scored and each.complete}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"race": {"enabled": True}}, "race cannot be enabled"),
        ({"aggregate": {"kind": "worst"}}, "choose another aggregate"),
    ],
)
def test_a_run_that_does_not_score_everybody_on_all_documents_is_refused(more: dict[str, object], message: str) -> None:
    run = {"base": "b", "founders": ["x", "y"], "evaluate": {"tasks": ["t"]}, "strategy": {"name": "niches"}}
    parse_config(run)
    with pytest.raises(InvalidConfig, match=message):
        parse_config(run | more)


def test_other_methods_than_weights_are_refused() -> None:
    with pytest.raises(InvalidConfig, match="niches"):
        Niches(StrategySettings(name="niches"), MergeSettings(method="ties"), Bowl().context(), 0, None)
