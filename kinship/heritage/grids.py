"""Rounding grids: the narrower number formats and the integer lattices that weights lie on."""

from collections.abc import Sequence

import numpy as np

from kinship.arrays import Float32, Float64
from kinship.heritage.sampling import Sample

# Half the distance of neighbouring numbers, as a part of the number, by format.
HALF_ULP = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}

_PARTS = np.arange(1, 256, dtype=np.float64)
_BLOCKS = (32, 64, 128)  # weights that share a scale, where not rows or tensors do
_EXACT = 2e-3  # of a step: how far off the lattice weights may lie; chance passes with twice this, for each weight


def to_grid(values: Float32, grid: str) -> Float32:
    """``values`` rounded to ``float16`` or ``bfloat16``, to nearest, ties to even, and widened again.

    >>> to_grid(np.array([1 + 2**-9], dtype=np.float32), "bfloat16").tolist()
    [1.0]
    """
    if grid == "float16":
        with np.errstate(over="ignore"):
            return values.astype(np.float16).astype(np.float32)
    bits = np.ascontiguousarray(values).view(np.uint32)
    even = (bits >> np.uint32(16)) & np.uint32(1)
    return ((bits + np.uint32(0x7FFF) + even) & np.uint32(0xFFFF0000)).view(np.float32)


def last_place(values: Float32, grid: str) -> Float64:
    """The distance of neighbouring numbers of ``grid`` at each of ``values``; zeros count as the least normal number.

    >>> last_place(np.array([1.5, -3.0], dtype=np.float32), "bfloat16").tolist()
    [0.0078125, 0.015625]
    """
    powers = (np.ascontiguousarray(values, dtype=np.float32).view(np.uint32) & np.uint32(0x7F800000)).view(np.float32)
    least = np.float32(2.0 ** (-14 if grid == "float16" else -126))
    steps: Float64 = np.maximum(powers, least).astype(np.float64) * (2.0 * HALF_ULP[grid])
    return steps


def grid_of(samples: Sequence[Sample], model: int) -> str:
    """The narrowest of `HALF_ULP`'s formats that holds all sampled weights of ``model``, however they are stored."""
    values = [one.of(model) for one in samples if model in one.owners]
    for grid in ("bfloat16", "float16"):
        if values and all(np.array_equal(to_grid(part, grid), part) for part in values):
            return grid
    return "float32"


def lattice_step(matrix: Float32, grid: str = "float32") -> Float64 | None:
    """Steps (rows, columns) of the integer lattice that ``matrix`` lies on by tensor, row or block; None if on none.

    A block lies on a lattice if all its weights, or all less the least one, are whole multiples of a 1/k part of the
    largest, for one k up to 255; weights are known to half a unit of ``grid``. So an excerpt will do. Blocks of few
    different values (as NF4 has) count as a lattice of that many levels.
    """
    rows, columns = matrix.shape
    layouts = [matrix, matrix.reshape(1, -1)] + [matrix.reshape(-1, b) for b in _BLOCKS if columns % b == 0]
    for blocks in layouts:
        if blocks.shape[1] < 16:
            continue
        steps = []
        for block in blocks:
            step = _block_step(block.astype(np.float64), HALF_ULP[grid])
            if step is None:
                break
            steps.append(step)
        else:
            return np.broadcast_to(np.array(steps)[:, None], blocks.shape).reshape(rows, columns)
    return None


def _block_step(values: Float64, half_ulp: float) -> float | None:
    spread = values.max() - values.min()
    steps = []
    for whole in (values, values - values.min()):
        largest = np.abs(whole).max()
        if largest == 0 or spread == 0:
            continue
        parts = _PARTS
        for some in (slice(0, 16), slice(None)):  # most blocks lie on none, as their first weights tell
            place = np.outer(parts, whole[some] / largest)
            known = _EXACT + half_ulp * parts[:, None] * np.abs(values[some]) / largest
            parts = parts[(np.abs(place - place.round()) < known).all(1)]
        if parts.size:
            steps.append(float(largest / parts[0]))
    if steps:
        return max(steps)  # an offset near a fraction of the step makes a finer lattice fit as well
    different = len(np.unique(values))
    return float(spread / (different - 1)) if 2 < different <= 16 and len(values) >= 48 else None
