"""Exact order statistics of magnitudes, without sorting: a radix histogram over the bits of |x|.

Elements of a flattened tensor are in one strict order: larger magnitude first, lower index first among equals. An
element's place in it is a 63-bit key, its magnitude's bit pattern (which orders floats as their values do) above its
complemented index, so that "the k largest" is "those whose key is at least this" and no tie is left to chance.
NaN counts as larger than infinity.
"""

from collections.abc import Sequence

import numba
import numpy as np
from numpy.typing import NDArray

from kinship.compiled import kernel

EVERY = 0  # the key that all elements reach
NONE = 2**63 - 1  # the key that no element reaches

_HIGH, _LOW = 16, 15  # bits counted by the first and by the second histogram
_TURNS = 16
_BLOCK = 64


def cuts(values: NDArray[np.float32], counts: Sequence[int]) -> list[int]:
    """For each of ``counts`` the key of the last of so many elements of ``values`` (n,) in order; 0 <= count <= n.

    Exactly so many elements reach it; for a count of 0 it is `NONE`.

    Cost: a pass for the first histogram, one more for each count, and one where a tie has to be split; n < 2**32.
    Releases the GIL. Memory: 400 KB.

    >>> x = np.array([1, -3, 2, 3], dtype=np.float32)
    >>> [[int(i) for i in range(4) if key(x, i) >= cut] for cut in cuts(x, [0, 1, 3])]
    [[], [1], [1, 2, 3]]
    """
    keys = np.empty(len(counts), dtype=np.int64)
    _cuts(values.view(np.uint32), np.array(counts, dtype=np.int64), keys)
    return [int(found) for found in keys]


def key(values: NDArray[np.float32], index: int) -> int:
    """The key of element ``index`` of ``values`` (n,)."""
    return (int(values.view(np.uint32)[index]) & 0x7FFFFFFF) << 32 | (0xFFFFFFFF - index)


def magnitude(cut: int) -> float:
    """The magnitude that the key ``cut`` begins with.

    >>> magnitude(cuts(np.array([0.5, -4, 2], dtype=np.float32), [2])[0])
    2.0
    """
    return float(np.uint32(cut >> 32).view(np.float32))


@kernel()
def _cuts(bits, counts, keys):  # type: ignore[no-untyped-def]
    # Zeros, often many, are counted apart, in turns on several counters: one counter would wait for itself.
    coarse = np.zeros((1 << _HIGH) + _TURNS, dtype=np.uint32)
    for i in range(bits.size):
        magnitude = bits[i] & np.uint32(0x7FFFFFFF)
        turn = np.uint32(1 << _HIGH) + (np.uint32(i) & np.uint32(_TURNS - 1))
        coarse[magnitude >> np.uint32(_LOW) if magnitude != 0 else turn] += np.uint32(1)
    zeros = np.int64(coarse[1 << _HIGH :].sum())
    for which in range(counts.size):
        keys[which] = _cut(bits, counts[which], coarse, zeros) if counts[which] > 0 else NONE


@numba.njit(inline="always")
def _holds(block, prefix):  # type: ignore[no-untyped-def]
    """Whether any of ``block`` begins with ``prefix``: vector code, and most blocks of the second pass end here."""
    found = np.uint32(0)
    for i in range(block.size):
        found |= np.uint32((block[i] & np.uint32(0x7FFFFFFF)) >> np.uint32(_LOW) == prefix)
    return found != 0


@kernel()
def _cut(bits, wanted, coarse, zeros):  # type: ignore[no-untyped-def]
    """The key that ``wanted`` elements reach; 0 < wanted <= n."""
    threshold, equals = np.uint32(0), zeros
    if wanted <= bits.size - zeros:
        prefix = (1 << _HIGH) - 1
        while wanted > np.int64(coarse[prefix]):
            wanted -= np.int64(coarse[prefix])
            prefix -= 1
        fine = np.zeros(1 << _LOW, dtype=np.uint32)
        for start in range(0, bits.size, _BLOCK):
            block = bits[start : start + _BLOCK]
            if _holds(block, np.uint32(prefix)):
                for i in range(block.size):
                    magnitude = block[i] & np.uint32(0x7FFFFFFF)
                    if magnitude >> np.uint32(_LOW) == np.uint32(prefix) and magnitude != 0:
                        fine[magnitude & np.uint32((1 << _LOW) - 1)] += np.uint32(1)
        rest = (1 << _LOW) - 1
        while wanted > np.int64(fine[rest]):
            wanted -= np.int64(fine[rest])
            rest -= 1
        threshold, equals = np.uint32(prefix << _LOW | rest), np.int64(fine[rest])
    else:
        wanted -= bits.size - zeros
    cut = np.int64(threshold) << 32
    if wanted < equals:  # a tie is split: of the equals the first ``wanted`` are in
        i = -1
        while wanted > 0:
            i += 1
            wanted -= np.int64((bits[i] & np.uint32(0x7FFFFFFF)) == threshold)
        cut |= 0xFFFFFFFF - i
    return cut
