"""The Gram matrix of task vectors: the one statistic from which every pairwise metric follows.

For base t0 and models t1..tn, the rows are [t0, d1, .., dn] with task vectors d_i = t_i - t0. Differences are taken
first, in fp32 (exact for bf16 inputs), then multiplied: the Gram of raw weights would lose them to cancellation.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from kinship.alignment import Alignment
from kinship.checkpoint import Checkpoint
from kinship.device import DeviceMoments, full_precision
from kinship.dtypes import BFLOAT16, FLOAT32
from kinship.errors import NonFiniteWeights
from kinship.moments import TILE, task_vector_moments
from kinship.threads import worker_count

# Elements that a thread reads of all models together before it reduces them: enough to make reading cheap, few enough
# to stay in cache until they are used.
CHUNK_ELEMENTS, MIN_CHUNK = 1 << 21, 1 << 14
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
    jobs = [
        (index, start, count)
        for index, name in enumerate(alignment.names)
        if floats[index]
        for start, count in base.blocks(name, chunk)
    ]
    buffers = threading.local()

    def reduce(job: tuple[int, int, int]) -> tuple[Float64, Float64]:
        index, start, count = job
        if not hasattr(buffers, "moments"):
            buffers.moments = _CpuMoments(size * chunk) if device == "cpu" else DeviceMoments(size * chunk, device)
        rows = read_rows(everyone, alignment.names[index], start, count, buffers.moments.buffer)
        gram, total = buffers.moments(rows)
        return gram, total

    with full_precision(device), ThreadPoolExecutor(worker_count()) as pool:
        try:
            for (index, _, count), (gram, total) in zip(jobs, pool.map(reduce, jobs), strict=True):
                grams[index] += gram
                sums[index] += total
                if progress is not None:
                    name = alignment.names[index]
                    progress(sum(count * model.tensors[name].dtype.itemsize for model in everyone))
        finally:
            pool.shutdown(cancel_futures=True)
    for index, name in enumerate(alignment.names):
        if not np.isfinite(grams[index]).all():
            raise _non_finite(name, everyone)
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


def chunk_elements(rows: int) -> int:
    """Elements of each of ``rows`` models that a thread reads at a time."""
    return max(MIN_CHUNK, CHUNK_ELEMENTS // rows)


def peak_memory(rows: int) -> int:
    """Bytes that the pass over ``rows`` models takes beyond the program itself; it does not depend on their size."""
    return worker_count() * rows * (4 * chunk_elements(rows) + 4 * TILE)


def read_rows(
    models: Sequence[Checkpoint], name: str, start: int, count: int, buffer: NDArray[np.float32]
) -> NDArray[Any]:
    """A chunk of tensor ``name`` of every model (R, count): bf16 bit patterns or fp32, whichever all are stored in.

    Other and mixed dtypes are widened to fp32. ``buffer`` (at least R * count floats) holds the result.
    """
    dtypes = {model.tensors[name].dtype for model in models}
    if dtypes <= {BFLOAT16} or dtypes <= {FLOAT32}:
        stored = buffer.view(np.uint16) if BFLOAT16 in dtypes else buffer
        rows = stored[: len(models) * count].reshape(len(models), count)
        for index, model in enumerate(models):
            model.read_into(name, start, rows[index].data.cast("B"))
        return rows
    rows = buffer[: len(models) * count].reshape(len(models), count)
    for row, model in zip(rows, models, strict=True):
        row[:] = model.floats(name, start, count)
    return rows


def _non_finite(name: str, models: Sequence[Checkpoint]) -> NonFiniteWeights:
    for model in models:
        if not all(np.isfinite(model.floats(name, *block)).all() for block in model.blocks(name)):
            return NonFiniteWeights(
                f"Tensor {name!r} of {model.id} holds NaN or infinity.",
                hint="That checkpoint is damaged or its training diverged; leave it out.",
            )
    return NonFiniteWeights(
        f"The squared norm of tensor {name!r} overflows float32.", hint="Weights this large are not usable."
    )
