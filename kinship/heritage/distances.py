"""Distances within a family, tensor by tensor, from one pass over the weights: what descent is read from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinship.arrays import Float64
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.shared_vocabulary import SelectedRows
from kinship.checkpoints.token_rows import have_token_rows
from kinship.compiled import kernel
from kinship.heritage.sampling import width_of
from kinship.lanes import dot, fill, four_gaps, gap
from kinship.measures.passes import map_chunks, non_finite

# Elements of each model that are compared at a time, so that those of all stay in cache.
TILE = 512


def pairwise_gaps(
    models: Sequence[Checkpoint], names: Sequence[str], progress: Callable[[int], None] | None = None
) -> tuple[Float64, Float64]:
    """Squared norms (T, n) of tensors ``names`` of ``models``, and squared distances (T, n, n), zero where equal.

    Every byte is read once; results do not depend on the number of threads. ``progress`` is told bytes. Cost: n^2
    elements subtracted and squared; memory: the result, and 64 KB a model and thread. Raises `NonFiniteWeights`.
    """
    count = len(models)
    squares, gaps = np.zeros((len(names), count)), np.zeros((len(names), count, count))
    for index, (square, apart) in map_chunks(models, names, _Gaps, progress):
        squares[index] += square
        gaps[index] += apart
    for index, name in enumerate(names):
        if not (np.isfinite(squares[index]).all() and np.isfinite(gaps[index]).all()):
            raise non_finite(name, models)
        gaps[index] += gaps[index].T
    return squares, gaps


class _Gaps:
    """Reduces chunks to squared norms and the lower triangle of squared distances; one object belongs to one thread."""

    def __init__(self, elements: int) -> None:
        self.buffer = np.empty(elements, dtype=np.float32)

    def __call__(self, rows: NDArray[Any]) -> tuple[Float64, Float64]:
        count = len(rows)
        tile = np.empty((count, TILE), dtype=np.float32)
        squares, gaps = np.zeros(count), np.zeros((count, count))
        _fold(rows, tile, squares, gaps)
        return squares, gaps


@kernel()
def _fold(rows, tile, squares, gaps):  # type: ignore[no-untyped-def]
    count = rows.shape[0]
    for start in range(0, rows.shape[1], tile.shape[1]):
        stop, width = min(start + tile.shape[1], rows.shape[1]), 0
        for i in range(count):
            width = fill(rows[i, start:stop], tile[i])
            squares[i] += dot(tile[i, :width], tile[i, :width])
        for i in range(0, count - 1, 2):
            one, two = tile[i, :width], tile[i + 1, :width]
            for j in range(0, i, 2):
                four = four_gaps(one, two, tile[j, :width], tile[j + 1, :width])
                gaps[i, j] += four[0]
                gaps[i, j + 1] += four[1]
                gaps[i + 1, j] += four[2]
                gaps[i + 1, j + 1] += four[3]
            gaps[i + 1, i] += gap(two, one)
        if count % 2:
            for j in range(count - 1):
                gaps[count - 1, j] += gap(tile[count - 1, :width], tile[j, :width])


@dataclass(frozen=True)
class Geometry:
    """n models, T tensors, float64. ``squares`` (T, n): squared norms. ``apart`` (T, n, n): squared distances.

    A distance is zero only where two models hold the same numbers. ``counts`` (T,) numbers of elements.
    """

    names: tuple[str, ...]
    counts: Float64
    squares: Float64
    apart: Float64

    @cached_property
    def total(self) -> Float64:
        """Squared distances (n, n) of whole models."""
        return np.asarray(self.apart.sum(0))

    def products(self, origin: int) -> Float64:
        """Inner products (T, n, n) of the models' differences from ``origin``."""
        away = self.apart[:, origin]
        return (away[:, :, None] + away[:, None, :] - self.apart) / 2


def comparable(models: Sequence[Checkpoint]) -> tuple[list[Checkpoint], tuple[str, ...], dict[int, str]]:
    """``models`` cut to the rows that all have, the tensors that all share, and who shares too little, with the reason.

    A tensor stored flat is compared by its number of elements. A model that lacks over a tenth of the weights that most
    have is left out of the sharing; it is not compared.
    """
    keys = [{name for name, entry in model.tensors.items() if entry.dtype.is_floating_point} for model in models]
    frequent = {name for name in set().union(*keys) if sum(name in key for key in keys) * 2 > len(models)}
    largest = {name: max(model.tensors[name].count for model in models if name in model.tensors) for name in frequent}
    whole = sum(largest.values())
    if not whole:
        return list(models), (), dict.fromkeys(range(len(models)), "shares no tensors with most others")
    left_out: dict[int, str] = {}
    for index, key in enumerate(keys):
        missing = sum(count for name, count in largest.items() if name not in key)
        more = sum(models[index].tensors[name].count for name in key - frequent)
        if missing > whole / 10 or more > whole / 5:
            left_out[index] = (
                f"lacks {100 * missing / whole:.0f} % of the weights that others have, "
                f"has {100 * more / whole:.0f} % more"
            )
    kept = [index for index in range(len(models)) if index not in left_out]
    if not kept:
        return list(models), (), left_out
    names, cuts = [], {}
    for name in sorted(set.intersection(*(keys[index] for index in kept))):
        entries = [models[index].tensors[name] for index in kept]
        sizes = {entry.count for entry in entries}
        widths = {width_of(entry.shape, entry.count) for entry in entries if len(entry.shape) > 1}
        if len(sizes) == 1:
            names.append(name)
        elif (
            len(widths) == 1
            and all(len(entry.shape) == 2 for entry in entries)
            and have_token_rows(models[kept[0]], [name])
        ):
            names.append(name)
            cuts[name] = min(entry.shape[0] for entry in entries)
    cut = [
        SelectedRows(model, rows)
        if index not in left_out
        and (
            rows := {name: np.arange(height) for name, height in cuts.items() if model.tensors[name].shape[0] != height}
        )
        else model
        for index, model in enumerate(models)
    ]
    return cut, tuple(name for name in names if models[kept[0]].tensors[name].count), left_out


def measure(
    models: Sequence[Checkpoint], names: Sequence[str], progress: Callable[[int], None] | None = None
) -> Geometry:
    """The geometry of ``models`` on tensors ``names`` by one pass: see `pairwise_gaps`. Raises `NonFiniteWeights`."""
    squares, apart = pairwise_gaps(models, names, progress)
    counts = np.array([models[0].tensors[name].count for name in names], dtype=np.float64)
    return Geometry(tuple(names), counts, squares, apart)
