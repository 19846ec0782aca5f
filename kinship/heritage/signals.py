"""What tells that one model was fine-tuned from another: signals of an ordered pair, from distances and norms.

Training moves on in new directions, so squared distances add up along a line of descent: the tree of a family shows in
them (an additive metric), an ancestor that is not here as a point between its descendants. Which end is the root does
not show in distances but in norms, which training grows: changed tensors of the child are mostly the longer ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from kinship.gram import Float64
from kinship.heritage.geometry import Geometry

NAMES = (
    "farther_than_nearest",  # log of the squared distance over that of the child's nearest other model
    "farther_for_parent",  # the same for the parent's nearest
    "longer",  # share of changed tensors whose norm is the larger in the child, less a half
    "outward",  # median over changed tensors of (|child|^2 - |parent|^2) / |child - parent|^2, within -1 to 1
    "between",  # log of the least detour by a third model, within -1 to 1
    "branching",  # how far from both ends the paths to other models leave, at most 0.5: most
    "branching_second",  # the same: second most
    "beyond",  # share of other models that lie beyond the child
    "frozen",  # share of the weights that are equal
    "most_frozen",  # 1 if no other model shares more with the child
    "heavier_tails",  # share of changed matrices whose kurtosis is the larger in the child, less a half
    "bridge",  # how nearly the pair is an edge of the tree of distances: conductance times resistance, 0 to 1
    "drawn",  # weight of the parent in the best affine guess at the child from all others
    "draws",  # weight of the child in the best guess at the parent
    "cosine",  # greatest cosine of the child's change with another model's, both from the parent
    "shortcut",  # log of the squared distance over the longest step of the best path through other models, at most 1
    "alone",  # 1 if there is no third model to compare with
)


@dataclass(frozen=True)
class Signals:
    """``values`` (n, n, len(NAMES)) of every ordered pair (parent, child)."""

    values: Float64


def signals(
    geometry: Geometry,
    third: Sequence[int],
    twins: Sequence[set[int]],
    kurtosis: Float64,
    parents: Sequence[int],
    merged: Sequence[tuple[int, Sequence[int]]] = (),
) -> Signals:
    """Signals of all ordered pairs of models of ``geometry``.

    third: models that may lie between (no merges: they lie between their parents by making). twins: by model, its near
    copies. kurtosis: (matrices, n). parents: models that may be parents. merged: (child, parents) of merges.
    Cost: n^3 T + n^4.
    """
    count = geometry.squares.shape[1]
    total = geometry.apart.sum(0)
    values = np.zeros((count, count, len(NAMES)))
    nearest = np.array([_nearest(total, model, parents) for model in range(count)])
    equal = (geometry.counts[:, None, None] * (geometry.apart == 0)).sum(0) / geometry.counts.sum()
    tiny = 1e-30
    guess, left = _guesses(total, parents, twins, merged)
    for parent in range(count):
        for child in range(count):
            if parent == child or total[parent, child] == 0:
                continue
            apart = geometry.apart[:, parent, child]
            changed = apart > 0
            growth = geometry.squares[changed, child] - geometry.squares[changed, parent]
            others = [one for one in third if one not in twins[parent] | twins[child] and one not in (parent, child)]
            away, far = total[parent, others], total[child, others]
            part = (total[parent, child] + away - far) / (2 * total[parent, child])  # where paths to others leave
            leave = np.sort(np.clip(np.minimum(part, 1 - part), 0.0, 0.5))[::-1]
            detour = np.log(((away + far) / total[parent, child]).min()) if len(others) else 1.0
            values[parent, child] = (
                np.log((total[parent, child] + tiny) / (nearest[child] + tiny)),
                np.log((total[parent, child] + tiny) / (nearest[parent] + tiny)),
                float((growth > 0).mean()) - 0.5,
                float(np.median(np.clip(growth / apart[changed], -1, 1))),
                np.clip(detour, -1, 1),
                leave[0] if len(others) else 0.0,
                leave[1] if len(others) > 1 else 0.0,
                float((part > 0.5).mean()) if len(others) else 0.0,
                equal[parent, child],
                float(equal[parent, child] > 0 and equal[parent, child] >= np.delete(equal[child], child).max()),
                _share_larger(kurtosis[:, child], kurtosis[:, parent]),
                np.clip(guess[child, parent] / max(left[child], tiny) * total[parent, child], -0.5, 1.5),
                np.clip(guess[child, parent], -0.5, 1.5),
                np.clip(guess[parent, child], -0.5, 1.5),
                _greatest_cosine(total[parent, child], away, far),
                _shortcut(total, parent, child, others),
                float(not others),
            )
    return Signals(values)


def _guesses(
    total: Float64, parents: Sequence[int], twins: Sequence[set[int]], merged: Sequence[tuple[int, Sequence[int]]]
) -> tuple[Float64, Float64]:
    """Affine weights (n, n) that bring ``parents`` nearest to each model, and the squared distance (n,) left.

    In a tree of independent steps they are its Laplacian, each row over its diagonal: only neighbours count. Twins of a
    model and merges of it have no say.
    """
    count = len(total)
    weights, left = np.zeros((count, count)), np.zeros(count)
    graph = nx.DiGraph((parent, child) for child, mixed in merged for parent in mixed)
    for model in range(count):
        below = nx.descendants(graph, model) if model in graph else set()
        others = [one for one in parents if one != model and one not in twins[model] | below and total[model, one] > 0]
        if not others:
            continue
        apart = total[np.ix_(others, others)]
        products = (total[model, others][:, None] + total[model, others][None, :] - apart) / 2
        products = products + np.eye(len(others)) * 1e-3 * total[model, others].min()
        row = np.linalg.solve(products, np.ones(len(others)))
        left[model] = 1 / row.sum()
        weights[model, others] = row / row.sum()
    return weights, left


def _shortcut(total: Float64, parent: int, child: int, others: Sequence[int]) -> float:
    """Zero if the pair is an edge of the minimum spanning tree; cost n^2."""
    steps, left, longest = {one: total[parent, one] for one in others}, set(others), 0.0
    while left:  # Prim, from the parent until the child is nearest
        nearest = min(left, key=lambda one: steps[one])
        if total[parent, child] <= max(longest, steps[nearest]):
            return 0.0
        longest = max(longest, steps[nearest])
        if total[nearest, child] <= longest:
            break
        left.discard(nearest)
        for one in left:
            steps[one] = min(steps[one], total[nearest, one])
    return float(np.clip(np.log(total[parent, child] / longest), 0.0, 1.0)) if longest else 0.0


def _greatest_cosine(apart: float, away: Float64, far: Float64) -> float:
    if not len(away):
        return 0.0
    cosines = (apart + away - far) / (2 * np.sqrt(apart * np.maximum(away, 1e-300)))
    return float(np.clip(cosines.max(), -1, 1))


def kurtosis_of(values: NDArray[np.float32]) -> Float64:
    """Of the weights of matrices (n, rows, columns), by model (n,): MoTHer's signal (arXiv 2405.18432)."""
    wide = values.reshape(len(values), -1).astype(np.float64)
    wide -= wide.mean(1, keepdims=True)
    squares: Float64 = np.square(wide)
    variance = squares.mean(1)
    return np.asarray(np.square(squares).mean(1) / np.where(variance > 0, variance, 1.0) ** 2)


def _nearest(total: Float64, model: int, parents: Sequence[int]) -> float:
    others = [one for one in parents if one != model and total[model, one] > 0]
    return float(total[model, others].min()) if others else 1.0


def _share_larger(one: Float64, other: Float64) -> float:
    changed = one != other
    return float((one[changed] > other[changed]).mean()) - 0.5 if changed.any() else 0.0
