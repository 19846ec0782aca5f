import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.special import expit

from evaluators.racing.item_response import ItemResponse, fit_item_response


def simulate(documents: int, models: int, seed: int) -> tuple[ItemResponse, np.ndarray]:
    generator = np.random.default_rng(seed)
    truth = ItemResponse(
        np.exp(generator.normal(scale=0.4, size=documents)),
        generator.normal(scale=1.5, size=documents),
        np.sort(generator.normal(size=models)),
    )
    chance = np.stack([truth.probability(ability) for ability in truth.ability], axis=1)
    return truth, (generator.random(chance.shape) < chance).astype(float)


def test_parameters_are_recovered_from_many_models() -> None:
    truth, right = simulate(300, 200, 0)
    found = fit_item_response(right)
    assert np.corrcoef(found.ability, truth.ability)[0, 1] > 0.98
    assert np.corrcoef(found.difficulty, truth.difficulty)[0, 1] > 0.95
    assert np.corrcoef(found.discrimination, truth.discrimination)[0, 1] > 0.6


def test_the_fit_is_a_maximum_of_the_posterior() -> None:
    """Differences of an independently written posterior vanish there."""
    _, right = simulate(12, 6, 1)
    found = fit_item_response(right)

    def log_posterior(x: np.ndarray) -> float:
        a, b, theta = np.exp(x[:12]), x[12:24], x[24:]
        chance = expit(a[:, None] * (theta[None, :] - b[:, None]))
        likelihood = np.log(np.where(right > 0, chance, 1 - chance)).sum()
        return float(likelihood - (x[:12] ** 2).sum() / 0.5 - (b**2).sum() / 8 - (theta**2).sum() / 2)

    place = np.concatenate([np.log(found.discrimination), found.difficulty, found.ability])
    assert np.abs(approx_fprime(place, log_posterior, 1e-6)).max() < 0.02


def test_ten_models_leave_it_finite_and_the_same_each_time() -> None:
    _, right = simulate(60, 10, 2)
    right[:3], right[3:6] = 1.0, 0.0  # documents that all pass, or all fail
    one, other = fit_item_response(right), fit_item_response(right)
    assert np.array_equal(one.difficulty, other.difficulty)
    assert np.isfinite(one.difficulty).all()
    assert one.difficulty[:3].max() < one.difficulty[6:].mean() < one.difficulty[3:6].min()
    assert np.abs(one.ability).max() < 5


def test_information_is_most_where_the_outcome_is_open() -> None:
    model = ItemResponse(np.array([1.0, 1.0, 2.0]), np.array([0.0, 3.0, 0.0]), np.zeros(1))
    assert model.information(0.0) == pytest.approx([0.25, expit(-3) * expit(3), 1.0])


def test_ability_of_a_new_model() -> None:
    truth, _ = simulate(400, 3, 3)
    generator = np.random.default_rng(4)
    right = (generator.random(400) < truth.probability(0.7)).astype(float)
    rows = np.arange(0, 400, 2)
    ability, error = truth.ability_of(rows, right[rows])
    assert abs(ability - 0.7) < 3 * error
    assert 0.05 < error < 0.4


def test_only_zero_and_one() -> None:
    with pytest.raises(ValueError, match="0 or 1"):
        fit_item_response(np.array([[0.3, 1.0]]))
