"""What tells that one model was fine-tuned from another: signals of an ordered pair, from distances, norms and spectra.

Training moves on in new directions, so squared distances add up along a line of descent: the tree of a family shows in
them (an additive metric), an ancestor that is not here as a point between its descendants. Which end is the root does
not show in distances but in the matrices: training lengthens them, mostly along few directions, and decays the rows
that its data does not use (`kinship.heritage.inherited`).
"""

from collections.abc import Sequence

import networkx as nx
import numpy as np

from kinship.gram import Float64
from kinship.heritage.geometry import Geometry
from kinship.heritage.inherited import Inherited
from kinship.heritage.sampling import MATRIX, Sample, matrices_of

NAMES = (
    "place",  # of the parent among the child's other models by distance: 0 for the nearest, to 1 for the fourth or more
    "between",  # log of the least detour by a third model, within -1 to 1
    "beyond",  # share of other models that lie beyond the child
    "offshoot",  # how far inside the pair the paths to other models leave, from 0 at an end to 0.5: mean
    "overshoot",  # how far outside, as where the child went back on the parent's own step: mean, at most 0.5
    "bridge",  # how nearly the pair is an edge of the tree of distances: conductance times resistance
    "frozen",  # share of the weights that are equal
    "kept",  # share of the rows of a matrix that training left alone
    "kept_most",  # 1 if no other model keeps as much of the child's, 0 if one as much, -1 if one more
    "elsewhere",  # share of the child's rows that came from an ancestor, and that others have and the parent has not
    "shorter",  # share of inherited rows that are shorter in the child, less the share that are longer
    "longer",  # share of changed matrices whose norm is the larger in the child, less that where the smaller, halved
    "even",  # as longer, for how even the singular values are: their sum over the root of their sum of squares
)
# Of a model, for its having no parent here: that it has none, and the mean of ``longer`` over those it could have.
ROOTS = ("rooted", "lengthened")


def evenness(samples: Sequence[Sample], count: int) -> Float64:
    """How even the singular values are (matrices, n) of the sampled matrices that all n = ``count`` models have.

    Their sum over the root of their sum of squares. Cost: the elements sampled times the shorter sides.
    """
    found = []
    for one in matrices_of(samples, range(count)):
        values = one.values.astype(np.float64)
        values = values if values.shape[1] <= values.shape[2] else values.transpose(0, 2, 1)
        squares = np.maximum(np.linalg.eigvalsh(values @ values.transpose(0, 2, 1)), 0.0)
        found.append(np.sqrt(squares).sum(1) / np.maximum(np.sqrt(squares.sum(1)), 1e-300))
    return np.array(found) if found else np.zeros((0, count))


def signals(
    geometry: Geometry,
    own: Float64,
    even: Float64,
    rows: Inherited,
    third: Sequence[int],
    twins: Sequence[set[int]],
    parents: Sequence[int],
    merged: Sequence[tuple[int, Sequence[int]]] = (),
) -> tuple[Float64, Float64]:
    """Signals (n, n, len(NAMES)) of all ordered pairs (parent, child) of models of ``geometry``, and (n, len(ROOTS)).

    own: squared distances (n, n) that the tree is read from (`kinship.heritage.whitening`). even: of `evenness`. third:
    models that may lie between (no merges: they lie between their parents by making). twins: by model, its near copies.
    parents: models that may be parents. merged: (child, parents) of merges. Zero where two are the same. Cost:
    n^2 T + n^4.
    """
    count = len(own)
    between, beyond, offshoot, overshoot = _thirds(own, third, twins)
    longer = _longer(geometry)
    equal = (geometry.counts[:, None, None] * (geometry.apart == 0)).sum(0) / geometry.counts.sum()
    told = {
        "place": _place(own, parents),
        "between": between,
        "beyond": beyond,
        "offshoot": offshoot,
        "overshoot": overshoot,
        "bridge": _bridge(own, parents, twins, merged),
        "frozen": equal,
        "kept": rows.kept,
        "kept_most": _most(rows.kept, own, parents, twins),
        "elsewhere": rows.elsewhere,
        "shorter": rows.shorter,
        "longer": longer,
        "even": _order(even),
    }
    may = np.zeros((count, count), dtype=bool)
    may[list(parents)] = own[list(parents)] > 0
    lengthened = (longer * may).sum(0) / np.maximum(may.sum(0), 1)
    values = np.stack([told[name] for name in NAMES], -1)
    return np.where((own > 0)[..., None], values, 0.0), np.stack([np.ones(count), lengthened], -1)


def _thirds(own: Float64, third: Sequence[int], twins: Sequence[set[int]]) -> tuple[Float64, Float64, Float64, Float64]:
    """``between``, ``beyond``, ``offshoot``, ``overshoot`` (n, n): where third models lie to each pair."""
    count = len(own)
    between, beyond, offshoot, overshoot = np.ones((count, count)), *(np.zeros((count, count)) for _ in range(3))
    alone = np.zeros((count, count), dtype=bool)
    alone[:, list(third)] = True
    alone &= ~np.eye(count, dtype=bool)
    for model, copies in enumerate(twins):
        alone[model, list(copies)] = False
    for child in range(count):
        apart = np.where(own[:, child] > 0, own[:, child], 1.0)[:, None]
        others = alone & alone[child]  # (parents, thirds)
        number = np.maximum(others.sum(1), 1)
        leave = (apart + own - own[child]) / (2 * apart)  # where paths to others leave: 0 at the parent, 1 at the child
        inside = np.minimum(leave, 1 - leave)
        detour = np.where(others, (own + own[child]) / apart, np.inf).min(1)
        between[:, child] = np.clip(np.log(np.maximum(detour, 1e-300)), -1, 1)
        beyond[:, child] = (others & (leave > 0.5)).sum(1) / number
        offshoot[:, child] = (others * np.clip(inside, 0, 0.5)).sum(1) / number
        overshoot[:, child] = (others * np.clip(-inside, 0, 0.5)).sum(1) / number
    return between, beyond, offshoot, overshoot


def _place(own: Float64, parents: Sequence[int]) -> Float64:
    place = np.zeros_like(own)
    for child in range(len(own)):
        others = [one for one in parents if own[one, child] > 0]
        for rank, one in enumerate(sorted(others, key=lambda one: own[one, child])):
            place[one, child] = min(rank, 3) / 3
    return place


def _most(kept: Float64, own: Float64, parents: Sequence[int], twins: Sequence[set[int]]) -> Float64:
    """Sign of what each parent keeps of a child's over what the best of the others does, its twins aside."""
    count = len(own)
    found = np.zeros((count, count))
    for parent in range(count):
        others = [one for one in parents if one != parent and one not in twins[parent]]
        best = np.where(own[others] > 0, kept[others], -np.inf).max(0, initial=-np.inf)
        found[parent] = np.where(np.isfinite(best), np.sign(np.round(kept[parent] - best, 6)), 0.0)
    return found


def _longer(geometry: Geometry) -> Float64:
    """Over matrices, told from vectors by their number of elements."""
    heavy = geometry.counts >= MATRIX
    squares, changed = geometry.squares[heavy], geometry.apart[heavy] > 0
    growth = np.sign(squares[:, None, :] - squares[:, :, None])
    longer: Float64 = (growth * changed).sum(0) / np.maximum(changed.sum(0), 1) / 2
    return longer


def _order(values: Float64) -> Float64:
    """Of quantities (matrices, n): how much oftener (n, n) the second model's is the larger, -0.5 to 0.5."""
    if not len(values):
        return np.zeros((values.shape[1],) * 2)
    apart = values[:, None, :] - values[:, :, None]
    order: Float64 = (np.sign(apart) * (np.abs(apart) > 1e-9 * np.abs(values).max())).mean(0) / 2
    return order


def _bridge(
    own: Float64, parents: Sequence[int], twins: Sequence[set[int]], merged: Sequence[tuple[int, Sequence[int]]]
) -> Float64:
    """Weight of each parent in the affine combination of them nearest to a child, over the squared distance left.

    In a tree of independent steps such weights are its Laplacian, each row over its diagonal: only neighbours count.
    Twins of a model and merges of it have no say.
    """
    bridge = np.zeros_like(own)
    graph = nx.DiGraph((parent, child) for child, mixed in merged for parent in mixed)
    for model in range(len(own)):
        below = nx.descendants(graph, model) if model in graph else set()
        others = [one for one in parents if one != model and one not in twins[model] | below and own[model, one] > 0]
        if not others:
            continue
        apart = own[np.ix_(others, others)]
        products = (own[model, others][:, None] + own[model, others][None, :] - apart) / 2
        products = products + np.eye(len(others)) * 1e-3 * own[model, others].min()
        row = np.linalg.solve(products, np.ones(len(others)))  # the weights are row / row.sum(), what is left 1 / sum
        bridge[others, model] = np.clip(row * own[others, model], -0.5, 1.5)
    return bridge
