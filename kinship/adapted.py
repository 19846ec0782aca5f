"""A base model with a LoRA adapter on top, as a checkpoint; and kinship of adapters from their factors alone."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinship.alignment import Alignment
from kinship.checkpoint import Checkpoint
from kinship.dtypes import FLOAT32
from kinship.gram import Float64, GramTable, gram_table
from kinship.lora import Adapter, LowRank
from kinship.safetensors_header import TensorEntry
from kinship.threads import worker_count

# Changes are multiplied out in tiles of whole rows that do not depend on the range asked for, so that an element's last
# bits do not either: digests, Gram tables and merges read in blocks of different sizes.
TILE_ELEMENTS = 1 << 16

# Elements of stacked factors multiplied in fp32 before their sums go on in float64.
INNER = 2048


class AdaptedCheckpoint(Checkpoint):
    """``base`` with ``adapter`` applied: changed tensors are computed block by block as they are read, in fp32."""

    def __init__(self, id: str, base: Checkpoint, adapter: Adapter) -> None:
        changed = adapter.low_rank.keys() | adapter.replaced.keys()
        tensors = {name: _changed(entry) if name in changed else entry for name, entry in base.tensors.items()}
        super().__init__(id, base.path, tensors, base.config)
        self.base = base
        self.adapter = adapter

    def read_into(self, name: str, start: int, view: memoryview) -> None:
        """See `Checkpoint.read_into`."""
        replaced, change = self.adapter.replaced.get(name), self.adapter.low_rank.get(name)
        size = self.tensors[name].dtype.itemsize
        count = len(view) // size
        if change is not None:
            weights = self.base.floats(name, start, count) if replaced is None else replaced.reshape(-1)[start:][:count]
            view[:] = (weights + _block(change, start, count)).data.cast("B")
        elif replaced is not None:
            view[:] = replaced.reshape(-1).view(np.uint8).data[start * size :][: len(view)]
        else:
            self.base.read_into(name, start, view)

    def _fingerprint(self) -> str | None:
        base = self.base._fingerprint()
        if base is None:
            return None
        sha = hashlib.sha256(f"{base}+".encode())
        for name, change in sorted(self.adapter.low_rank.items()):
            sha.update(repr((name, change.left.shape, change.right.shape, change.scale)).encode())
            sha.update(change.left.tobytes() + change.right.tobytes())
        for name, whole in sorted(self.adapter.replaced.items()):
            sha.update(repr((name, whole.shape)).encode() + whole.tobytes())
        return sha.hexdigest()

    def close(self) -> None:
        """Close the files of the base too."""
        super().close()
        self.base.close()


def adapter_gram_table(
    base: Checkpoint, models: Sequence[AdaptedCheckpoint], names: Sequence[str], *, exact: bool = False
) -> GramTable:
    """The Gram table of adapters on one base, from their factors: no weight of the base is read where all are low-rank.

    ``<s1 B1 A1, s2 B2 A2> = s1 s2 sum((B1^T B2) * (A1 A2^T))``. Row and column 0, the base itself, stay
    zero: the metrics of task vectors do not need them. Tensors that an adapter replaces whole are compared densely.
    ``exact``: products in float64, which distances of near twins need; else in fp32, to seven digits.
    Cost per matrix (out, in) and adapters of ranks r adding up to R: (out + in) R^2.
    """
    size = len(models) + 1
    grams, sums = np.zeros((len(names), size, size)), np.zeros((len(names), size))

    def compare(index: int) -> None:
        changes = {i: model.adapter.low_rank.get(names[index]) for i, model in enumerate(models, 1)}
        rows = [i for i, change in changes.items() if change is not None]
        if rows:
            grams[index][np.ix_(rows, rows)], sums[index, rows] = low_rank_moments(
                [change for change in changes.values() if change is not None], exact=exact
            )

    with ThreadPoolExecutor(worker_count()) as pool:
        list(pool.map(compare, range(len(names))))
    replaced = [index for index, name in enumerate(names) if any(name in model.adapter.replaced for model in models)]
    if replaced:
        dense = gram_table(base, models, Alignment(tuple(names[index] for index in replaced)))
        grams[replaced, 1:, 1:], sums[replaced, 1:] = dense.grams[:, 1:, 1:], dense.sums[:, 1:]
    counts = np.array([base.tensors[name].count for name in names], dtype=np.float64)
    return GramTable((base.id, *(model.id for model in models)), tuple(names), counts, sums, grams)


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


def _block(change: LowRank, start: int, count: int) -> NDArray[np.float32]:
    """Elements ``start .. start + count`` of the flattened change, fp32, computed from the tiles they lie in."""
    height, width = change.shape
    step = max(1, TILE_ELEMENTS // width)
    first, last = start // width // step * step, min(height, -(-(start + count) // width))
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is reported by who reads it
        tiles = [change.left[row : row + step] @ change.right for row in range(first, last, step)]
    return np.float32(change.scale) * np.concatenate(tiles).reshape(-1)[start - first * width :][:count]


def _changed(entry: TensorEntry) -> TensorEntry:
    """Floats that an adapter touches are read as fp32; a replaced buffer of integers keeps its dtype."""
    return replace(entry, dtype=FLOAT32, nbytes=4 * entry.count) if entry.dtype.is_floating_point else entry
