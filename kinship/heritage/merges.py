"""Merges: which model of a dependent set is the child, by which recipe.

Of models A, B and (A + B) / 2 each is a combination of the other two. The child is the one that rounding shows to be
computed from the others (`kinship.heritage.rounding`) and whose coefficients look like a recipe: few, mostly positive,
constant or a gradient over the layers, and round numbers; all of it is stated.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import networkx as nx
import numpy as np

from kinship.heritage.combinations import MOST_ROUNDED, Combination, find_combinations
from kinship.heritage.family import EXACT, Family, Finding, Relation
from kinship.heritage.recipes import SAME, Profile, Recipe, is_round, profile, recipe_of
from kinship.heritage.rounding import EXPLAINED, Rounding, rounding

# Costs, in units of log odds, of what recipes seldom have: a third or fourth parent, coefficients that grow and cancel
# (times the log of their absolute sum), ones that differ from tensor to tensor, ones that are no round numbers.
PARENT, CANCELLING, VARYING, GRADIENT, UNROUND = 1.0, 3.0, 6.0, 1.0, 4.0
# Of each nat by which a number's description is longer than with another model for the child, and the most of that.
LONGER, MOST_LONGER = 50.0, 30.0
# Margin of a merge that nothing competes with, and log odds that one of no margin is right.
UNRIVALLED, PRIOR = 6.0, 0.3


@dataclass(frozen=True)
class RecoveredMerge:
    """``child`` was merged from ``parents``, with mean ``weights`` on their raw weights, by ``recipe``.

    margin: how much more the best competing explanation costs. exact: the part of the child's numbers that come out to
    the last bit; None where no sampled number tells.
    """

    child: int
    parents: tuple[int, ...]
    weights: tuple[float, ...]
    recipe: Recipe
    margin: float
    unexplained: float
    exact: float | None


def find_merges(family: Family) -> Finding:
    """Models that are, tensor by tensor, linear combinations of plain ones."""
    mixtures = find_combinations(family)
    exactness = [
        rounding(one, family.samples, family.grids[one.child])
        for one in family.stages.each("Checking merges", mixtures)
    ]
    return Finding([_relation(merge, family) for merge in choose_merges(family, mixtures, exactness)])


def choose_merges(
    family: Family, found: Sequence[Combination], rounded: Sequence[Rounding | None]
) -> list[RecoveredMerge]:
    """The likeliest merges, each child once, no model its own ancestor.

    rounded: of each combination, how it holds number by number; those that do not hold are dismissed.
    """
    graph = nx.DiGraph(family.certain)
    graph.add_nodes_from(range(len(family.compared)))
    runs = [_runs(one, told, family) for one, told in zip(found, rounded, strict=True)]
    prices = [_cost(one, told) for one, told in zip(found, runs, strict=True)]
    least: dict[frozenset[int], float] = {}
    for one, told in zip(found, rounded, strict=True):
        if told is not None:
            least[_members(one)] = min(least.get(_members(one), math.inf), told.nats)
    for index, (one, told) in enumerate(zip(found, rounded, strict=True)):
        if told is not None:
            prices[index] += min(LONGER * (told.nats - least[_members(one)]), MOST_LONGER)
    ranked = sorted(
        (price, index)
        for index, (price, one, told) in enumerate(zip(prices, found, rounded, strict=True))
        if one.unexplained <= MOST_ROUNDED and (told is None or told.explained >= EXPLAINED)
    )
    chosen: dict[frozenset[int], int] = {}
    children: set[int] = set()
    for _, index in ranked:
        one = found[index]
        if one.child in children or _members(one) in chosen:  # explained, or the same set of models again
            continue
        if any(nx.has_path(graph, one.child, parent) for parent in one.parents):
            continue
        graph.add_edges_from((parent, one.child) for parent in one.parents)
        children.add(one.child)
        chosen[_members(one)] = index
    merges = []
    for members, index in chosen.items():
        one, told = found[index], rounded[index]
        rivals = [
            price for price, other in ranked if found[other].child != one.child and _members(found[other]) == members
        ]
        merges.append(
            RecoveredMerge(
                one.child,
                one.parents,
                tuple(map(float, runs[index].mean)),
                recipe_of(one, family, runs[index]),
                min(rivals, default=prices[index] + UNRIVALLED) - prices[index],
                one.unexplained,
                None if told is None else told.exact,
            )
        )
    return merges


def _relation(merge: RecoveredMerge, family: Family) -> Relation:
    weights = {family.id(parent): round(weight, 6) for parent, weight in zip(merge.parents, merge.weights, strict=True)}
    evidence = {
        parent: {
            "method": merge.recipe.method,
            "weight": weights[family.id(parent)],
            "weights": weights,
            **merge.recipe.parameters,
            "unexplained": merge.unexplained,
            "exact": None if merge.exact is None else round(merge.exact, 4),
        }
        for parent in merge.parents
        if parent != merge.recipe.base
    }
    confidence = round(min(EXACT, 1 / (1 + math.exp(-PRIOR - merge.margin))), 4)
    return Relation(
        merge.child, "merge", confidence, evidence, () if merge.recipe.base is None else (merge.recipe.base,)
    )


def _cost(one: Combination, runs: Profile) -> float:
    """How unlike a recipe a combination is."""
    total = PARENT * (len(one.parents) - 2) + 0.5 * one.free
    total += CANCELLING * math.log(max(1.0, float(np.abs(runs.mean).sum())))
    values = np.array(list(runs.values.values()))
    if runs.by == "all":
        return total + (0.0 if is_round(values[0].tolist()) else UNROUND)
    if np.all(np.abs(values - values.round()) < SAME):
        return total + GRADIENT
    if values.min() < -0.05 or values.max() > 1.05:
        return total + VARYING
    return total + (VARYING / 2 if runs.by == "tensor" else GRADIENT)


def _runs(one: Combination, told: Rounding | None, family: Family) -> Profile:
    """How coefficients run over the tensors; where they are alike in all, as the numbers themselves tell them."""
    runs = profile(one, family.geometry, family.kind_of)
    if told is None or told.coefficients is None or runs.by != "all" or runs.arc:
        return runs
    exact = np.array(told.coefficients)
    return Profile("all", {"all": exact}, exact, False)


def _members(one: Combination) -> frozenset[int]:
    return frozenset({one.child, *one.parents})
