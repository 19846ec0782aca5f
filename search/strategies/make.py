"""From the settings to a strategy."""

from typing import assert_never

from search.strategies.base import Context, Strategy
from search.strategies.settings import MergeSettings, Resolved, StrategySettings
from search.strategies.span_points import BY_WEIGHTS


def resolved_name(settings: StrategySettings, merge: MergeSettings) -> Resolved:
    """Which strategy is meant: ``auto`` is Bayesian search for merges by weights, Top-k greedy merging for others."""
    if settings.name != "auto":
        return settings.name
    return "bayesian" if merge.method in BY_WEIGHTS else "topk"


def make_strategy(
    settings: StrategySettings, merge: MergeSettings, context: Context, seed: int, budget: int | None
) -> Strategy:
    """The strategy that ``settings`` ask for. ``budget``: evaluations of offspring there are; None where not limited.

    Only what the strategy needs is imported. Raises `InvalidConfig` where it cannot work by this merge method.
    """
    name = resolved_name(settings, merge)
    strategy: Strategy
    match name:
        case "topk":
            from search.strategies.topk import TopKGreedy

            strategy = TopKGreedy(settings, merge, context, seed)
        case "pairs":
            from search.strategies.baselines import AllPairs

            strategy = AllPairs(merge, context)
        case "soup":
            from search.strategies.baselines import GreedySoup

            strategy = GreedySoup(context)
        case "random":
            from search.strategies.random_search import RandomSearch

            strategy = RandomSearch(settings, merge, context, seed, budget)
        case "optuna":
            from search.strategies.optuna_search import OptunaSearch

            strategy = OptunaSearch(settings, merge, context, seed, budget)
        case "bayesian":
            from search.strategies.bayesian import Bayesian

            strategy = Bayesian(settings, merge, context, seed, budget)
        case "niches":
            from search.strategies.niches import Niches

            strategy = Niches(settings, merge, context, seed, budget)
        case "average":
            from search.strategies.baselines import ScaledAverage

            strategy = ScaledAverage(settings, merge, context)
        case "swarm":
            from search.strategies.swarm import Swarm

            strategy = Swarm(settings, merge, context, seed, budget)
        case _:
            assert_never(name)
    if settings.scale_steps:
        from search.strategies.scale import ThenScale

        strategy = ThenScale(strategy, context, settings.scale_steps)
    return strategy
