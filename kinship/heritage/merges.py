"""Which model of a dependent set is the merge, and by which recipe: combinations weighed, chosen, named.

Of models A, B and (A + B) / 2 each is a combination of the other two. The child is the one that rounding shows to be
computed from the others (`kinship.heritage.rounding`) and whose coefficients look like a recipe: few, mostly positive,
constant or a gradient over the layers, and round numbers; all of it is stated.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from kinship.arrays import Float64
from kinship.checkpoints.tensor_names import layer_label, module_kind
from kinship.heritage.combinations import LENGTH_KNOWN, MOST_ROUNDED, UNEXPLAINED, Combination, left_by, solve
from kinship.heritage.distances import Geometry
from kinship.heritage.rounding import DENOMINATORS, EXPLAINED, Rounding

# Coefficients this near each other are the same; those of a tensor are known to about 1e-5.
SAME = 2e-3
# What one set of coefficients for many tensors may leave more than one for each, where rounding leaves some anyway.
MORE = 0.25
# By what recipes let coefficients vary, the simplest first.
GROUPINGS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("all", lambda name: "all"),
    ("layer", layer_label),
    ("module", module_kind),
    ("layer_and_module", lambda name: f"{layer_label(name)}, {module_kind(name)}"),
    ("tensor", lambda name: name),
)


@dataclass(frozen=True)
class Profile:
    """How coefficients run over the tensors: alike within the groups of ``by``, one of `GROUPINGS`.

    values: by group, the coefficients (k,) of the parents, or t (1,) where the combination is on an ``arc``.
    mean: (k,) coefficients, weighted by how much tensors tell.
    """

    by: str
    values: dict[str, Float64]
    mean: Float64
    arc: bool


def profile(one: Combination, geometry: Geometry) -> Profile:
    """The coarsest of `GROUPINGS` that explains the child of ``one`` as well as coefficients of each tensor's own."""
    scale = float(geometry.apart[:, one.child][:, list(one.parents)].min(1).sum())
    known = LENGTH_KNOWN * float(geometry.squares[:, one.child].sum()) if one.free else 0.0
    least = float(left_by(geometry, one, one.coefficients)[one.settled].sum())
    allowed = UNEXPLAINED * scale + known + (1 + MORE) * least
    weights = np.where(one.settled, geometry.apart[:, one.parents[0], one.parents[-1]], 0.0)
    mean: Float64 = np.average(one.coefficients, axis=0, weights=weights if weights.sum() else None)
    if one.free and len(one.parents) == 2:
        ts, angles = _arc_positions(one, geometry)
        for by, label in GROUPINGS:
            groups = _groups(geometry, one, label)
            values = {
                group: np.atleast_1d(np.average(ts[mask], weights=weights[mask] + 1e-300))
                for group, mask in groups.items()
            }
            given = ts.copy()
            for group, mask in groups.items():
                given[mask] = values[group]
            off = left_by(geometry, one, _on_arc(given, angles))[one.settled].sum()
            if off <= allowed:
                return Profile(by, values, mean, True)
    for by, label in GROUPINGS[:-1]:
        solved = {group: solve(geometry, one, mask) for group, mask in _groups(geometry, one, label).items()}
        if sum(left for _, left in solved.values()) <= allowed:
            values = {group: coefficients for group, (coefficients, _) in solved.items()}
            return Profile(by, values, values.get("all", mean), False)
    own = {name: row for name, row, ok in zip(geometry.names, one.coefficients, one.settled, strict=True) if ok}
    return Profile("tensor", own, mean, False)


def is_round(values: Sequence[float]) -> bool:
    """Whether all numbers are hundredths or fractions of small denominators, to what the Gram pass knows."""
    return all(min(abs(value * part - round(value * part)) / part for part in DENOMINATORS) < 3e-4 for value in values)


def name(one: Combination, geometry: Geometry, runs: Profile) -> tuple[str, dict[str, Any]]:
    """Method and parameters of a combination, up to recipes that give the same weights.

    ``passthrough`` where every tensor is one parent's; ``slerp`` where coefficients lie on the arc and not on the line;
    ``task_arithmetic`` where one of three or more is negative, that of the base; ``model_stock`` where they are as in
    arXiv 2403.19522; else ``linear``, or ``combination`` where they differ from tensor to tensor as in no recipe.
    """
    values = one.coefficients[one.settled]
    if len(values) and np.all(np.abs(values - values.round()) < SAME) and np.ptp(values, axis=0).max() > 0.5:
        owner = values.argmax(1)
        names = [label for label, is_settled in zip(geometry.names, one.settled, strict=True) if is_settled]
        slices = {
            str(parent): [label for label, who in zip(names, owner, strict=True) if who == place]
            for place, parent in enumerate(one.parents)
        }
        return "passthrough", {"tensors": slices}
    if runs.arc:
        return ("slerp" if runs.by != "tensor" else "combination"), _written("t", runs, one)
    base = int(runs.mean.argmin())
    if len(one.parents) > 2 and runs.by != "all" and (stock := _model_stock(one, geometry)) is not None:
        return "model_stock", {"base": one.parents[stock]}
    if not one.free and len(one.parents) > 2 and runs.mean[base] < -SAME and runs.by != "tensor":
        rest = {str(one.parents[place]): _tidy(w) for place, w in enumerate(runs.mean) if place != base}
        told: dict[str, Any] = {"base": one.parents[base], "lambda_times_weight": rest}
        return "task_arithmetic", told if runs.by == "all" else told | _written("weights", runs, one)
    method = "linear" if runs.by != "tensor" else "combination"
    more = {"normalize": False} if one.free and runs.by == "all" else {}
    if runs.by == "all":
        return method, more | ({"t": _tidy(runs.mean[1])} if len(one.parents) == 2 and not one.free else {})
    return method, more | _written("weights", runs, one)


def _written(label: str, runs: Profile, one: Combination) -> dict[str, Any]:
    """A profile as plain data: t, or weights by parent, by group."""
    told = {
        group: _tidy(row[0]) if runs.arc else {str(p): _tidy(w) for p, w in zip(one.parents, row, strict=True)}
        for group, row in runs.values.items()
    }
    return {label: told["all"]} if runs.by == "all" else {f"{label}_by_{runs.by}": told}


def _tidy(value: float) -> float:
    return round(float(value), 6) + 0.0


def _groups(geometry: Geometry, one: Combination, label: Callable[[str], str]) -> dict[str, NDArray[np.bool_]]:
    """Masks (T,) of the settled tensors by group, in the order of the tensors' layers."""
    labels = np.array([label(name) for name in geometry.names])
    masks = {group: (labels == group) & one.settled for group in dict.fromkeys(labels.tolist())}
    return {group: mask for group, mask in masks.items() if mask.any()}


def _arc_positions(one: Combination, geometry: Geometry) -> tuple[Float64, Float64]:
    """The t (T,) of SLERP from the quotient of two coefficients, tan(t a) = r sin a / (1 + r cos a), and a (T,).

    The angle a is 0 where SLERP is linear: above a cosine of 0.9995.
    """
    first, second = one.parents
    lengths = np.sqrt(geometry.squares[:, first] * geometry.squares[:, second])
    product = (geometry.squares[:, first] + geometry.squares[:, second] - geometry.apart[:, first, second]) / 2
    cosine = np.clip(product / np.where(lengths > 0, lengths, 1.0), -1.0, 1.0)
    angle = np.where(np.abs(cosine) > 0.9995, 0.0, np.arccos(cosine))
    a, b = one.coefficients.T
    safe = np.where(angle > 0, angle, 1.0)
    t = np.where(angle > 0, np.arctan2(b * np.sin(safe), a + b * np.cos(safe)) / safe, b)
    return t, angle


def _on_arc(t: Float64, angle: Float64) -> Float64:
    """Coefficients (T, 2) of SLERP."""
    safe = np.where(angle > 0, angle, 1.0)
    both = np.stack([np.sin((1 - t) * safe), np.sin(t * safe)], 1) / np.sin(safe)[:, None]
    return np.where(angle[:, None] > 0, both, np.stack([1 - t, t], 1))


def _model_stock(one: Combination, geometry: Geometry) -> int | None:
    """Place of the base among the parents if the coefficients are those of Model Stock (Jang et al., eq. 4)."""
    count = len(one.parents) - 1
    for base, parent in enumerate(one.parents):
        tuned = [place for place in range(len(one.parents)) if place != base]
        models = [one.parents[place] for place in tuned]
        products = geometry.products(parent)[:, models][:, :, models]
        lengths = np.sqrt(np.maximum(np.diagonal(products, axis1=1, axis2=2), 1e-150))
        cosines = products / (lengths[:, :, None] * lengths[:, None, :])
        mean = (cosines.sum((1, 2)) - count) / (count * (count - 1))
        # Each model's part, t / N. Where the changes cancel it is not defined, and the base is kept.
        below = 1 + (count - 1) * mean
        share = np.where(np.abs(below) > 1e-6, mean / np.where(np.abs(below) > 1e-6, below, 1.0), 0.0)
        off = np.abs(one.coefficients[:, tuned] - share[:, None])[one.settled]
        if len(off) and off.max() < max(SAME / 4, 0.05 * math.sqrt(one.unexplained)):
            return base
    return None


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
