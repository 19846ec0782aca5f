"""MAGPRUNE, the dropping step of DELLA: within each row, larger elements are kept more often."""

import numba
import numpy as np
import torch

from kinship.compiled import kernel
from kinship.errors import InvalidConfig
from merging.kernels.sparsify import ALWAYS, Keep, drawn

_COARSE, _FINE = 11, 10  # 31 bits of magnitude: sorted by 11, then by 10 and by 10


def magprune(vector: torch.Tensor, density: float, epsilon: float, *, generator: torch.Generator) -> Keep:
    """Set elements of ``vector`` (\\*shape) fp32, contiguous, to zero in place; says what gives the rest its L1 norm.

    The chance to stay grows with the rank of |x| in its row (along the last dimension), linearly from density - epsilon
    to density + epsilon (DELLA, arXiv 2406.11617, section 3.1); equals rank by index; in rows of one element it is
    ``density``. Density 1 keeps everything. Raises `InvalidConfig` where
    chances leave 0 .. 1.

    Draws one number from ``generator``. Cost: a radix sort of each row; memory: 16 bytes an element of a row.
    """
    if density == 1.0:
        return Keep()
    if not 0.0 < density - epsilon <= density + epsilon < 1.0:
        raise InvalidConfig(
            f"DELLA keeps elements with chances {density - epsilon:.6g} to {density + epsilon:.6g}; "
            "they must lie between 0 and 1.",
            hint="Choose epsilon below density and below 1 - density, or density 1 to keep everything.",
        )
    seed = int(torch.randint(-(2**63), 2**63 - 1, (), generator=generator, device=generator.device)) % 2**64
    rows = vector.view(-1, vector.shape[-1] if vector.dim() else 1).numpy()
    before, after = _prune(rows, rows.view(np.uint32), density, epsilon, np.uint64(seed))
    return Keep(stretch=before / after if after > 0.0 else 1.0)


@kernel()
def _prune(rows, bits, density, epsilon, seed):  # type: ignore[no-untyped-def]
    count, width = rows.shape
    order, scratch = np.empty(width, dtype=np.uint64), np.empty(width, dtype=np.uint64)
    places = np.empty((3, 1 << _COARSE), dtype=np.uint32)
    before, after = 0.0, 0.0
    slope = 2.0 * epsilon / (width - 1) if width > 1 else 0.0
    least = density - epsilon if width > 1 else density
    for line in range(count):
        _sort(bits[line], order, scratch, places)
        for rank in range(width):
            column = np.uint32(order[rank])
            size = np.float64(abs(rows[line, column]))
            before += size
            if drawn(seed, line * width + column, np.uint64((least + slope * rank) * ALWAYS)):
                after += size
            else:
                rows[line, column] = 0
    return before, after


@kernel()
def _sort(bits, order, scratch, places):  # type: ignore[no-untyped-def]
    """Fill ``order`` with (magnitude << 32 | index) in ascending order: a radix sort from the low digit up."""
    places[:] = 0
    for i in range(bits.size):
        magnitude = bits[i] & np.uint32(0x7FFFFFFF)
        places[0, magnitude & np.uint32((1 << _COARSE) - 1)] += np.uint32(1)
        places[1, magnitude >> np.uint32(_COARSE) & np.uint32((1 << _FINE) - 1)] += np.uint32(1)
        places[2, magnitude >> np.uint32(_COARSE + _FINE)] += np.uint32(1)
        scratch[i] = np.uint64(magnitude) << np.uint64(32) | np.uint64(i)
    for digit in range(3):
        place = np.uint32(0)
        for value in range(places.shape[1]):
            here = places[digit, value]
            places[digit, value] = place
            place += here
    _scatter(scratch, order, places[0], np.uint64(32), np.uint64((1 << _COARSE) - 1))
    _scatter(order, scratch, places[1], np.uint64(32 + _COARSE), np.uint64((1 << _FINE) - 1))
    _scatter(scratch, order, places[2], np.uint64(32 + _COARSE + _FINE), np.uint64((1 << _FINE) - 1))


@numba.njit(inline="always")
def _scatter(source, target, places, shift, mask):  # type: ignore[no-untyped-def]
    for i in range(source.size):
        digit = source[i] >> shift & mask
        target[places[digit]] = source[i]
        places[digit] += np.uint32(1)
