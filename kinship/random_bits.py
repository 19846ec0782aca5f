"""SplitMix64 in compiled code (Steele, Lea and Flood 2014, https://doi.org/10.1145/2714064.2660195).

Any of its numbers can be made alone, so that draws depend on no order and no thread.
"""

import numba
import numpy as np


@numba.njit(inline="always")
def random_bits(seed, index):  # type: ignore[no-untyped-def]
    """In compiled code: number ``index`` (from 0) of the sequence that starts at ``seed``; all are uint64.

    >>> [int(random_bits(np.uint64(1234567), np.uint64(index))) for index in range(2)]
    [6457827717110365317, 3203168211198807973]
    """
    z = seed + (index + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
