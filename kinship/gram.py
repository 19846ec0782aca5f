"""The Gram matrix of task vectors: the one statistic from which every pairwise metric follows.

For base t0 and models t1..tn, the rows are [t0, d1, .., dn] with task vectors d_i = t_i - t0. Differences are taken
first, in fp32 (exact for bf16 inputs), then multiplied: the Gram of raw weights would lose them to cancellation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from kinship.alignment import Alignment
from kinship.checkpoint import Checkpoint
from kinship.chunks import Reducer, chunk_elements, map_chunks, non_finite
from kinship.device import DeviceMoments, full_precision
from kinship.moments import TILE, task_vector_moments
from kinship.threads import worker_count

DEVICE_CHUNKS = 8  # so much more at a time for an accelerator, whose every call takes a while to start

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class GramTable:
    """Per-tensor second moments of ``rows`` = [base, task vectors ...] (R rows, T tensors).

    names: T tensor names. counts: (T,) numbers of elements. sums: (T, R) row sums. grams: (T, R, R) inner products.
    Everything float64. ``rows[0]`` is the base's id; rows 1.. are the models' ids.
    """

    rows: tuple[str, ...]
    names: tuple[str, ...]
    counts: Float64
    sums: Float64
    grams: Float64

    def total(self) -> tuple[Float64, Float64, float]:
        """Gram (R, R), sums (R,) and count of the whole model: the tensors laid end to end."""
        return self.grams.sum(axis=0), self.sums.sum(axis=0), float(self.counts.sum())

    def extended(self, id: str, sums: Float64, products: Float64) -> Self:
        """The table with one more model.

        sums: (T,) of its task vector's elements. products: (T, R+1) of its task vector with ``rows`` and itself.
        """
        grams = np.pad(self.grams, ((0, 0), (0, 1), (0, 1)))
        grams[:, -1, :] = grams[:, :, -1] = products
        return type(self)(
            (*self.rows, id), self.names, self.counts, np.concatenate([self.sums, sums[:, None]], axis=1), grams
        )

    def save(self, file: BinaryIO) -> None:
        """Write as ``.npz`` (no pickle) to an open binary file."""
        rows, names = np.array(self.rows), np.array(self.names)
        np.savez(file, rows=rows, names=names, counts=self.counts, sums=self.sums, grams=self.grams)

    @classmethod
    def load(cls, file: BinaryIO) -> Self:
        """Read what `save` wrote."""
        with np.load(file, allow_pickle=False) as data:
            rows, names = (tuple(str(item) for item in data[key]) for key in ("rows", "names"))
            return cls(rows, names, data["counts"], data["sums"], data["grams"])


def gram_table(
    base: Checkpoint,
    models: Sequence[Checkpoint],
    alignment: Alignment,
    progress: Callable[[int], None] | None = None,
    device: str = "cpu",
) -> GramTable:
    """One streaming pass over the aligned tensors of ``base`` and ``models``; every byte is read once.

    Chunks of all models are read and reduced side by side on `worker_count` threads, and added up in order, so results
    do not depend on the number of threads. Integer buffers are no weights: their rows stay zero, their counts too.
    ``progress`` is told the number of bytes done since the last call. ``device`` is where products are computed:
    ``cpu``, or one that torch knows. Peak memory: a few MB a thread, whatever the models' size. Time grows linearly
    with bytes until n is about 8. Raises `NonFiniteWeights` naming tensor and model.
    """
    everyone = [base, *models]
    size = len(everyone)
    sums = np.zeros((len(alignment.names), size))
    grams = np.zeros((len(alignment.names), size, size))
    floats = [base.tensors[name].dtype.is_floating_point for name in alignment.names]
    counts = np.array([base.tensors[name].count for name in alignment.names], dtype=np.float64) * floats
    chunk = chunk_elements(size) * (1 if device == "cpu" else DEVICE_CHUNKS)
    weights = [name for name, is_float in zip(alignment.names, floats, strict=True) if is_float]
    places = np.flatnonzero(floats)

    def make(elements: int) -> Reducer[tuple[Float64, Float64]]:
        return _CpuMoments(elements) if device == "cpu" else DeviceMoments(elements, device)

    with full_precision(device):
        for index, (gram, total) in map_chunks(everyone, weights, make, progress, chunk):
            grams[places[index]] += gram
            sums[places[index]] += total
    for index, name in enumerate(alignment.names):
        if not np.isfinite(grams[index]).all():
            raise non_finite(name, everyone)
    grams = np.tril(grams) + np.tril(grams, -1).transpose(0, 2, 1)
    return GramTable(tuple(model.id for model in everyone), alignment.names, counts, sums, grams)


class _CpuMoments:
    """`task_vector_moments` with a ``buffer`` to read rows to; one object belongs to one thread."""

    def __init__(self, elements: int) -> None:
        self.buffer = np.empty(elements, dtype=np.float32)

    def __call__(self, rows: NDArray[Any]) -> tuple[Float64, Float64]:
        gram, sums = np.zeros((len(rows), len(rows))), np.zeros(len(rows))
        task_vector_moments(rows, gram, sums)
        return gram, sums


def peak_memory(rows: int) -> int:
    """Bytes that the pass over ``rows`` models takes beyond the program itself; it does not depend on their size."""
    return worker_count() * rows * (4 * chunk_elements(rows) + 4 * TILE)
