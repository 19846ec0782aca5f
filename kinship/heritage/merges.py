"""Which model of a dependent set is the merge, and by which recipe: combinations weighed, chosen, named.

Of models A, B and (A + B) / 2 each is a combination of the other two. The child is the one that rounding shows to be
computed from the others (`kinship.heritage.rounding`) and whose coefficients look like a recipe: few, mostly positive,
constant or a gradient over the layers, and round numbers; all of it is stated.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np

from kinship.heritage.combinations import MOST_ROUNDED, Combination
from kinship.heritage.geometry import Geometry
from kinship.heritage.recipes import SAME, Profile, is_round, name, profile
from kinship.heritage.rounding import EXPLAINED, Rounding

# Costs, in units of log odds, of what recipes seldom have: a third or fourth parent, coefficients that grow and cancel
# (times the log of their absolute sum), ones that differ from tensor to tensor, ones that are no round numbers.
PARENT, CANCELLING, VARYING, GRADIENT, UNROUND = 1.0, 3.0, 6.0, 1.0, 4.0
# Of each nat by which a number's description is longer than with another model for the child, and the most of that.
LONGER, MOST_LONGER = 50.0, 30.0


@dataclass(frozen=True)
class Merge:
    """``child`` was merged from ``parents``, with mean ``weights`` on their raw weights, by ``method``.

    cost: of the combination, lower is likelier. margin: how much more the best competing explanation costs. exact: the
    part of the child's numbers that come out to the last bit; None where no sampled number tells.
    """

    child: int
    parents: tuple[int, ...]
    weights: tuple[float, ...]
    method: str
    parameters: dict[str, Any]
    cost: float
    margin: float
    unexplained: float
    exact: float | None


def choose_merges(
    found: Sequence[Combination],
    rounded: Sequence[Rounding | None],
    geometry: Geometry,
    known: Sequence[tuple[int, int]],
) -> list[Merge]:
    """The likeliest merges, each child once, no model its own ancestor; ``known``: (parent, child) already certain.

    rounded: of each combination, how it holds number by number; those that do not hold are dismissed.
    """
    graph = nx.DiGraph(known)
    graph.add_nodes_from(range(geometry.squares.shape[1]))
    runs = [_runs(one, told, geometry) for one, told in zip(found, rounded, strict=True)]
    prices = [cost(one, told, geometry) for one, told in zip(found, runs, strict=True)]
    least: dict[frozenset[int], float] = {}
    for one, told in zip(found, rounded, strict=True):
        if told is not None:
            least[_members(one)] = min(least.get(_members(one), math.inf), told.nats)
    for index, (one, told) in enumerate(zip(found, rounded, strict=True)):
        if told is not None:
            prices[index] += min(LONGER * (told.nats - least[_members(one)]), MOST_LONGER)
    holds = [
        one.unexplained <= MOST_ROUNDED and (told is None or told.explained >= EXPLAINED)
        for one, told in zip(found, rounded, strict=True)
    ]
    ranked = sorted((price, index) for index, price in enumerate(prices) if holds[index])
    done: set[int] = {child for _, child in known}
    chosen: list[tuple[float, int]] = []
    for price, index in ranked:
        one = found[index]
        if one.child in done or any(nx.has_path(graph, one.child, parent) for parent in one.parents):
            continue
        if any(_members(one) == _members(found[other]) for _, other in chosen):
            continue  # the same set of models again
        graph.add_edges_from((parent, one.child) for parent in one.parents)
        done.add(one.child)
        chosen.append((price, index))
    merges = []
    for price, index in chosen:
        one, told = found[index], rounded[index]
        rivals = [
            other_price
            for other_price, other in ranked
            if found[other].child != one.child and _members(found[other]) == _members(one)
        ]
        margin = min(rivals, default=price + 6.0) - price
        method, parameters = name(one, geometry, runs[index])
        weights = tuple(map(float, runs[index].mean))
        exact = None if told is None else told.exact
        merges.append(Merge(one.child, one.parents, weights, method, parameters, price, margin, one.unexplained, exact))
    return merges


def cost(one: Combination, runs: Profile, geometry: Geometry) -> float:
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


def _runs(one: Combination, told: Rounding | None, geometry: Geometry) -> Profile:
    """How coefficients run over the tensors; where they are alike in all, as the numbers themselves tell them."""
    runs = profile(one, geometry)
    if told is None or told.coefficients is None or runs.by != "all" or runs.arc:
        return runs
    exact = np.array(told.coefficients)
    return Profile("all", {"all": exact}, exact, False)


def _members(one: Combination) -> frozenset[int]:
    return frozenset({one.child, *one.parents})
