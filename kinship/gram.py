"""The Gram matrix of task vectors: the one statistic from which every pairwise metric follows.

For base t0 and models t1..tn, the rows are [t0, d1, .., dn] with task vectors d_i = t_i - t0. Differences are taken
first, in fp32 (exact for bf16 inputs), then multiplied: the Gram of raw weights would lose them to cancellation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Self

import numpy as np
import torch
from numpy.typing import NDArray

from kinship.alignment import Alignment
from kinship.checkpoint import Checkpoint
from kinship.errors import NonFiniteWeights

# fp32 products are summed over this many elements before they enter the float64 sum: measured 5e-8 relative error,
# against 1e-4 with blocks of a million.
INNER_ELEMENTS = 4096

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


def moments(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Gram (R, R) and sums (R,), float64, of ``rows`` (R, m) float32.

    Products are taken in fp32 over runs of `INNER_ELEMENTS` elements and summed in float64 across runs (a
    last, short run is in float64 altogether).
    Memory beyond the input: m/4096 matrices of (R+1, R+1).
    """
    count = rows.shape[1]
    # A row of ones makes the row sums one more row of the same product.
    rows = torch.cat([rows, rows.new_ones(1, count)])
    whole = count - count % INNER_ELEMENTS
    runs = rows[:, :whole].reshape(len(rows), -1, INNER_ELEMENTS).transpose(0, 1)
    gram = torch.bmm(runs, runs.mT).sum(dim=0, dtype=torch.float64)
    if whole < count:
        rest = rows[:, whole:].double()
        gram += rest @ rest.T
    return gram[:-1, :-1], gram[:-1, -1]


def gram_table(
    base: Checkpoint,
    models: Sequence[Checkpoint],
    alignment: Alignment,
    progress: Callable[[int], None] | None = None,
) -> GramTable:
    """One streaming pass over the aligned tensors of ``base`` and ``models``; every byte is read once.

    ``progress`` is told the number of bytes read since the last call. Peak memory: about
    (n+3) * 4 MB for n models, whatever their size. Time grows linearly with bytes until n is about 16.
    Raises `NonFiniteWeights` naming the tensor and the model.
    """
    everyone = [base, *models]
    size = len(everyone)
    sums = np.zeros((len(alignment.names), size))
    grams = np.zeros((len(alignment.names), size, size))
    counts = np.array([base.tensors[name].count for name in alignment.names], dtype=np.float64)
    for index, name in enumerate(alignment.names):
        for start, count in base.blocks(name):
            rows = torch.empty(size, count)
            for row, model in zip(rows, everyone, strict=True):
                row.copy_(model.read(name, start, count))
            rows[1:] -= rows[0]
            gram, total = moments(rows)
            grams[index] += gram.numpy()
            sums[index] += total.numpy()
            if progress is not None:
                progress(sum(count * model.tensors[name].dtype.itemsize for model in everyone))
        if not np.isfinite(grams[index]).all():
            raise _non_finite(name, everyone)
    return GramTable(tuple(model.id for model in everyone), alignment.names, counts, sums, grams)


def _non_finite(name: str, models: Sequence[Checkpoint]) -> NonFiniteWeights:
    for model in models:
        if not all(model.read(name, *block).float().isfinite().all() for block in model.blocks(name)):
            return NonFiniteWeights(
                f"Tensor {name!r} of {model.id} holds NaN or infinity.",
                hint="That checkpoint is damaged or its training diverged; leave it out.",
            )
    return NonFiniteWeights(
        f"The squared norm of tensor {name!r} overflows float32.", hint="Weights this large are not usable."
    )
