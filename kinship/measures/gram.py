"""The Gram matrix of task vectors: the one statistic from which every pairwise metric follows.

For base t0 and models t1..tn, the rows are [t0, d1, .., dn] with task vectors d_i = t_i - t0. Differences are taken
first, in fp32 (exact for bf16 inputs), then multiplied: the Gram of raw weights would lose them to cancellation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import BinaryIO, Self

import numpy as np

from kinship.arrays import Float64, read_arrays
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.module_kinds import KindOf, module_kind
from kinship.checkpoints.tensor_names import group_members
from kinship.device import full_precision
from kinship.measures.alignment import Alignment, compared
from kinship.measures.matrix import KinshipMatrix
from kinship.measures.metrics import get_metric, gram_kernel
from kinship.measures.passes import Reducer, chunk_elements, map_chunks, non_finite
from kinship.threads import worker_count

DEVICE_CHUNKS = 8  # so much more at a time for an accelerator, whose every call takes a while to start


@dataclass(frozen=True)
class GramTable:
    """Per-tensor second moments of ``rows`` = [base, task vectors ...] (R rows, T tensors).

    names: T tensor names. counts: (T,) numbers of elements. sums: (T, R) row sums. grams: (T, R, R) inner products.
    Everything float64. ``rows[0]`` is the base's id; rows 1.. are the models' ids. ``left_out`` names every tensor not
    compared, with the reason; it is not saved.
    """

    rows: tuple[str, ...]
    names: tuple[str, ...]
    counts: Float64
    sums: Float64
    grams: Float64
    left_out: dict[str, str] = field(default_factory=dict)

    def total(self) -> tuple[Float64, Float64, float]:
        """Gram (R, R), sums (R,) and count of the whole model: the tensors laid end to end."""
        return self.grams.sum(axis=0), self.sums.sum(axis=0), float(self.counts.sum())

    def group_totals(self, by: str, kind_of: KindOf = module_kind) -> dict[str, tuple[Float64, Float64, float]]:
        """What `total` gives of each layer, module kind or tensor (``by``), by label."""
        return {
            label: (self.grams[members].sum(axis=0), self.sums[members].sum(axis=0), float(self.counts[members].sum()))
            for label, members in group_members(self.names, by, kind_of).items()
        }

    def matrix(self, metric: str = "pcc") -> KinshipMatrix:
        """Whole-model kinship of the models. Raises `InvalidConfig` for a metric that takes more than products."""
        values = gram_kernel(metric)(*self.total())[1:, 1:]
        over = compared(self.names, self.counts.tolist())
        return KinshipMatrix(metric, self.rows[0], self.rows[1:], values, len(self.names), self.left_out, over)

    def by_group(self, by: str, metric: str = "pcc", kind_of: KindOf = module_kind) -> dict[str, KinshipMatrix]:
        """Kinship within each layer, module kind or tensor (``by``), by label."""
        kernel, (base, *ids) = gram_kernel(metric), self.rows
        return {
            label: KinshipMatrix(metric, base, tuple(ids), kernel(*totals)[1:, 1:])
            for label, totals in self.group_totals(by, kind_of).items()
        }

    def unrelated(self, metric: str = "pcc") -> float | None:
        """About what unrelated models would have; None where that is not known."""
        return get_metric(metric).unrelated

    def relative_norms(self) -> dict[str, float]:
        """Length of each task vector over that of the base; empty where that of the base is zero, or not measured."""
        squares = np.diagonal(self.total()[0])
        if squares[0] == 0:
            return {}
        lengths = np.sqrt(squares / squares[0])
        return dict(zip(self.rows[1:], lengths[1:].tolist(), strict=True))

    def extended(self, id: str, sums: Float64, products: Float64) -> Self:
        """The table with one more model.

        sums: (T,) of its task vector's elements. products: (T, R+1) of its task vector with ``rows`` and itself.
        """
        grams = np.pad(self.grams, ((0, 0), (0, 1), (0, 1)))
        grams[:, -1, :] = grams[:, :, -1] = products
        sums = np.concatenate([self.sums, sums[:, None]], axis=1)
        return replace(self, rows=(*self.rows, id), sums=sums, grams=grams)

    def save(self, file: BinaryIO) -> None:
        """Write as ``.npz`` (no pickle) to an open binary file."""
        rows, names = np.array(self.rows), np.array(self.names)
        np.savez(file, rows=rows, names=names, counts=self.counts, sums=self.sums, grams=self.grams)

    @classmethod
    def load(cls, file: BinaryIO) -> Self:
        """Read what `save` wrote."""
        data = read_arrays(file)
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
    from kinship.measures.moments import CpuMoments, DeviceMoments  # numba, which holders of a table do without

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
        return CpuMoments(elements) if device == "cpu" else DeviceMoments(elements, device)

    with full_precision(device):
        for index, (gram, total) in map_chunks(everyone, weights, make, progress, chunk):
            grams[places[index]] += gram
            sums[places[index]] += total
    for index, name in enumerate(alignment.names):
        if not np.isfinite(grams[index]).all():
            raise non_finite(name, everyone)
    grams = np.tril(grams) + np.tril(grams, -1).transpose(0, 2, 1)
    return GramTable(tuple(model.id for model in everyone), alignment.names, counts, sums, grams, alignment.left_out)


def peak_memory(rows: int) -> int:
    """Bytes that the pass over ``rows`` models takes beyond the program itself; it does not depend on their size."""
    from kinship.measures.moments import TILE

    return worker_count() * rows * (4 * chunk_elements(rows) + 4 * TILE)
