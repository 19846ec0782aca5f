"""What tells that one model was fine-tuned from another: signals of an ordered pair, from distances, norms and spectra.

Training moves on in new directions, so squared distances add up along a line of descent: the tree of a family shows in
them (an additive metric), an ancestor that is not here as a point between its descendants. Which end is the root does
not show in distances but in the matrices: training lengthens them, mostly along few directions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import networkx as nx
import numpy as np

from kinship.gram import Float64
from kinship.heritage.geometry import Geometry
from kinship.heritage.sampling import MATRIX, Sample

NAMES = (
    "farther_than_nearest",  # log of the squared distance over that of the child's nearest other model
    "between",  # log of the least detour by a third model, within -1 to 1
    "beyond",  # share of other models that lie beyond the child
    "offshoot",  # how far inside the pair the paths to other models leave, from 0 at an end to 0.5: mean
    "overshoot",  # how far outside, as where the child went back on the parent's own step: mean, at most 0.5
    "bridge",  # how nearly the pair is an edge of the tree of distances: conductance times resistance, 0 to 1
    "drawn",  # weight of the parent in the best affine guess at the child from all others
    "shortcut",  # log of the squared distance over the longest step of the best path through other models, at most 1
    "frozen",  # share of the weights that are equal
    "longer",  # share of changed matrices whose norm is the larger in the child, less that where the smaller, halved
    "outward",  # mean over changed matrices of (|child|^2 - |parent|^2) / |child - parent|^2, within -2 to 2
    "even",  # as longer, for how even the singular values are: their sum over the root of their sum of squares
    "stretched",  # as longer, for the largest singular value
)


@dataclass(frozen=True)
class Spectra:
    """Of the sampled matrices of n models: ``even`` and ``largest`` (matrices, n), see `NAMES`."""

    even: Float64
    largest: Float64


def spectra(samples: Sequence[Sample], count: int) -> Spectra:
    """Of the matrices that all ``count`` models have. Cost: a singular value decomposition of each sample."""
    whole = [one.values for one in samples if len(one.owners) == count and min(one.values.shape[1:]) > 1]
    values = [np.linalg.svd(one.astype(np.float64), compute_uv=False) for one in whole]
    even = [one.sum(1) / np.maximum(np.sqrt(np.square(one).sum(1)), 1e-300) for one in values]
    none = np.zeros((0, count))
    return Spectra(np.array(even) if values else none, np.array([one[:, 0] for one in values]) if values else none)


def signals(
    geometry: Geometry,
    own: Float64,
    matrices: Spectra,
    third: Sequence[int],
    twins: Sequence[set[int]],
    parents: Sequence[int],
    merged: Sequence[tuple[int, Sequence[int]]] = (),
) -> Float64:
    """Signals (n, n, len(NAMES)) of all ordered pairs (parent, child) of models of ``geometry``.

    own: squared distances (n, n) that the tree is read from (`kinship.heritage.whitening`). third: models that may lie
    between (no merges: they lie between their parents by making). twins: by model, its near copies. parents: models
    that may be parents. merged: (child, parents) of merges. Cost: n^2 T + n^4.
    """
    count = len(own)
    values = np.zeros((count, count, len(NAMES)))
    nearest = [_nearest(own, model, parents) for model in range(count)]
    equal = (geometry.counts[:, None, None] * (geometry.apart == 0)).sum(0) / geometry.counts.sum()
    guess, left = _guesses(own, parents, twins, merged)
    longer, outward = _growth(geometry)
    even, stretched = _order(matrices.even), _order(matrices.largest)
    for parent in range(count):
        for child in range(count):
            apart = own[parent, child]
            if parent == child or apart == 0:
                continue
            others = [one for one in third if one not in twins[parent] | twins[child] and one not in (parent, child)]
            away, far = own[parent, others], own[child, others]
            leave = (apart + away - far) / (2 * apart)  # where paths to others leave: 0 at the parent, 1 at the child
            inside = np.minimum(leave, 1 - leave)
            values[parent, child] = (
                np.log(apart / nearest[child]),
                np.clip(np.log(((away + far) / apart).min()), -1, 1) if others else 1.0,
                float((leave > 0.5).mean()) if others else 0.0,
                float(np.clip(inside, 0, 0.5).mean()) if others else 0.0,
                float(np.clip(-inside, 0, 0.5).mean()) if others else 0.0,
                np.clip(guess[child, parent] / max(left[child], 1e-30) * apart, -0.5, 1.5),
                np.clip(guess[child, parent], -0.5, 1.5),
                _shortcut(own, parent, child, others),
                equal[parent, child],
                longer[parent, child],
                outward[parent, child],
                even[parent, child],
                stretched[parent, child],
            )
    return values


def _growth(geometry: Geometry) -> tuple[Float64, Float64]:
    """``longer`` and ``outward`` (n, n) over matrices, told from vectors by their number of elements."""
    heavy = geometry.counts >= MATRIX
    apart, squares = geometry.apart[heavy], geometry.squares[heavy]
    growth = squares[:, None, :] - squares[:, :, None]
    changed = apart > 0
    number = np.maximum(changed.sum(0), 1)
    outward = np.clip(growth / np.where(changed, apart, 1.0), -2, 2)
    return (np.sign(growth) * changed).sum(0) / number / 2, (outward * changed).sum(0) / number


def _order(values: Float64) -> Float64:
    """Of quantities (matrices, n): how much oftener (n, n) the second model's is the larger, -0.5 to 0.5."""
    if not len(values):
        return np.zeros((values.shape[1],) * 2)
    apart = values[:, None, :] - values[:, :, None]
    order: Float64 = (np.sign(apart) * (np.abs(apart) > 1e-9 * np.abs(values).max())).mean(0) / 2
    return order


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


def _nearest(total: Float64, model: int, parents: Sequence[int]) -> float:
    others = [one for one in parents if one != model and total[model, one] > 0]
    return float(total[model, others].min()) if others else 1.0
