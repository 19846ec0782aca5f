"""Which model of a dependent set is the merge, and by which recipe: combinations weighed, chosen, named.

Of models A, B and (A + B) / 2 each is a combination of the other two. The child is the one whose coefficients look like
a recipe: few, mostly positive, constant or a gradient over the layers, and round numbers; all of it is stated.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np

from kinship.gram import Float64
from kinship.groups import layer_label
from kinship.heritage.combinations import Combination
from kinship.heritage.geometry import Geometry

# Costs, in units of log odds, of what recipes seldom have: a third or fourth parent, coefficients that grow and cancel
# (times the log of their absolute sum), ones that differ from tensor to tensor, ones that are no round numbers.
PARENT, CANCELLING, VARYING, GRADIENT, UNROUND = 1.0, 3.0, 6.0, 1.0, 4.0

# Coefficients this near each other are the same; they are known to about 1e-5.
SAME = 2e-3
_DENOMINATORS = (100, 3, 6, 7, 8, 9, 11, 12)


@dataclass(frozen=True)
class Merge:
    """``child`` was merged from ``parents``, with mean ``weights`` on their raw weights, by ``method``.

    cost: of the combination, lower is likelier. margin: how much more the best competing explanation costs.
    """

    child: int
    parents: tuple[int, ...]
    weights: tuple[float, ...]
    method: str
    parameters: dict[str, Any]
    cost: float
    margin: float
    unexplained: float


def choose_merges(found: Sequence[Combination], geometry: Geometry, known: Sequence[tuple[int, int]]) -> list[Merge]:
    """The likeliest merges, each child once, no model its own ancestor; ``known``: (parent, child) already certain."""
    graph = nx.DiGraph(known)
    graph.add_nodes_from(range(geometry.squares.shape[1]))
    ranked = sorted(((cost(one, geometry), index) for index, one in enumerate(found)))
    done: set[int] = {child for _, child in known}
    chosen: list[tuple[float, Combination]] = []
    for price, index in ranked:
        one = found[index]
        if one.child in done or any(nx.has_path(graph, one.child, parent) for parent in one.parents):
            continue
        if _spanned(one, [other for _, other in chosen]):
            continue
        graph.add_edges_from((parent, one.child) for parent in one.parents)
        done.add(one.child)
        chosen.append((price, one))
    merges = []
    for price, one in chosen:
        members = {one.child, *one.parents}
        rivals = [
            other_price
            for other_price, index in ranked
            if found[index].child != one.child and {found[index].child, *found[index].parents} == members
        ]
        margin = min(rivals, default=price + 6.0) - price
        method, parameters = name(one, geometry)
        weights = tuple(float(value) for value in _mean(one, geometry))
        merges.append(Merge(one.child, one.parents, weights, method, parameters, price, margin, one.unexplained))
    return merges


def cost(one: Combination, geometry: Geometry) -> float:
    """How unlike a recipe a combination is."""
    total = PARENT * (len(one.parents) - 2)
    total += CANCELLING * math.log(max(1.0, float(np.abs(_mean(one, geometry)).sum())))
    if one.free:
        ts = _arc_positions(one, geometry)
        return total + 0.5 + _pattern(ts[:, None], one, geometry)
    return total + _pattern(one.coefficients, one, geometry)


def name(one: Combination, geometry: Geometry) -> tuple[str, dict[str, Any]]:
    """Method and parameters of a combination, up to recipes that give the same weights.

    ``passthrough`` where every tensor is one parent's; ``slerp`` where coefficients lie on the arc and not on the line;
    ``task_arithmetic`` where one is negative (of the base), or they do not add up to 1; else ``linear``.
    """
    settled = one.settled
    values = one.coefficients[settled]
    if len(values) and np.all(np.abs(values - values.round()) < SAME) and np.ptp(values, axis=0).max() > 0.5:
        owner = values.argmax(1)
        names = [label for label, is_settled in zip(geometry.names, settled, strict=True) if is_settled]
        slices = {
            str(parent): [label for label, who in zip(names, owner, strict=True) if who == place]
            for place, parent in enumerate(one.parents)
        }
        return "passthrough", {"tensors": slices}
    mean = _mean(one, geometry)
    if one.free:
        return "slerp", _profile(_arc_positions(one, geometry), "t", one, geometry)
    if mean.min() < -SAME and len(one.parents) > 1:
        base = int(mean.argmin())
        rest = {
            str(parent): round(float(w), 6)
            for place, (parent, w) in enumerate(zip(one.parents, mean, strict=True))
            if place != base
        }
        return "task_arithmetic", {"base": one.parents[base], "lambda_times_weight": rest}
    if len(one.parents) == 2:
        return "linear", _profile(one.coefficients[:, 1], "t", one, geometry)
    return "linear", {}


def _spanned(one: Combination, chosen: Sequence[Combination]) -> bool:
    """Whether ``one`` says no more than what is chosen: the same set of models again."""
    return any({one.child, *one.parents} == {other.child, *other.parents} for other in chosen)


def _weights(one: Combination, geometry: Geometry) -> Float64:
    """How much each tensor tells of the coefficients: its squared distances."""
    return np.where(one.settled, geometry.apart[:, one.parents[0], one.parents[-1]], 0.0)


def _mean(one: Combination, geometry: Geometry) -> Float64:
    weights = _weights(one, geometry)
    mean: Float64 = np.average(one.coefficients, axis=0, weights=weights if weights.sum() else None)
    return mean


def _pattern(values: Float64, one: Combination, geometry: Geometry) -> float:
    """Cost of how ``values`` (T, k) run over the tensors, and of what numbers they are."""
    settled = one.settled
    values = values[settled]
    if not len(values):
        return VARYING
    middle = np.median(values, axis=0)
    if np.abs(values - middle).max() < SAME:
        return 0.0 if _round(np.average(values, axis=0, weights=_weights(one, geometry)[settled])) else UNROUND
    if np.all(np.abs(values - values.round()) < SAME):
        return GRADIENT
    layers = _layers(geometry)[settled]
    steady = all(np.ptp(values[layers == layer], axis=0).max() < SAME for layer in np.unique(layers))
    # A gradient over layers is a recipe's; so is one value for a kind of module, which is not told from noise here.
    price = GRADIENT + (0.0 if steady else VARYING / 2)
    return price if len(one.parents) == 2 and values.min() > -0.05 and values.max() < 1.05 else VARYING


def _round(values: Float64) -> bool:
    """Whether all numbers are hundredths or fractions of small denominators, to what the Gram pass knows."""
    return all(min(abs(value * d - round(value * d)) / d for d in _DENOMINATORS) < 3e-4 for value in values.tolist())


def _layers(geometry: Geometry) -> np.ndarray:
    return np.array([layer_label(label) for label in geometry.names])


def _arc_positions(one: Combination, geometry: Geometry) -> Float64:
    """The t (T,) of SLERP from the quotient of two coefficients: tan(t a) = r sin a / (1 + r cos a), a the angle."""
    first, second = one.parents
    lengths = np.sqrt(geometry.squares[:, first] * geometry.squares[:, second])
    product = (geometry.squares[:, first] + geometry.squares[:, second] - geometry.apart[:, first, second]) / 2
    cosine = np.clip(product / np.where(lengths > 0, lengths, 1.0), -1.0, 1.0)
    angle = np.arccos(cosine)
    a, b = one.coefficients.T
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.arctan2(b * np.sin(angle), a + b * np.cos(angle)) / angle
    positions: Float64 = np.where((np.abs(cosine) > 0.9995) | (angle == 0), b, t)
    return positions


def _profile(values: Float64, label: str, one: Combination, geometry: Geometry) -> dict[str, Any]:
    settled = one.settled
    if not settled.any():
        return {}
    kept = values[settled]
    if np.abs(kept - np.median(kept)).max() < SAME:
        return {label: round(float(np.average(kept, weights=_weights(one, geometry)[settled])), 6)}
    layers = _layers(geometry)[settled]
    return {
        f"{label}_by_layer": {
            layer: round(float(np.median(kept[layers == layer])), 6) for layer in dict.fromkeys(layers.tolist())
        }
    }
