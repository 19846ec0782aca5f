"""Sign agreement: of the weights that two models both changed, the share that they changed in the same direction.

Opposite signs are what cancels when task vectors are added (TIES-merging: Yadav et al., arXiv 2306.01708, section 3).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numba
import numpy as np
from numba.extending import intrinsic
from numpy.typing import NDArray

from kinship.arrays import Float64
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.module_kinds import KindOf, module_kind
from kinship.checkpoints.tensor_names import group_members
from kinship.compiled import kernel
from kinship.measures.alignment import Alignment, compared
from kinship.measures.matrix import KinshipMatrix
from kinship.measures.metrics import Metric, get_metric
from kinship.measures.options import ComparisonOptions
from kinship.measures.passes import damaged, map_chunks
from kinship.measures.table import require_own

# Signs of a tile of weights become the bits of so many 32-bit words. Which bit is whose does not matter to counting, so
# neighbouring weights go to neighbouring words: that vectorises.
WORDS = 64
TILE = 32 * WORDS

_INFINITY = 0x7F800000  # as bits of fp32, without the sign; what is larger is NaN

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class SignTable:
    """Per-tensor counts of signs of task vectors (n models, T tensors); those of a group are the sums of its tensors'.

    ``rows[0]`` is the base's id, rows 1.. are the models' ids. names: T tensor names. counts: (T,) numbers of their
    elements. both: (T, n, n) numbers of
    elements that differ from the base in both models of a pair; agree: (T, n, n) those of them that are greater than
    the base's in both or less in both. An element that either model left as it was counts for nothing. Diagonals hold
    how many elements each model changed. ``left_out`` names every tensor not compared, with the reason.
    """

    rows: tuple[str, ...]
    names: tuple[str, ...]
    counts: Float64
    agree: Int64
    both: Int64
    left_out: dict[str, str] = field(default_factory=dict)

    def matrix(self, metric: str = "sign") -> KinshipMatrix:
        """Whole-model agreement, 0 to 1 (unrelated: 0.5); NaN for pairs that changed no element both."""
        require_own(metric, "sign")
        values = share(self.agree.sum(axis=0), self.both.sum(axis=0))
        over = compared(self.names, self.counts.tolist())
        return KinshipMatrix("sign", self.rows[0], self.rows[1:], values, len(self.names), self.left_out, over)

    def by_group(self, by: str, metric: str = "sign", kind_of: KindOf = module_kind) -> dict[str, KinshipMatrix]:
        """Agreement within each layer, module kind or tensor (``by``), by label."""
        require_own(metric, "sign")
        found = {}
        for label, members in group_members(self.names, by, kind_of).items():
            values = share(self.agree[members].sum(axis=0), self.both[members].sum(axis=0))
            found[label] = KinshipMatrix("sign", self.rows[0], self.rows[1:], values)
        return found

    def unrelated(self, metric: str = "sign") -> float | None:
        """What signs drawn at random would have."""
        return get_metric(metric).unrelated

    def relative_norms(self) -> dict[str, float]:
        """Empty: lengths are not measured."""
        return {}


def share(agree: Int64, both: Int64) -> Float64:
    """``agree / both``; NaN where ``both`` is zero.

    >>> share(np.array([3, 0]), np.array([4, 0])).tolist()
    [0.75, nan]
    """
    values: Float64 = np.divide(agree, both, out=np.full(both.shape, np.nan), where=both > 0)
    return values


def sign_table(
    base: Checkpoint,
    models: Sequence[Checkpoint],
    alignment: Alignment,
    progress: Callable[[int], None] | None = None,
) -> SignTable:
    """One streaming pass over the aligned tensors of ``base`` and ``models``; every byte is read once.

    Weights are compared as numbers, not subtracted, so no change is too small to have a sign (-0 equals 0).
    Chunks are read and counted side by side on `worker_count` threads; counts are exact, whatever their number.
    ``progress`` is told the number of bytes done since the last call. Peak memory: that of the Gram pass, a few MB a
    thread. Time: the reading, a few operations a weight, and two population counts a pair and 32 weights.
    Raises `NonFiniteWeights` naming tensor and model.
    """
    everyone = [base, *models]
    size = len(everyone)
    agree, both = np.zeros((2, len(alignment.names), size - 1, size - 1), dtype=np.int64)
    for index, (same, changed, bad) in map_chunks(everyone, alignment.names, _Signs, progress):
        if bad is not None:
            raise damaged(alignment.names[index], everyone[bad])
        agree[index] += same
        both[index] += changed
    for counts in (agree, both):
        counts += np.tril(counts, -1).transpose(0, 2, 1)
    elements = np.array([base.tensors[name].count for name in alignment.names], dtype=np.float64)
    rows = tuple(model.id for model in everyone)
    return SignTable(rows, alignment.names, elements, agree, both, alignment.left_out)


def read_signs(
    base: Checkpoint,
    models: Sequence[Checkpoint],
    alignment: Alignment,
    metric: Metric,
    options: ComparisonOptions,
    progress: Callable[[int], None],
) -> SignTable:
    """`sign_table` for the registry of metrics."""
    return sign_table(base, models, alignment, progress)


class _Signs:
    """`count_signs` with a ``buffer`` to read rows to; one object belongs to one thread."""

    def __init__(self, elements: int) -> None:
        self.buffer = np.empty(elements, dtype=np.float32)

    def __call__(self, rows: NDArray[Any]) -> tuple[Int64, Int64, int | None]:
        agree, both = np.zeros((2, len(rows) - 1, len(rows) - 1), dtype=np.int64)
        bad = count_signs(rows, agree, both)
        return agree, both, bad


def count_signs(rows: NDArray[Any], agree: Int64, both: Int64) -> int | None:
    """Add to the lower triangles of ``agree`` and ``both`` (n, n) the counts of ``rows`` (n + 1, m).

    ``rows`` = [base, models ..] are float32, or bfloat16 as uint16 bit patterns. Returns the first row that holds NaN
    or infinity; the counts are then meaningless. Releases the GIL.
    """
    narrow = rows.dtype == np.uint16
    tile = np.empty((2, TILE), dtype=np.float32)
    up, down = np.empty((2, len(rows) - 1, WORDS), dtype=np.uint32)
    largest = np.zeros(len(rows), dtype=np.uint32)
    bits = rows if narrow else rows.view(np.uint32)
    _count(bits, np.uint32(16 if narrow else 0), tile, up, down, largest, agree, both)
    bad = np.flatnonzero(largest >= _INFINITY)
    return int(bad[0]) if bad.size else None


_part = numba.njit(inline="always")


@intrinsic
def _ones(typing_context, word):  # type: ignore[no-untyped-def]
    """The number of ones among the bits of a uint32."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.ctpop(arguments[0])

    return numba.uint32(numba.uint32), generate


@_part
def _widen(bits, shift, target):  # type: ignore[no-untyped-def]
    """Put the floats with the upper ``bits`` into ``target``; returns the largest of the bits, signs aside."""
    largest = np.uint32(0)
    for p in range(bits.size):
        whole = np.uint32(np.uint32(bits[p]) << shift)
        target[p] = whole.view(np.float32)
        largest = max(largest, np.uint32(whole & np.uint32(0x7FFFFFFF)))
    return largest


@_part
def _pack(values, base, up, down):  # type: ignore[no-untyped-def]
    """Put the signs of ``values`` less ``base`` into the bits of ``up`` and ``down``; bits beyond them are zero."""
    up[:] = 0
    down[:] = 0
    for bit in range((values.size + WORDS - 1) // WORDS):
        start, stop = bit * WORDS, min((bit + 1) * WORDS, values.size)
        place, ours, theirs = np.uint32(bit), values[start:stop], base[start:stop]
        for p in range(ours.size):
            up[p] |= np.uint32(ours[p] > theirs[p]) << place
            down[p] |= np.uint32(ours[p] < theirs[p]) << place


@_part
def _agreement(up, down, other_up, other_down):  # type: ignore[no-untyped-def]
    """How many signs agree, and how many there are in both."""
    agree, both = np.uint32(0), np.uint32(0)
    for p in range(WORDS):
        same = (up[p] & other_up[p]) | (down[p] & other_down[p])
        opposite = (up[p] & other_down[p]) | (down[p] & other_up[p])
        agree += _ones(np.uint32(same))
        both += _ones(np.uint32(same | opposite))
    return agree, both


@kernel()
def _count(rows, shift, tile, up, down, largest, agree, both):  # type: ignore[no-untyped-def]
    for start in range(0, rows.shape[1], TILE):
        stop = min(start + TILE, rows.shape[1])
        base, values = tile[0, : stop - start], tile[1, : stop - start]
        largest[0] = max(largest[0], _widen(rows[0, start:stop], shift, base))
        for i in range(rows.shape[0] - 1):
            largest[i + 1] = max(largest[i + 1], _widen(rows[i + 1, start:stop], shift, values))
            _pack(values, base, up[i], down[i])
            for j in range(i + 1):
                same, changed = _agreement(up[i], down[i], up[j], down[j])
                agree[i, j] += same
                both[i, j] += changed
