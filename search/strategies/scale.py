"""A line search over lambda, the scale of a model's task vector (Ilharco et al., arXiv 2212.04089, section 3)."""

from collections.abc import Mapping, Sequence

import numpy as np

from merging.registry import get_method
from search.strategies.base import Context, Individual, Population, Proposal, Strategy
from search.strategies.recipes import recipe_of

FIRST = (1.5, 0.75)  # averages gain by stretching more often than by shrinking
STRETCH = 1.5
SMALLEST_STEP = 0.02


class ThenScale:
    """Does what ``inner`` does and, once that is over, spends ``steps`` evaluations on the scale of the winner.

    The scores at scale 0 (the base), 1 (the winner) and those tried since give the next: the top of the parabola
    through the best scale and its neighbours, or 1.5 times the largest one while the largest is best.
    """

    def __init__(self, inner: Strategy, context: Context, steps: int) -> None:
        self._inner = inner
        self._steps = steps
        self._base = context.base
        self._population = Population(context.founders)
        self._winner: Individual | None = None
        self._scores: dict[float, float] = {}
        self._tried: list[float] = []

    def ask(self) -> list[Proposal]:
        """See `Strategy.ask`."""
        if self._winner is None:
            inner = self._inner.ask()
            if inner:
                return inner
        scale = self._next()
        winner = self._winner or self._best()
        if scale is None or winner is None:
            return []
        recipe = recipe_of(get_method("linear"), [(winner.id, {"weight": 1.0})], {"scale": scale})
        return [Proposal(recipe, "scale")]

    def tell(self, results: Sequence[Individual]) -> None:
        """See `Strategy.tell`."""
        if self._winner is None and self._inner.ask():
            self._inner.tell(results)
            for child in results:
                self._population.add(child)
            return
        scale = self._next()
        if self._winner is None:
            self._winner = self._best()
            self._scores = self._known()
        if scale is not None:
            self._tried.append(scale)
            for child in results:
                if child.score is not None:
                    self._scores[scale] = child.score

    def _best(self) -> Individual | None:
        ranked = self._population.ranked()
        return self._population[ranked[0]] if ranked else None

    def _known(self) -> dict[float, float]:
        """What is known of the line before it is searched."""
        best = self._best()
        ends = {0.0: self._base.score, 1.0: best.score if best else None}
        return {scale: score for scale, score in ends.items() if score is not None}

    def _next(self) -> float | None:
        """The next scale to try; None when the steps are used up."""
        if len(self._tried) >= self._steps:
            return None
        return next_scale(self._scores or self._known(), self._tried)


def next_scale(scores: Mapping[float, float], tried: Sequence[float]) -> float | None:
    """Where on the line to look next, given the ``scores`` by scale; None where it makes no difference any more.

    >>> next_scale({0.0: 0.0, 1.0: 1.0}, [])
    1.5
    >>> next_scale({0.0: 0.0, 1.0: 1.0, 2.0: 0.0}, [1.5, 2.0])
    0.75
    >>> next_scale({0.0: 0.0, 1.0: 0.8, 1.5: 0.9, 2.0: 0.7}, [1.5, 2.0, 0.75])
    1.417
    """
    left = [scale for scale in FIRST if scale not in tried]
    if not scores:
        return left[0] if left else None
    places = sorted(scores)
    best = max(places, key=lambda scale: (scores[scale], -abs(scale - 1.0)))
    if best == places[-1] and FIRST[0] in tried and round(best * STRETCH, 3) not in tried:
        choice = best * STRETCH
    elif left:
        choice = left[0]
    else:
        choice = _top_of_parabola(scores, places, best)
    choice = round(choice, 3)
    near = min((abs(choice - scale) for scale in [*scores, *tried]), default=1.0)
    return choice if near >= SMALLEST_STEP else None


def _top_of_parabola(scores: Mapping[float, float], places: Sequence[float], best: float) -> float:
    """Of the parabola through the best place and its neighbours; midway to the better one where there is none."""
    index = places.index(best)
    around = places[max(index - 1, 0) : index + 2]
    if len(around) == 3:
        curve = np.polyfit(around, [scores[place] for place in around], 2)
        if curve[0] < 0:
            return float(np.clip(-curve[1] / (2 * curve[0]), around[0], around[-1]))
    other = max((place for place in around if place != best), key=lambda place: scores[place], default=best / 2)
    return (best + other) / 2
