"""The surrogate against Gaussian-process algebra written out, and the search against a bowl whose peak is known."""

import numpy as np
import pytest
from scipy.stats import norm

from kinship.errors import InvalidConfig
from search.strategies.bayesian import Bayesian
from search.strategies.make import make_strategy
from search.strategies.settings import MergeSettings, StrategySettings
from search.strategies.surrogate import JITTER, Surrogate
from search.testing.strategy import Bowl, follow


def matern(one: np.ndarray, other: np.ndarray, length: float) -> np.ndarray:
    distance = np.sqrt(5) * np.linalg.norm(one[:, None] - other[None], axis=2) / length
    return np.asarray((1 + distance + distance**2 / 3) * np.exp(-distance))


def test_predictions_are_those_of_the_textbook() -> None:
    random = np.random.default_rng(0)
    points, values, noise = random.normal(size=(12, 3)), random.normal(size=12), random.uniform(0.05, 0.4, 12)
    model = Surrogate.fit(points, values, noise, lambda x: x)
    variance, length = np.exp(model.process.kernel_.theta)
    spread = values.std()
    covariance = variance * matern(points, points, length) + np.diag((noise / spread) ** 2 + JITTER)
    new = random.normal(size=(5, 3))
    cross = variance * matern(new, points, length)
    mean = cross @ np.linalg.solve(covariance, (values - values.mean()) / spread) * spread + values.mean()
    deviation = spread * np.sqrt(variance - np.einsum("ij,ji->i", cross, np.linalg.solve(covariance, cross.T)))
    found = model.predict(new)
    np.testing.assert_allclose(found[0], mean, rtol=1e-6)
    np.testing.assert_allclose(found[1], deviation, rtol=1e-6)
    best = model.predict(points)[0].max()
    draws = mean[:, None] + deviation[:, None] * norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    np.testing.assert_allclose(model.expected_improvement(new), np.maximum(draws - best, 0).mean(axis=1), rtol=1e-2)


def test_a_noisier_score_counts_less() -> None:
    points, values = np.array([[0.0], [0.0], [3.0]]), np.array([0.0, 1.0, 0.5])
    model = Surrogate.fit(points, values, np.array([0.01, 1.0, 0.01]), lambda x: x)
    assert model.predict(points[:1])[0][0] < 0.1


@pytest.mark.parametrize("scales", [(-2.0, -1.0), (-3.0, 0.5), (1.0, 1.0 + 1e-15)])
def test_there_are_points_in_any_range_of_scales(scales: tuple[float, float]) -> None:
    bowl = Bowl(founders=2)
    given = StrategySettings.model_validate({"name": "bayesian", "scale_range": scales})
    course = follow(Bayesian(given, MergeSettings(), bowl.context(), 0, 9), bowl, 9)
    children = [bowl.genomes[child.id] for batch in course.results for child in batch]
    totals = [child.coefficients[0, 1:].sum() for child in children]
    assert len(totals) == 9
    assert scales[0] - 1e-3 < min(totals) <= max(totals) < scales[1] + 1e-3


@pytest.mark.parametrize("kernel", ["coefficients", "kinship"])
def test_it_comes_near_the_peak_and_nearer_than_topk(kernel: str) -> None:
    best = {}
    for settings in ({"name": "bayesian", "kernel": kernel}, {"variant": "vanilla"}):
        found = []
        for seed in range(3):
            bowl = Bowl(seed=seed)
            strategy = make_strategy(
                StrategySettings.model_validate(settings), MergeSettings(), bowl.context(), seed, 24
            )
            course = follow(strategy, bowl, 24)
            children = [child for batch in course.results for child in batch]
            winner = max(children, key=lambda child: child.score or 0.0)
            found.append(bowl.value(bowl.genomes[winner.id]))
        best[str(settings)] = np.mean(found)
    bayesian, topk = best.values()
    assert bayesian > 0.97
    assert bayesian > topk


def test_the_last_batch_of_a_budget_leads_with_the_point_expected_to_be_best() -> None:
    bowl = Bowl()
    settings = StrategySettings.model_validate({"name": "bayesian", "batch": 4})
    course = follow(Bayesian(settings, MergeSettings(), bowl.context(), 0, 12), bowl, 12)
    roles = [[proposal.role for proposal in batch] for batch in course.proposals]
    assert roles == [["soup"] * 4, ["model"] * 4, ["recheck", "model", "model", "model"]]


def test_a_run_may_go_on_beyond_its_first_budget() -> None:
    bowl = Bowl()
    settings = StrategySettings.model_validate({"name": "bayesian"})
    course = follow(Bayesian(settings, MergeSettings(), bowl.context(), 0, 8), bowl, 16)
    assert course.evaluations == 16


def test_other_merges_are_refused_by_name() -> None:
    settings = StrategySettings.model_validate({"name": "bayesian"})
    with pytest.raises(InvalidConfig, match=r"merge\.method is 'slerp'"):
        Bayesian(settings, MergeSettings(method="slerp", parameters={"t": 0.5}), Bowl().context(), 0, 8)
