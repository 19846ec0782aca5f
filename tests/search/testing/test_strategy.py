"""Every strategy keeps the promises of the interface."""

import os
import random
import subprocess
import sys
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import pytest

from search.strategies.base import Context, Individual, Proposal, Strategy
from search.strategies.make import make_strategy
from search.strategies.recipes import recipe_for
from search.strategies.settings import MergeSettings, StrategySettings
from search.testing.strategy import Bowl, Make, check_strategy, follow

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "vanilla": ({"variant": "vanilla"}, {}),
    "kinship": ({"variant": "kinship"}, {}),
    "kinship among all": ({"variant": "kinship", "partner_pool": "all"}, {}),
    "random partner": ({"variant": "random", "partner_pool": "outside"}, {}),
    "complementary": ({"variant": "complementary", "partner_pool": "all"}, {}),
    "vanilla then scale": ({"variant": "vanilla", "scale_steps": 4}, {}),
    "topk slerp": ({"variant": "kinship"}, {"method": "slerp", "parameters": {"t": 0.4}}),
    "pairs": ({"name": "pairs"}, {}),
    "pairs then scale": ({"name": "pairs", "scale_steps": 3}, {}),
    "soup": ({"name": "soup"}, {}),
    "soup then scale": ({"name": "soup", "scale_steps": 5}, {}),
    "random": ({"name": "random"}, {}),
    "random layers": ({"name": "random", "coefficients": "layers"}, {}),
    "random slerp": ({"name": "random"}, {"method": "slerp", "parameters": {"t": 0.5}}),
    "tpe": ({"name": "optuna"}, {}),
    "tpe modules": ({"name": "optuna", "coefficients": "modules"}, {}),
    "tpe slerp": ({"name": "optuna"}, {"method": "slerp", "parameters": {"t": 0.5}}),
    "tpe tasks": ({"name": "optuna", "objectives": "tasks"}, {}),
    "gp": ({"name": "optuna", "sampler": "gp"}, {}),
    "cmaes": ({"name": "optuna", "sampler": "cmaes"}, {}),
    "nsga2": ({"name": "optuna", "sampler": "nsga2", "objectives": "tasks"}, {}),
    "nsga3": ({"name": "optuna", "sampler": "nsga3", "objectives": "tasks"}, {}),
    "bayesian": ({"name": "bayesian"}, {}),
    "bayesian kinship": ({"name": "bayesian", "kernel": "kinship", "batch": 1}, {}),
    "niches": ({"name": "niches"}, {}),
    "average": ({"name": "average"}, {}),
    "swarm": ({"name": "swarm"}, {}),
    "auto": ({"name": "auto"}, {}),
    "auto slerp": ({"name": "auto"}, {"method": "slerp", "parameters": {"t": 0.5}}),
}  # fmt: skip


def maker(case: str) -> Make:
    strategy, merge = CASES[case]

    def make(context: Context, seed: int, budget: int | None) -> Strategy:
        return make_strategy(
            StrategySettings.model_validate(strategy), MergeSettings.model_validate(merge), context, seed, budget
        )

    return make


SLOW = {"gp", "nsga3", "tpe tasks"}  # minutes, all together


@pytest.mark.parametrize("case", [pytest.param(c, marks=[pytest.mark.soak] if c in SLOW else []) for c in CASES])
def test_the_promises_are_kept(case: str) -> None:
    check_strategy(maker(case), budget=10)


def test_proposals_do_not_depend_on_the_hash_seed() -> None:
    cases = ["kinship", "random partner", "soup then scale", "cmaes", "auto"]
    code = f"from tests.search.testing.test_strategy import told; [print(told(case)) for case in {cases!r}]"
    outputs = set()
    for seed in "0", "1":
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.getcwd()},
            capture_output=True,
            text=True,
            check=True,
        )
        outputs.add(done.stdout)
    assert len(outputs) == 1
    assert len(outputs.pop().splitlines()) == len(cases)


def told(case: str) -> str:
    """All that a strategy proposes within 10 evaluations."""
    bowl = Bowl(seed=1)
    course = follow(maker(case)(bowl.context(), 5, 10), bowl, 10)
    return str([[proposal.recipe.to_dict() for proposal in batch] for batch in course.proposals])


class Pairs:
    """Merges pairs of founders in batches of two: keeps every promise, but for what a test breaks."""

    def __init__(self, context: Context, seed: int, budget: int | None) -> None:
        founders = [founder.id for founder in context.founders]
        self.pairs = list(combinations(founders, 2))

    def ask(self) -> list[Proposal]:
        return [Proposal(recipe_for(pair, MergeSettings()), "pair") for pair in self.pairs[:2]]

    def tell(self, results: Sequence[Individual]) -> None:
        self.pairs = self.pairs[len(results) :]


class Forgetful(Pairs):
    """Asking takes what is asked for."""

    def ask(self) -> list[Proposal]:
        asked, self.pairs = super().ask(), self.pairs[1:]
        return asked


class Global(Pairs):
    """Draws from the state of the process."""

    def __init__(self, context: Context, seed: int, budget: int | None) -> None:
        super().__init__(context, seed, budget)
        random.shuffle(self.pairs)


class Repeating(Pairs):
    def tell(self, results: Sequence[Individual]) -> None:
        self.pairs = self.pairs[:]


class Unborn(Pairs):
    """Merges what there is not."""

    def ask(self) -> list[Proposal]:
        recipe = recipe_for(("founder-0", "9-9"), MergeSettings())
        return [Proposal(recipe, "pair") for _ in self.pairs[:1]]


class Confident(Pairs):
    """Does not expect a failure."""

    def tell(self, results: Sequence[Individual]) -> None:
        assert all(child.score is not None for child in results)
        super().tell(results)


def test_a_strategy_of_anybody_else_is_checked() -> None:
    check_strategy(Pairs, budget=8)


@pytest.mark.parametrize("broken", [Forgetful, Global, Repeating, Unborn, Confident])
def test_broken_promises_are_found(broken: Make) -> None:
    with pytest.raises((AssertionError, KeyError)):
        check_strategy(broken, budget=8)
