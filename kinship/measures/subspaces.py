"""Subspace overlap: how much of the directions in which two models changed a matrix most they have in common.

The measure of LoRA's section 7.2 (Hu et al., arXiv 2106.09685, equation 4), on the task vectors' own singular vectors.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from kinship.arrays import Float32, Float64
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.module_kinds import KindOf, module_kind
from kinship.checkpoints.tensor_names import group_members
from kinship.errors import InvalidConfig, NonFiniteWeights
from kinship.measures.alignment import Alignment, compared
from kinship.measures.matrix import KinshipMatrix
from kinship.measures.metrics import Metric
from kinship.measures.options import ComparisonOptions
from kinship.measures.passes import damaged
from kinship.measures.table import require_own

# Vectors iterated beyond those wanted; steps between looks at the residual, and at most; and the residual that will do,
# as a part of the largest eigenvalue.
OVERSAMPLING, STEPS_A_LOOK, MOST_STEPS, RESIDUAL = 8, 4, 24, 1e-4

# A matrix whose smaller side is at most so many times the vectors iterated is decomposed whole.
SMALL = 8

# Singular values up to these are rounding, not change: what storing weights in fp32 can make, as a part of their norm,
# and what computing in fp32 does, as a part of the largest singular value.
STORED, COMPUTED = 2.0**-24, 1e-6


@dataclass(frozen=True)
class OverlapTable:
    """Per-matrix overlap of the leading singular subspaces of task vectors (n models, T matrices).

    ``rows[0]`` is the base's id, rows 1.. are the models' ids. names: T tensor names. shapes: (T, 2). ranks: (T, n)
    dimensions of the subspaces. left, right: (T, n, n) overlaps of the left and of the right ones, 0 to 1, NaN where
    one of a pair did not change the matrix. ``left_out`` names every tensor not compared, with the reason.
    """

    rows: tuple[str, ...]
    names: tuple[str, ...]
    shapes: NDArray[np.int64]
    ranks: NDArray[np.int64]
    left: Float64
    right: Float64
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def expected(self) -> Float64:
        """What `left` and `right` average to for random subspaces of the same dimensions (T, n, n): the chance level.

        For dimensions a and b in m, ``E |U_a^T U_b|^2 / min(a, b) = max(a, b) / m``.
        """
        larger = np.maximum(self.ranks[:, :, None], self.ranks[:, None, :])
        values = larger * (1 / self.shapes).mean(axis=1)[:, None, None]
        return np.where(np.isnan(self.left), np.nan, values)

    def matrix(self, metric: str = "subspace") -> KinshipMatrix:
        """Whole-model overlap: the mean of left and right, over matrices by their numbers of elements."""
        require_own(metric, "subspace")
        whole = self._mean((self.left + self.right) / 2, slice(None))
        over = compared(self.names, self.shapes.prod(axis=1).tolist())
        return replace(whole, tensors=len(self.names), left_out=self.left_out, compared=over)

    def by_group(self, by: str, metric: str = "subspace", kind_of: KindOf = module_kind) -> dict[str, KinshipMatrix]:
        """Overlap within each layer, module kind or tensor (``by``), by label."""
        require_own(metric, "subspace")
        overlap = (self.left + self.right) / 2
        return {
            label: self._mean(overlap, members) for label, members in group_members(self.names, by, kind_of).items()
        }

    def unrelated(self, metric: str = "subspace") -> float | None:
        """The mean of what `matrix` would hold for random subspaces of the same dimensions, over pairs with a value.

        None where there is no such pair.
        """
        expected = self._mean(self.expected, slice(None))
        known = [expected[pair] for pair in combinations(expected.ids, 2) if not math.isnan(expected[pair])]
        return sum(known) / len(known) if known else None

    def relative_norms(self) -> dict[str, float]:
        """Empty: lengths are not measured."""
        return {}

    def _mean(self, values: Float64, members: NDArray[np.bool_] | slice) -> KinshipMatrix:
        """Mean of ``values`` (T, n, n) over the matrices chosen, by their numbers of elements; NaN is left out."""
        chosen = values[members]
        weights = self.shapes[members].prod(axis=1)[:, None, None] * ~np.isnan(chosen)
        total = weights.sum(axis=0)
        means = np.full(total.shape, np.nan)
        np.divide((np.nan_to_num(chosen) * weights).sum(axis=0), total, out=means, where=total > 0)
        return KinshipMatrix("subspace", self.rows[0], self.rows[1:], means)


def overlap_table(
    base: Checkpoint,
    models: Sequence[Checkpoint],
    alignment: Alignment,
    rank: int = 16,
    progress: Callable[[int], None] | None = None,
) -> OverlapTable:
    """Overlap of the leading ``rank`` singular directions, at most, of the changes of each aligned matrix.

    Tensors that are not matrices (norms, biases) are left out, and named. A change of lower rank counts with the
    directions it has (`leading_subspaces`). ``progress`` is told the number of bytes done since the last call.
    Time, per model and element: 2 (``rank`` + 8) multiply-adds a step, four steps where a few directions stand out,
    sixteen or so where the change is like noise; by BLAS, on its threads, whose number may change the last bits.
    Memory: twice the largest change in fp32, at most 400 (``rank`` + 8) bytes a row of its longer side, and
    n * ``rank`` vectors. The base is read once a model. Raises `InvalidConfig` for a rank below 1 or where there is no
    matrix to compare, `NonFiniteWeights` naming tensor and model.
    """
    if rank < 1:
        raise InvalidConfig(f"Subspaces of {rank} dimensions cannot be compared.", hint="Use a rank of 1 or more.")
    dimensions = {name: len(base.tensors[name].shape) for name in alignment.names}
    names = tuple(name for name in alignment.names if dimensions[name] == 2)
    others = {name: f"no matrix ({found} dimensions)" for name, found in dimensions.items() if found != 2}
    if not names:
        raise InvalidConfig(
            "None of the tensors compared is a matrix, so there are no singular vectors.",
            hint="Choose other tensors, or another metric.",
        )
    size = len(models)
    left, right = np.full((2, len(names), size, size), np.nan)
    ranks = np.zeros((len(names), size), dtype=np.int64)
    for index, name in enumerate(names):
        found = []
        for number, model in enumerate(models):
            change, norm = _read_change(base, model, name)
            found.append(leading_subspaces(change, rank, STORED * norm))
            if progress is not None:
                progress(model.tensors[name].nbytes + (base.tensors[name].nbytes if number == 0 else 0))
        ranks[index] = [vectors.shape[1] for vectors, _ in found]
        left[index] = _overlaps([vectors for vectors, _ in found])
        right[index] = _overlaps([vectors for _, vectors in found])
    shapes = np.array([base.tensors[name].shape for name in names], dtype=np.int64)
    rows = tuple(model.id for model in [base, *models])
    return OverlapTable(rows, names, shapes, ranks, left, right, dict(sorted((alignment.left_out | others).items())))


def read_overlaps(
    base: Checkpoint,
    models: Sequence[Checkpoint],
    alignment: Alignment,
    metric: Metric,
    options: ComparisonOptions,
    progress: Callable[[int], None],
) -> OverlapTable:
    """`overlap_table` for the registry of metrics."""
    return overlap_table(base, models, alignment, options.rank, progress)


def leading_subspaces(change: Float32, rank: int, rounding: float = 0.0) -> tuple[Float64, Float64]:
    """Orthonormal left (m, r) and right (k, r) singular vectors of ``change`` (m, k), of the largest singular values.

    r is ``rank``, or less where fewer singular values are above ``rounding`` and `COMPUTED` times the largest.
    Deterministic: block Krylov iteration (Musco and Musco, arXiv 1504.05477) from a fixed seed, in fp32 with inner
    products in float64, until the residual is at most `RESIDUAL` of the largest eigenvalue; small matrices are
    decomposed whole, in float64. After `MOST_STEPS` what there is is taken. Error: the subspaces found and those of a
    float64 decomposition overlap by all but 2e-7 (measured on noise, decaying spectra and low rank, up to 4096 x 4096).
    Where singular value r hardly differs from the next, the last direction is as arbitrary as it is in exact
    arithmetic.

    >>> left, right = leading_subspaces(np.diag([3, 0, 2, 1]).astype(np.float32), 2)
    >>> abs(left).round(6).T.tolist()
    [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]
    """
    largest = float(max(change.max(), -change.min()))
    if largest == 0:
        return np.empty((len(change), 0)), np.empty((change.shape[1], 0))
    change = change / np.float32(largest)  # squares must neither vanish nor overflow
    if min(change.shape) <= SMALL * (rank + OVERSAMPLING):
        left, values, transposed = np.linalg.svd(change.astype(np.float64), full_matrices=False)
        right = transposed.T
    elif len(change) < change.shape[1]:
        right, values, left = _krylov(change.T, rank)
    else:
        left, values, right = _krylov(change, rank)
    kept = min(rank, int((values > max(rounding / largest, COMPUTED * values[0])).sum()))
    return left[:, :kept], right[:, :kept]


def _krylov(change: Float32, rank: int) -> tuple[Float64, Float64, Float64]:
    """Leading left vectors (m, rank), singular values and right vectors (k, rank) of ``change`` (m, k), m >= k."""
    width, block = change.shape[1], rank + OVERSAMPLING
    most = min(width // block, MOST_STEPS)
    start = np.random.default_rng(0).standard_normal((width, block), dtype=np.float32)
    basis = np.linalg.qr(start)[0]
    images = change @ basis
    for step in range(1, most + 1):
        new, remainder = change.T @ images[:, -block:], np.eye(block)
        for _ in range(2):  # once would leave what rounding brought back
            new, factor = np.linalg.qr(new - basis @ (basis.T @ new))
            remainder = factor @ remainder
        if step % STEPS_A_LOOK == 0 or step == most:
            wide = images.astype(np.float64)
            squares, mixing = np.linalg.eigh(wide.T @ wide)
            squares, mixing = squares[: -rank - 1 : -1], mixing[:, : -rank - 1 : -1]
            # What the squared matrix makes of these vectors beyond the basis.
            if np.linalg.norm(remainder @ mixing[-block:]) <= RESIDUAL * squares[0]:
                break
        if step < most:
            basis, images = np.hstack([basis, new]), np.hstack([images, change @ new])
    left, right = np.linalg.qr(wide @ mixing)[0], np.linalg.qr(basis @ mixing)[0]
    return left, np.sqrt(np.clip(squares, 0.0, None)), right


def _overlaps(subspaces: Sequence[Float64]) -> Float64:
    """|U_a^T U_b|^2 / min(a, b) of every pair of orthonormal U_a (m, a), U_b (m, b); NaN where one has no dimension."""
    values = np.full((len(subspaces), len(subspaces)), np.nan)
    for i, one in enumerate(subspaces):
        for j, other in enumerate(subspaces[: i + 1]):
            smaller = min(one.shape[1], other.shape[1])
            if smaller:
                cosines = one.T @ other
                values[i, j] = values[j, i] = min(1.0, float((cosines**2).sum()) / smaller)
    return values


def _read_change(base: Checkpoint, model: Checkpoint, name: str) -> tuple[Float32, float]:
    """The change of matrix ``name`` in fp32, and the Frobenius norm of the weights changed."""
    change = np.empty(base.tensors[name].count, dtype=np.float32)
    squares = 0.0
    for start, count in base.blocks(name):
        before, after = base.floats(name, start, count), model.floats(name, start, count)
        with np.errstate(over="ignore", invalid="ignore"):
            part = np.subtract(after, before, out=change[start : start + count])
        if not np.isfinite(part).all():
            for owner, weights in ((base, before), (model, after)):
                if not np.isfinite(weights).all():
                    raise damaged(name, owner)
            raise NonFiniteWeights(
                f"The change of tensor {name!r} in {model.id} overflows float32.",
                hint="Weights this large are not usable.",
            )
        squares += float(np.square(after, dtype=np.float64).sum())
    return change.reshape(base.tensors[name].shape), math.sqrt(squares)
