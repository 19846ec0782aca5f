"""Merge coefficients by Optuna's samplers: TPE, Gaussian process, CMA-ES, NSGA-II and NSGA-III."""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kinship.errors import InvalidConfig
from search.strategies.base import Context, Individual, Proposal
from search.strategies.baselines import GreedySoup
from search.strategies.random_search import UNLIMITED
from search.strategies.settings import MergeSettings, StrategySettings
from search.strategies.space import Space, Values

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import Trial

POPULATION = 12  # of the genetic samplers: small, for budgets of tens of evaluations
TASK_ARITHMETIC = 0.4  # factor of the sum of task vectors that Ilharco et al. found to do well (arXiv 2212.04089)
ATTEMPTS = 20  # to draw a merge that was not tried yet


class OptunaSearch:
    """One of Optuna's samplers over a `Space`.

    The study lives in memory and is made anew by replaying: the first batches are a greedy soup, the uniform average
    and task arithmetic; what they and the founders score is told to the sampler (`Study.add_trial`) where they are
    points of the space. Then each batch is drawn when the one before has been told, so that `ask` changes nothing.
    A candidate that failed is told as failed; one stopped early with its estimate.
    Raises `InvalidConfig` for several objectives with a sampler of one.
    """

    def __init__(
        self, settings: StrategySettings, merge: MergeSettings, context: Context, seed: int, budget: int | None
    ) -> None:
        self._tasks = sorted(context.base.tasks) if settings.objectives == "tasks" else []
        if self._tasks and settings.sampler == "cmaes":
            raise InvalidConfig(
                "The sampler 'cmaes' improves one score, not each task's.",
                hint="Choose objectives: score, or the sampler nsga2, nsga3, tpe or gp.",
            )
        self._space = Space.of(settings, merge, context)
        self._batch = settings.batch
        self._left = UNLIMITED if budget is None else None
        self._study = _study(settings.sampler, seed, max(len(self._tasks), 1))
        self._tried: dict[str, tuple[float, ...]] = {}
        self._pending: list[tuple[Trial, Values]] = []
        self._soup = GreedySoup(context)
        self._context = context
        self._warm: list[tuple[dict[str, float], float]] = self._averages()
        self._phase = "soup" if self._soup.ask() and self._space.by_weights else "warm"
        for known in (context.base, *context.founders):
            weights, scale = ({known.id: 1.0}, 1.0) if known is not context.base else (self._uniform(), 0.0)
            self._record(weights, scale, known)
        self._advance()

    def ask(self) -> list[Proposal]:
        """See `Strategy.ask`."""
        if self._left is not None and self._left <= 0:
            return []
        if self._phase == "soup":
            return self._soup.ask()
        if self._phase == "warm":
            values = [self._space.values_of(weights, scale) for weights, scale in self._warm]
            return [Proposal(self._space.recipe(value), "soup") for value in values if value is not None]
        return [Proposal(self._space.recipe(values), "model") for _, values in self._pending]

    def tell(self, results: Sequence[Individual]) -> None:
        """See `Strategy.tell`."""
        if self._left is not None:
            self._left = self._left - len(results) if results else 0
        if self._phase == "soup":
            members = self._soup.ask()[0].parents
            self._soup.tell(results)
            for child in results:
                self._record(dict.fromkeys(members, 1.0), 1.0, child)
            self._phase = "soup" if self._soup.ask() else "warm"
        elif self._phase == "warm":
            for (weights, scale), child in zip(self._warm, results, strict=False):
                self._record(weights, scale, child)
            self._phase = "model"
        else:
            self._tell_trials(results)
        self._advance()

    def _advance(self) -> None:
        """Draw the next batch, where the warm-up is over."""
        if self._phase == "warm" and not self.ask() and self._left != 0:
            self._phase = "model"
        if self._phase == "model":
            self._pending = [self._drawn() for _ in range(self._batch)]

    def _tell_trials(self, results: Sequence[Individual]) -> None:
        from optuna.trial import TrialState

        for index, (trial, values) in enumerate(self._pending):
            measured = self._measured(results[index]) if index < len(results) else None
            if measured is None:
                self._study.tell(trial, state=TrialState.FAIL)
            else:
                self._tried[self._identity(values)] = measured
                self._study.tell(trial, measured)

    def _drawn(self) -> "tuple[Trial, Values]":
        """A trial whose merge was not tried; one that was is answered with what it scored."""
        trial = self._study.ask(self._distributions())
        for _ in range(ATTEMPTS):
            known = self._tried.get(self._identity(trial.params))
            if known is None:
                break
            self._study.tell(trial, known)
            trial = self._study.ask(self._distributions())
        return trial, dict(trial.params)

    def _record(self, weights: dict[str, float], scale: float, individual: Individual) -> None:
        """Tell the sampler a score that it did not ask for."""
        from optuna.trial import create_trial

        values, measured = self._space.values_of(weights, scale), self._measured(individual)
        if values is None or measured is None or self._identity(values) in self._tried:
            return
        self._tried[self._identity(values)] = measured
        self._study.add_trial(create_trial(params=values, distributions=self._distributions(), values=list(measured)))

    def _measured(self, individual: Individual) -> tuple[float, ...] | None:
        if individual.score is None:
            return None
        if not self._tasks:
            return (individual.score,)
        return tuple(individual.tasks[task] for task in self._tasks) if individual.tasks else None

    def _averages(self) -> list[tuple[dict[str, float], float]]:
        """The uniform average and task arithmetic, where they are points of the space."""
        count = len(self._context.founders)
        scales = (1.0, round(min(TASK_ARITHMETIC * count, self._space.scale_range[1]), 4))
        found = [(self._uniform(), scale) for scale in dict.fromkeys(scales)]
        return [(weights, scale) for weights, scale in found if self._space.values_of(weights, scale) is not None]

    def _uniform(self) -> dict[str, float]:
        return dict.fromkeys((founder.id for founder in self._context.founders), 1.0)

    def _identity(self, values: Values) -> str:
        return str(self._space.recipe(values).to_dict())

    def _distributions(self) -> "dict[str, BaseDistribution]":
        from optuna.distributions import FloatDistribution

        return {name: FloatDistribution(low, high) for name, (low, high) in self._space.bounds.items()}


def _study(sampler: str, seed: int, objectives: int) -> "Study":
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # how its parts work is no concern of ours
    return optuna.create_study(directions=["maximize"] * objectives, sampler=_sampler(sampler, seed))


def _sampler(name: str, seed: int) -> "BaseSampler":
    from optuna import samplers

    seed %= 2**32  # all that they take
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that some options are experimental
        match name:
            case "tpe":
                return samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=5)
            case "gp":
                return samplers.GPSampler(seed=seed, n_startup_trials=5)
            case "cmaes":
                return samplers.CmaEsSampler(seed=seed, n_startup_trials=0)
            case "nsga2":
                return samplers.NSGAIISampler(seed=seed, population_size=POPULATION)
            case "nsga3":
                return samplers.NSGAIIISampler(seed=seed, population_size=POPULATION)
            case _:
                return samplers.RandomSampler(seed=seed)
