"""What tells that one model was fine-tuned from another: signals of an ordered pair, from distances, norms and spectra.

Training moves on in new directions, so squared distances add up along a line of descent: the tree of a family shows in
them (an additive metric), an ancestor that is not here as a point between its descendants. Siblings trained on like
data share large steps along few directions, though, and small ones in all others are each one's own: so distances are
taken with all directions in which the family varies made equally long (whitened), and plainly as well. What all
training shares is that weights grow or shrink along themselves: that direction is taken out of both.

Which end is the root does not show in distances. Training lengthens matrices, mostly along few directions. It leaves
alone, or but decays, the rows that its data does not use: such rows are inherited, and tell ancestry as alleles do.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from kinship.arrays import Float32, Float64
from kinship.heritage.distances import Geometry
from kinship.heritage.family import Family
from kinship.heritage.sampling import MATRIX, matrices_of

# Rows are parallel if 1 - cos^2 is below this: rounding in fp32 gives about 1e-13, an update of 1e-5 gives 1e-10.
PARALLEL = 1e-11
# Narrower rows may be parallel by chance.
NARROW = 8
# Decay at least this: less is rounding.
SHORTER = 1e-6
# A model whose path leaves that of a pair before this part of it does not descend from the pair's second model.
BESIDE = 0.65
# Paths that leave a pair nearer to an end than the first part of it may do so by steps that siblings have in common;
# from the second part on the two are siblings of a parent between them.
EDGEWARD, INWARD = 0.2, 0.4
# Eigenvalues of the moments count as at least this part of their mean: smaller ones are rounding.
FLOOR = 1e-3

NAMES = (
    "place",  # of the parent among the child's other models by distance: 0 for the nearest, to 1 for the fourth or more
    "between",  # log of the least detour by a third model, within -1 to 1
    "beyond",  # share of other models that lie beyond the child
    "offshoot",  # how far inside the pair the paths to other models leave, from 0 at an end to 0.5: mean
    "overshoot",  # how far outside, as where the child went back on the parent's own step: mean, at most 0.5
    "offshoot_plain",  # as offshoot, by distances that are not whitened
    "overshoot_plain",  # as overshoot, by those
    "astride",  # how much of the paths to other models leave well inside the pair by either distances, 0 to 1
    "bridge",  # how nearly the pair is an edge of the tree of distances: conductance times resistance
    "frozen",  # share of the weights that are equal
    "kept",  # share of the rows of a matrix that training left alone
    "kept_most",  # 1 if no other model keeps as much of the child's, 0 if one as much, -1 if one more
    "elsewhere",  # share of the child's rows that came from an ancestor, and that others have and the parent has not
    "shorter",  # share of inherited rows that are shorter in the child, less the share that are longer
    "longer",  # share of changed matrices whose norm is the larger in the child, less that where the smaller, halved
    "even",  # as longer, for how even the singular values are: their sum over the root of their sum of squares
    "from_base",  # 1 if the parent is known to be the base
)
# Of a model, for its having no parent here: that it has none, the mean of ``longer`` over those it could have, whether
# another is known to be the base, and one over the number of other models.
ROOTS = ("rooted", "lengthened", "not_base", "few")


def signals(family: Family) -> tuple[Float64, Float64]:
    """Signals (n, n, len(NAMES)) of all ordered pairs (parent, child) of the n models compared, and (n, len(ROOTS)).

    Zero where two are the same. Cost: n^2 times the elements sampled of a model, and n^4.
    """
    geometry, parents = family.geometry, family.parents
    own, plain = whitened_distances(family), plain_distances(family)
    count = len(own)
    rows = inherited(family, own)
    between, beyond = _detours(family, own)
    thirds, thirds_plain = _thirds(family, own), _thirds(family, plain)
    longer = _longer(geometry)
    equal = (geometry.counts[:, None, None] * (geometry.apart == 0)).sum(0) / geometry.counts.sum()
    told = {
        "place": _place(family, own),
        "between": between,
        "beyond": beyond,
        "offshoot": thirds.offshoot,
        "overshoot": thirds.overshoot,
        "offshoot_plain": thirds_plain.offshoot,
        "overshoot_plain": thirds_plain.overshoot,
        "astride": (thirds.astride + thirds_plain.astride) / 2,
        "bridge": _bridge(family, own),
        "frozen": equal,
        "kept": rows.kept,
        "kept_most": _most(family, own, rows.kept),
        "elsewhere": rows.elsewhere,
        "shorter": rows.shorter,
        "longer": longer,
        "even": _order(evenness(family)),
        "from_base": np.repeat(np.arange(count)[:, None] == family.base, count, 1).astype(np.float64),
    }
    may = np.zeros((count, count), dtype=bool)
    may[parents] = own[parents] > 0
    lengthened = (longer * may).sum(0) / np.maximum(may.sum(0), 1)
    values = np.stack([told[name] for name in NAMES], -1)
    known = np.full(count, family.base is not None) & (np.arange(count) != family.base)
    founding = np.stack([np.ones(count), lengthened, known, np.full(count, 1 / max(len(parents) - 1, 1))], -1)
    return np.where((own > 0)[..., None], values, 0.0), founding


def whitened_distances(family: Family) -> Float64:
    """Squared distances (n, n) of the models compared: the mean over the sampled matrices that all have.

    Each matrix is scaled to a median of 1. Zero where two models hold the same numbers. Where no matrix is shared,
    plain distances. Cost: n times the elements sampled times their rows and columns.
    """
    total = family.geometry.total
    parts = [_whitened(_aside(one.values)) for one in matrices_of(family.samples, range(len(total)))]
    known = [part for part in parts if part is not None]
    return np.where(total > 0, np.mean(known, 0), 0.0) if known else total


def plain_distances(family: Family) -> Float64:
    """As `whitened_distances`, of what `_aside` leaves of the sampled matrices as it is, summed.

    Cost: n^2 times the elements sampled.
    """
    total = family.geometry.total
    matrices = matrices_of(family.samples, range(len(total)))
    found = sum((_apart(_aside(one.values).reshape(len(total), -1)) for one in matrices), np.zeros_like(total))
    return np.where(total > 0, found, 0.0) if found.any() else total


def _aside(values: Float32) -> Float64:
    """Of one matrix (n, rows, columns), how the models differ from their mean aside from its own direction.

    Weights grow as they are trained, or shrink as they decay: a step that siblings have in common, whatever their data.
    """
    away = values.astype(np.float64)
    mean = away.mean(0)
    away -= mean
    square = np.square(mean).sum()
    if square > 0:
        away -= (np.tensordot(away, mean, 2) / square)[:, None, None] * mean
    return away


def _apart(flat: Float64) -> Float64:
    squares = np.square(flat).sum(1)
    apart: Float64 = np.maximum(squares[:, None] + squares - 2 * flat @ flat.T, 0.0)
    np.fill_diagonal(apart, 0.0)
    return apart


def _whitened(away: Float64) -> Float64 | None:
    """Of one matrix (n, rows, columns), its mean taken out; None where it is the same in most models."""
    rows = np.einsum("nij,nkj->ik", away, away, optimize=True)
    columns = np.einsum("nij,nik->jk", away, away, optimize=True)
    if not rows.any():
        return None
    count, height, width = away.shape
    left, right = _inverse_root(rows, (count - 1) * width), _inverse_root(columns, (count - 1) * height)
    apart = _apart((left.T @ away @ right).reshape(count, -1))
    middle = np.median(apart)
    return apart / middle if middle > 0 else None


def _inverse_root(moments: Float64, terms: int) -> Float64:
    """Of ``moments`` that are sums of so many ``terms``, drawn to their mean the more, the fewer those are.

    Else the moments of a small family would fit its very steps, and all of its models come to lie equally far apart.
    """
    sizes, directions = np.linalg.eigh(moments)
    trust = terms / (terms + len(sizes))
    sizes = trust * sizes + (1 - trust) * sizes.mean()
    root: Float64 = directions / np.sqrt(np.maximum(sizes, FLOOR * sizes.mean()))
    return root


@dataclass(frozen=True)
class Inherited:
    """Of n models, what each pair (parent, child) shares of rows, as arrays (n, n).

    ``kept``: share of its rows that are parallel, in the matrix, of those not wholly parallel, where it is largest.
    ``shorter``: share of parallel rows that are shorter in the child, less the share that are longer.
    ``elsewhere``: share of rows that the parent has not, of those that the child shares with any model beside it.
    """

    kept: Float64
    shorter: Float64
    elsewhere: Float64


def inherited(family: Family, own: Float64) -> Inherited:
    """From the matrices that all models have; ``own``: squared distances (n, n) that the tree is read from.

    Cost: n^2 times the elements sampled of a model, n^3 times the rows sampled; memory n^3 bytes.
    """
    count = len(own)
    kept, parallels, shorter, missing, told = (np.zeros((count, count)) for _ in range(5))
    beside = _beside(family, own)
    for one in family.samples:
        if len(one.owners) < count or one.values.shape[2] < NARROW:
            continue
        rows = one.values.transpose(1, 0, 2).astype(np.float64)
        products = rows @ rows.transpose(0, 2, 1)
        squares = np.diagonal(products, axis1=1, axis2=2)
        sizes = squares[:, :, None] * squares[:, None, :]
        parallel = sizes - products**2 < PARALLEL * sizes
        share = parallel.mean(0)
        kept = np.maximum(kept, np.where(share < 1, share, 0.0))
        parallels += parallel.sum(0)
        lengths = np.log(np.maximum(squares, 1e-300)) / 2
        growth = (lengths[:, None, :] - lengths[:, :, None]) * parallel
        shorter += (growth < -SHORTER).sum(0) - (growth > SHORTER).sum(0).astype(np.float64)
        shared = parallel[parallel.sum((1, 2)) > count].astype(np.float32)
        for child in range(count if len(shared) else 0):
            mine = shared[:, child]
            witnessed, known = mine @ beside[child].T > 0, mine > 0
            missing[:, child] += (witnessed & ~known).sum(0)
            told[:, child] += (witnessed | known).sum(0)
    elsewhere = np.where(own > 0, missing / np.maximum(told, 1), 0.0)
    return Inherited(kept, shorter / np.maximum(parallels, 1), elsewhere)


def evenness(family: Family) -> Float64:
    """How even the singular values are (matrices, n) of the sampled matrices that all n models have.

    Their sum over the root of their sum of squares. Cost: the elements sampled times the shorter sides.
    """
    found, count = [], len(family.compared)
    for one in matrices_of(family.samples, range(count)):
        values = one.values.astype(np.float64)
        values = values if values.shape[1] <= values.shape[2] else values.transpose(0, 2, 1)
        squares = np.maximum(np.linalg.eigvalsh(values @ values.transpose(0, 2, 1)), 0.0)
        found.append(np.sqrt(squares).sum(1) / np.maximum(np.sqrt(squares.sum(1)), 1e-300))
    return np.array(found) if found else np.zeros((0, count))


@dataclass(frozen=True)
class Thirds:
    """Where third models lie to each pair, as arrays (n, n): `NAMES` says what they are."""

    offshoot: Float64
    overshoot: Float64
    astride: Float64


def _thirds(family: Family, own: Float64) -> Thirds:
    offshoot, overshoot, astride = (np.zeros_like(own) for _ in range(3))
    for child, (others, leave) in enumerate(_leaving(family, own)):
        number = np.maximum(others.sum(1), 1)
        inside = np.minimum(leave, 1 - leave)
        offshoot[:, child] = (others * np.clip(inside, 0, 0.5)).sum(1) / number
        overshoot[:, child] = (others * np.clip(-inside, 0, 0.5)).sum(1) / number
        astride[:, child] = (others * np.clip((inside - EDGEWARD) / (INWARD - EDGEWARD), 0, 1)).sum(1) / number
    return Thirds(offshoot, overshoot, astride)


def _detours(family: Family, own: Float64) -> tuple[Float64, Float64]:
    """``between`` and ``beyond`` (n, n)."""
    between, beyond = np.ones_like(own), np.zeros_like(own)
    for child, (others, leave) in enumerate(_leaving(family, own)):
        apart = np.where(own[:, child] > 0, own[:, child], 1.0)[:, None]
        detour = np.where(others, (own + own[child]) / apart, np.inf).min(1)
        between[:, child] = np.clip(np.log(np.maximum(detour, 1e-300)), -1, 1)
        beyond[:, child] = (others & (leave > 0.5)).sum(1) / np.maximum(others.sum(1), 1)
    return between, beyond


def _leaving(family: Family, own: Float64) -> Iterator[tuple[NDArray[np.bool_], Float64]]:
    """Of each child, by (parents, thirds): which third models count, and where paths to them leave the pair, from 0 at
    the parent to 1 at the child."""
    count = len(own)
    alone = np.zeros((count, count), dtype=bool)
    alone[:, family.unmixed] = True
    alone &= ~np.eye(count, dtype=bool)
    for model, copies in enumerate(family.twins):
        alone[model, list(copies)] = False
    for child in range(count):
        apart = np.where(own[:, child] > 0, own[:, child], 1.0)[:, None]
        yield alone & alone[child], (apart + own - own[child]) / (2 * apart)


def _place(family: Family, own: Float64) -> Float64:
    place, parents = np.zeros_like(own), family.parents
    for child in range(len(own)):
        others = [one for one in parents if own[one, child] > 0]
        for rank, one in enumerate(sorted(others, key=lambda one: own[one, child])):
            place[one, child] = min(rank, 3) / 3
    return place


def _most(family: Family, own: Float64, kept: Float64) -> Float64:
    """Sign of what each parent keeps of a child's over what the best of the others does, its twins aside."""
    count, parents, twins = len(own), family.parents, family.twins
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


def _bridge(family: Family, own: Float64) -> Float64:
    """Weight of each parent in the affine combination of them nearest to a child, over the squared distance left.

    In a tree of independent steps such weights are its Laplacian, each row over its diagonal: only neighbours count.
    Twins of a model and merges of it have no say.
    """
    bridge, parents, twins = np.zeros_like(own), family.parents, family.twins
    graph = nx.DiGraph((parent, one.child) for one in family.merges for parent in one.sources)
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


def _beside(family: Family, own: Float64) -> NDArray[np.bool_]:
    """Which third models do not descend from the child of a pair, as far as distances tell: (child, parent, third)."""
    count, third, twins = len(own), family.unmixed, family.twins
    found = np.zeros((count, count, count), dtype=bool)
    for child in range(count):
        others = [one for one in third if one != child and one not in twins[child]]
        apart = np.where(own[:, child] > 0, own[:, child], 1.0)[:, None]
        found[child][:, others] = (apart + own[:, others] - own[child, others]) / (2 * apart) < BESIDE
        np.fill_diagonal(found[child], False)
    return found
