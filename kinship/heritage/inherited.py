"""Rows of matrices that training left alone: of tokens that its data never used, of tensors that it froze.

Such a row is inherited as it was, or shortened by weight decay (Loshchilov & Hutter, arXiv 1711.05101), its direction
exactly kept. So two models that share one have it from a common ancestor, by way of models that all share it, as
species share an allele that arose once (a perfect phylogeny); and where it is shorter, it is decayed: the child's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kinship.gram import Float64
from kinship.heritage.sampling import Sample

# Rows are parallel if 1 - cos^2 is below this: rounding in fp32 gives about 1e-13, an update of 1e-5 gives 1e-10.
PARALLEL = 1e-11
# Narrower rows may be parallel by chance.
NARROW = 8
# Decay at least this: less is rounding.
SHORTER = 1e-6
# A model whose path leaves that of a pair before this part of it does not descend from the pair's second model.
BESIDE = 0.65


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


def inherited(samples: Sequence[Sample], own: Float64, third: Sequence[int], twins: Sequence[set[int]]) -> Inherited:
    """From the matrices that all models have; ``own``, ``third``, ``twins`` as of `kinship.heritage.signals.signals`.

    Cost: n^2 times the elements sampled of a model, n^3 times the rows sampled; memory n^3 bytes.
    """
    count = len(own)
    kept, parallels, shorter, missing, told = (np.zeros((count, count)) for _ in range(5))
    beside = _beside(own, third, twins)
    for one in samples:
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


def _beside(own: Float64, third: Sequence[int], twins: Sequence[set[int]]) -> NDArray[np.bool_]:
    """Which third models do not descend from the child of a pair, as far as distances tell: (child, parent, third)."""
    count = len(own)
    found = np.zeros((count, count, count), dtype=bool)
    for child in range(count):
        others = [one for one in third if one != child and one not in twins[child]]
        apart = np.where(own[:, child] > 0, own[:, child], 1.0)[:, None]
        found[child][:, others] = (apart + own[:, others] - own[child, others]) / (2 * apart) < BESIDE
        np.fill_diagonal(found[child], False)
    return found
