"""Points of the founders' span: one coefficient for each founder's task vector, the same in every tensor."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kinship.arrays import Float64
from kinship.errors import InvalidConfig
from merging.recipe.schema import Recipe
from merging.registry import get_method
from search.strategies.recipes import recipe_of
from search.strategies.settings import MergeSettings

DECIMALS = 4  # of coefficients in recipes: finer differences make no difference to a score
BY_WEIGHTS = ("linear", "task_arithmetic")
SEARCHES_WEIGHTS = ("bayesian", "niches", "average", "swarm")  # strategies that `require_weights`


def point_recipe(point: Float64, founders: Sequence[str]) -> Recipe:
    """``base + sum_i point[i] (founder_i - base)`` as task arithmetic; founders without a share are left out.

    >>> point_recipe(np.array([0.5, 0.0, 1.25]), ["a", "b", "c"]).to_dict()["models"]
    [{'model': 'a', 'parameters': {'weight': 0.5}}, {'model': 'c', 'parameters': {'weight': 1.25}}]
    """
    shares = [(id, round(float(share), DECIMALS)) for id, share in zip(founders, point, strict=True)]
    used = [(id, {"weight": share}) for id, share in shares if share] or [(founders[0], {"weight": 0.0})]
    return recipe_of(get_method("task_arithmetic"), used, {})


def average(members: Sequence[int], count: int, scale: float = 1.0) -> Float64:
    """The average of some of ``count`` founders, its task vector stretched by ``scale``."""
    point = np.zeros(count)
    point[list(members)] = scale / len(members)
    return point


def require_weights(merge: MergeSettings, strategy: str) -> None:
    """Raise `InvalidConfig` where the run merges by a method whose results are no such points."""
    if merge.method not in BY_WEIGHTS or set(merge.parameters) - {"weight", "normalize", "scale", "lambda"}:
        raise InvalidConfig(
            f"The strategy {strategy!r} searches weights and scale of {' or '.join(BY_WEIGHTS)}; "
            f"merge.method is {merge.method!r}.",
            hint="Leave merge: out, or choose the strategy topk or optuna, which take any method.",
        )


NEGATIVE = -0.3  # least coefficient: a task vector may be taken off a little
ROUNDING = 1e-12  # of a sum of coefficients
NEAR = 2e-3  # no point is tried within this of another
DRAWS, LOCAL, AWAY = 500, 100, 0.15  # random candidates; those about each of the best points so far, and how far away
WIDTHS, LEADERS, FOLLOWERS = (0.1, 0.05, 0.02), 10, 30  # then the best candidates are refined, ever closer

Acquisition = Callable[[Float64], Float64]
"""The worth (m,) of trying points (m, n)."""


@dataclass(frozen=True)
class Region:
    """Points whose coefficients sum to ``low`` .. ``high``, but for rounding; none is below `NEGATIVE`, or ``low``
    where that is less.
    """

    low: float
    high: float

    def holds(self, points: Float64) -> NDArray[np.bool_]:
        """Which of ``points`` (m, n) lie within."""
        totals = points.sum(axis=1)
        least = min(NEGATIVE, self.low)
        low, high = self.low - ROUNDING, self.high + ROUNDING
        within: NDArray[np.bool_] = (totals >= low) & (totals <= high) & (points >= least - ROUNDING).all(axis=1)
        return within

    def draw(self, count: int, dimensions: int, random: np.random.Generator) -> Float64:
        """``count`` averages with random weights, stretched by random scales."""
        points: Float64 = random.dirichlet(np.ones(dimensions), count)
        return points * random.uniform(self.low, self.high, (count, 1))


def candidates(acquisition: Acquisition, region: Region, known: Float64, random: np.random.Generator) -> Float64:
    """Points of ``region`` (m, n) that lead by ``acquisition``: from random ones and from ones about the ``known``,
    the best of which draw others about them, ever closer. Cost: about 2,000 predictions.
    """
    found = np.concatenate([region.draw(DRAWS, known.shape[1], random), _about(known, LOCAL, AWAY, random)])
    for width in WIDTHS:
        found = found[region.holds(found)]
        leaders = found[np.argsort(-acquisition(found), kind="stable")[:LEADERS]]
        found = np.concatenate([leaders, _about(leaders, FOLLOWERS, width, random)])
    return found[region.holds(found)].round(DECIMALS)


def first_new(points: Float64, worth: Float64, tried: Sequence[Float64]) -> int | None:
    """The index of the worthiest of ``points`` that is not one of ``tried``; None where all are."""
    order = np.argsort(-worth, kind="stable")
    return next((int(index) for index in order if not near(points[index], tried)), None)


def near(point: Float64, others: Sequence[Float64]) -> bool:
    """Whether ``point`` is one of ``others``, as far as scores can tell."""
    return bool(others) and bool((np.abs(np.stack(others) - point).max(axis=1) < NEAR).any())


def _about(points: Float64, count: int, width: float, random: np.random.Generator) -> Float64:
    """``count`` points about each of ``points`` (m, n), normally distributed."""
    steps = random.normal(0.0, width, (len(points), count, points.shape[1]))
    around: Float64 = (points[:, None] + steps).reshape(-1, points.shape[1])
    return around
