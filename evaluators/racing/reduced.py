"""Reduced evaluation: a model's full score estimated from a part of the documents, with an honest error.

After MERGE3 (Mencattini et al., arXiv 2502.10436), which fits an item-response model to the results of known models,
keeps few documents, and estimates the rest. With some ten models little of that can be identified, so three ways of
picking and estimating are tried on every known model as if it were new, and the one with the least error is taken:

sample        a random part of each task, and its mean
regression    doubtful documents more often, and the regression on known models (`control_variates`)
information   the documents that tell most of a model's ability (`item_response`, an ability for each task),
              and the expected results at the ability found (p-IRT; Polo et al., arXiv 2402.14992); for results of 0, 1

The first is the fallback: the others are taken only where they did better. An estimate is never a score: a model that
may win is evaluated in full.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from evaluators.racing.control_variates import Indices, Panel, extrapolate, part_of
from evaluators.racing.item_response import ItemResponse, fit_item_response, is_binary
from evaluators.scores.score import Estimate, Results
from kinship.arrays import Float64

Way = Literal["sample", "regression", "information"]

MOST_FOLDS = 12
DRAWS = 3
"""Random picks tried on each model held out."""


class _Picked(NamedTuple):
    """Rows of a panel, and how results on them (n,) become a full score with its standard error."""

    rows: Indices
    estimate: Callable[[Float64], Estimate]


@dataclass(frozen=True)
class Subset:
    """The documents to evaluate a new model on, by task, and the way to a full score.

    errors: root mean square error of each way that could be tried, on known models held out in turn; empty where there
    were fewer than three. error: that of the way taken; NaN where nothing could be tried.
    """

    documents: Mapping[str, Sequence[int]]
    way: Way
    errors: Mapping[Way, float]
    _panel: Panel
    _picked: _Picked

    @property
    def error(self) -> float:
        """Cross-validated root mean square error of `estimate`."""
        return self.errors.get(self.way, float("nan"))

    def estimate(self, results: Results) -> Estimate:
        """The full score of a model from its results on the subset; the error is the cross-validated one, if any.

        KeyError where a document of the subset is missing.
        """
        rows = self._picked.rows
        value, stderr = self._picked.estimate(self._panel.values([results], rows)[:, 0])
        return Estimate(value, self.error if self.errors else stderr)


def pick(
    known: Mapping[str, Results],
    tasks: Mapping[str, Sequence[int]],
    share: float,
    seed: int = 0,
    shares: Mapping[str, float] | None = None,
) -> Subset:
    """Choose a ``share`` of each task's documents, at least four, by full results of ``known`` models.

    shares: how much each task counts in the score; default: all the same. Deterministic. Cost: for each of at most
    `MOST_FOLDS` models held out, some regressions and, for results of 0 or 1, an item-response fit.
    Raises ValueError for a share outside (0, 1], KeyError where a known model lacks a document.
    """
    if not 0 < share <= 1:
        raise ValueError(f"the share of documents must be in (0, 1], not {share}")
    panel = Panel.of(tasks, known, shares)
    errors = _cross_validated(known, tasks, share, seed, shares) if len(known) > 2 else {}
    way: Way = min(errors, key=lambda way: errors[way], default="sample")
    picked = _WAYS[way](panel, share, np.random.default_rng([seed, 0]))
    return Subset(panel.by_task(picked.rows), way, errors, panel, picked)


def _cross_validated(
    known: Mapping[str, Results],
    tasks: Mapping[str, Sequence[int]],
    share: float,
    seed: int,
    shares: Mapping[str, float] | None,
) -> dict[Way, float]:
    ids = sorted(known)
    held_out = [ids[place] for place in np.unique(np.linspace(0, len(ids) - 1, MOST_FOLDS).round().astype(int))]
    squares: dict[Way, list[float]] = {}
    for fold, id in enumerate(held_out, 1):
        panel = Panel.of(tasks, {other: known[other] for other in ids if other != id}, shares)
        truth = panel.scores([known[id]])[0]
        binary = is_binary(panel.results)
        for way, choose in _WAYS.items():
            if way == "information" and not binary:
                continue
            for draw in range(1 if way == "information" else DRAWS):  # nothing is drawn there
                picked = choose(panel, share, np.random.default_rng([seed, fold, draw]))
                found = picked.estimate(panel.values([known[id]], picked.rows)[:, 0])
                squares.setdefault(way, []).append((found.value - truth) ** 2)
    return {way: float(np.sqrt(np.mean(found))) for way, found in squares.items()}


def _sample(panel: Panel, share: float, generator: np.random.Generator) -> _Picked:
    alike = replace(panel, results=panel.results[:, :0], doubt=np.ones_like(panel.doubt))
    return _regression(alike, share, generator)


def _regression(panel: Panel, share: float, generator: np.random.Generator) -> _Picked:
    rows = np.sort(np.concatenate([order[: part_of(share, order)] for order in panel.shuffled(generator)]))
    return _Picked(rows, lambda values: extrapolate(panel, rows, values[:, None]).estimate(0))


def _information(panel: Panel, share: float, _: np.random.Generator) -> _Picked:
    fits: list[tuple[ItemResponse, Indices, Indices]] = []
    for task in range(len(panel.tasks)):
        here = np.flatnonzero(panel.stratum == task)
        fit = fit_item_response(panel.results[here])
        telling = np.mean([fit.information(ability) for ability in fit.ability], axis=0)
        chosen = np.sort(np.argsort(-telling, kind="stable")[: part_of(share, here)])
        fits.append((fit, here, chosen))
    rows = np.concatenate([here[chosen] for _, here, chosen in fits])

    def estimate(values: Float64) -> Estimate:
        score, variance, start = 0.0, 0.0, 0
        for fit, here, chosen in fits:
            seen = values[start : start + len(chosen)]
            start += len(chosen)
            ability, error = fit.ability_of(chosen, seen)
            chance = fit.probability(ability)
            expected = chance.copy()
            expected[chosen] = seen
            left = np.setdiff1d(np.arange(len(here)), chosen)
            weight = panel.weights[here[0]]
            slope = (fit.discrimination * chance * (1 - chance))[left].sum()
            score += weight * expected.sum()
            variance += weight**2 * ((slope * error) ** 2 + (chance * (1 - chance))[left].sum())
        return Estimate(float(score), float(np.sqrt(variance)))

    return _Picked(rows, estimate)


_WAYS: dict[Way, Callable[[Panel, float, np.random.Generator], _Picked]] = {
    "sample": _sample,
    "regression": _regression,
    "information": _information,
}
