"""Kinship of LoRA adapters on one base from their factors alone: no weight of the base is read."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinship.arrays import Float64
from kinship.checkpoints.adapted import AdaptedCheckpoint
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.low_rank import LowRank
from kinship.measures.alignment import Alignment
from kinship.measures.gram import GramTable, gram_table
from kinship.threads import worker_count

# Elements of stacked factors multiplied in fp32 before their sums go on in float64.
INNER = 2048


def adapter_gram_table(
    base: Checkpoint, models: Sequence[AdaptedCheckpoint], alignment: Alignment, *, exact: bool = False
) -> GramTable:
    """The Gram table of adapters on one base, from their factors: no weight of the base is read where all are low-rank.

    ``<s1 B1 A1, s2 B2 A2> = s1 s2 sum((B1^T B2) * (A1 A2^T))``. Row and column 0, the base itself, stay
    zero: the metrics of task vectors do not need them. Tensors that an adapter does more to than to add a low-rank
    change (replaced whole or in rows, brought to DoRA's lengths, biases) are compared densely.
    ``exact``: products in float64, which distances of near twins need; else in fp32, to seven digits.
    Cost per matrix (out, in) and adapters of ranks r adding up to R: (out + in) R^2.
    """
    names, size = alignment.names, len(models) + 1
    grams, sums = np.zeros((len(names), size, size)), np.zeros((len(names), size))

    everything = [model.adapter.changes for model in models]
    dense = {
        index
        for index, name in enumerate(names)
        if any(name in changes and changes[name].is_dense for changes in everything)
    }

    def compare(index: int) -> None:
        changes = {i: model.low_rank(names[index]) for i, model in enumerate(models, 1)}
        rows = [i for i, change in changes.items() if change is not None]
        if rows:
            grams[index][np.ix_(rows, rows)], sums[index, rows] = low_rank_moments(
                [change for change in changes.values() if change is not None], exact=exact
            )

    with ThreadPoolExecutor(worker_count()) as pool:
        list(pool.map(compare, sorted(set(range(len(names))) - dense)))
    if dense:
        rows = sorted(dense)
        table = gram_table(base, models, Alignment(tuple(names[index] for index in rows)))
        grams[rows, 1:, 1:], sums[rows, 1:] = table.grams[:, 1:, 1:], table.sums[:, 1:]
    counts = np.array([base.tensors[name].count for name in names], dtype=np.float64)
    return GramTable((base.id, *(model.id for model in models)), names, counts, sums, grams, alignment.left_out)


def low_rank_moments(changes: Sequence[LowRank], *, exact: bool = False) -> tuple[Float64, Float64]:
    """Gram (n, n) and sums (n,) of n low-rank changes of one matrix, from their factors: see `adapter_gram_table`.

    >>> one = LowRank(np.float32([[1], [2]]), np.float32([[1, 0, 3]]), scale=0.5)
    >>> low_rank_moments([one])[0].tolist() == [[float((one.dense() ** 2).sum())]]
    True
    """
    left, left_sums = _moments([change.left for change in changes], 1, exact)
    right, right_sums = _moments([change.right for change in changes], 0, exact)
    starts = np.cumsum([0, *(change.left.shape[1] for change in changes)])[:-1]
    scales = np.array([change.scale for change in changes])
    products = np.add.reduceat(np.add.reduceat(left * right, starts, axis=0), starts, axis=1) * np.outer(scales, scales)
    return np.tril(products) + np.tril(products, -1).T, np.add.reduceat(left_sums * right_sums, starts) * scales


def _moments(factors: Sequence[NDArray[np.float32]], across: int, exact: bool) -> tuple[Float64, Float64]:
    """Gram (R, R) and sums (R,) of the vectors of all ``factors``, side by side along their axis ``across``.

    Products in fp32 (``exact``: float64) by blocks of `INNER`, their sums in float64.
    """
    height, length = sum(factor.shape[across] for factor in factors), factors[0].shape[1 - across]
    gram, sums = np.zeros((height, height)), np.zeros(height)
    for start in range(0, length, INNER):
        part = slice(start, start + INNER)
        parts = [factor[part] if across else factor[:, part] for factor in factors]
        stack: NDArray[Any] = np.concatenate(parts, across, dtype=np.float64 if exact else np.float32)
        rows = stack.T if across else stack
        gram += rows @ rows.T
        sums += rows @ np.ones(rows.shape[1], rows.dtype)
    return gram, sums
