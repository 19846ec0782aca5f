"""Second moments of rows of numbers: the kernel of the Gram pass, compiled for the CPU it runs on.

Rows come as stored (bf16 or fp32). Each tile of them is widened to fp32, the first row is subtracted from the others,
and inner products are accumulated, all while the tile is in cache; so memory is read once and nothing is written back.
Products are summed in fp32 within a tile, by as many partial sums as the vector unit has lanes, and in float64 beyond.
"""

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.extending import intrinsic
from numpy.typing import NDArray

TILE = 2048

# Sums may be split over vector lanes; nothing else about floating point is relaxed, so NaN and infinity come through.
FAST = {"reassoc", "contract", "nsz"}

_INT32 = ir.IntType(32)


def task_vector_moments(rows: NDArray[Any], gram: NDArray[np.float64], sums: NDArray[np.float64]) -> None:
    """Add to ``gram`` (R, R) and ``sums`` (R,) the moments of [t0, t1 - t0, ..] for ``rows`` (R, m) = [t0, t1, ..].

    ``rows`` are float32, or bfloat16 as uint16 bit patterns. Only the lower triangle of ``gram`` is added to.
    Releases the GIL. Cost: about m * R^2 / 2 multiply-adds; memory: R * `TILE` floats.
    """
    _moments(rows, np.empty((len(rows), TILE), dtype=np.float32), gram, sums)


def task_vector_row(
    rows: NDArray[Any], model: NDArray[Any], products: NDArray[np.float64], gaps: NDArray[np.float64]
) -> float:
    """One more row of those moments: that of ``model`` (m,) beside ``rows`` (R, m) = [t0, t1, ..].

    Adds the inner products of its task vector d with [t0, t1 - t0, .., d] to ``products`` (R+1,), and its squared
    distances from t1, .., taken between the models themselves, to ``gaps`` (R,), of which the first stays. Returns the
    sum of d. ``rows`` and ``model`` are each float32, or bfloat16 as uint16 bit patterns. Cost: about 2 m R
    multiply-adds.
    """
    return float(_row(rows, model, np.empty((4, TILE), dtype=np.float32), products, gaps))


# Parts become one with the kernel before it is compiled: compiled apart, they are merged or not depending on whether
# they came from the cache, and sums would differ in their last bits from one process to the next.
part = numba.njit(fastmath=FAST, inline="always")


@intrinsic
def widened(typing_context, stored):  # type: ignore[no-untyped-def]
    """In compiled code: a float32, or the uint16 bit pattern of a bfloat16, as float32."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        if stored == numba.float32:
            return arguments[0]
        return builder.bitcast(builder.shl(builder.zext(arguments[0], _INT32), _INT32(16)), ir.FloatType())

    return numba.float32(stored), generate


@part
def _load(source, target):  # type: ignore[no-untyped-def]
    """Widen ``source`` into ``target``; returns the sum."""
    total = np.float32(0)
    for p in range(source.size):
        value = widened(source[p])
        target[p] = value
        total += value
    return total


@part
def _load_less(source, base, target):  # type: ignore[no-untyped-def]
    """Widen ``source`` less ``base`` into ``target``; returns the sum."""
    total = np.float32(0)
    for p in range(source.size):
        value = widened(source[p]) - base[p]
        target[p] = value
        total += value
    return total


@part
def _dot(x, y):  # type: ignore[no-untyped-def]
    total = np.float32(0)
    for p in range(x.size):
        total += x[p] * y[p]
    return total


@part
def _pair(x, y):  # type: ignore[no-untyped-def]
    """xx, yx, yy."""
    xx, yx, yy = np.float32(0), np.float32(0), np.float32(0)
    for p in range(x.size):
        xx += x[p] * x[p]
        yx += y[p] * x[p]
        yy += y[p] * y[p]
    return xx, yx, yy


@part
def _pairs(w, x, y, z):  # type: ignore[no-untyped-def]
    """wy, wz, xy, xz: two rows against two, so that each load serves two products."""
    wy, wz, xy, xz = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
    for p in range(w.size):
        wy += w[p] * y[p]
        wz += w[p] * z[p]
        xy += x[p] * y[p]
        xz += x[p] * z[p]
    return wy, wz, xy, xz


@part
def _one_pair(x, y, z):  # type: ignore[no-untyped-def]
    """xy, xz."""
    xy, xz = np.float32(0), np.float32(0)
    for p in range(x.size):
        xy += x[p] * y[p]
        xz += x[p] * z[p]
    return xy, xz


@part
def _add_products(tile, width, gram):  # type: ignore[no-untyped-def]
    """Add the products of the first ``width`` columns of ``tile`` to the lower triangle of ``gram``."""
    count = tile.shape[0]
    for i in range(0, count - 1, 2):
        one, two = tile[i, :width], tile[i + 1, :width]
        for j in range(0, i, 2):
            products = _pairs(one, two, tile[j, :width], tile[j + 1, :width])
            gram[i, j] += products[0]
            gram[i, j + 1] += products[1]
            gram[i + 1, j] += products[2]
            gram[i + 1, j + 1] += products[3]
        squares = _pair(one, two)
        gram[i, i] += squares[0]
        gram[i + 1, i] += squares[1]
        gram[i + 1, i + 1] += squares[2]
    if count % 2:
        i = count - 1
        one = tile[i, :width]
        for j in range(0, i, 2):
            products = _one_pair(one, tile[j, :width], tile[j + 1, :width])
            gram[i, j] += products[0]
            gram[i, j + 1] += products[1]
        gram[i, i] += _dot(one, one)


@numba.njit(fastmath=FAST, nogil=True, cache=True)
def _moments(rows, tile, gram, sums):  # type: ignore[no-untyped-def]
    for start in range(0, rows.shape[1], tile.shape[1]):
        width = min(tile.shape[1], rows.shape[1] - start)
        sums[0] += _load(rows[0, start : start + width], tile[0, :width])
        for i in range(1, rows.shape[0]):
            sums[i] += _load_less(rows[i, start : start + width], tile[0, :width], tile[i, :width])
        _add_products(tile, width, gram)


@part
def _gap(x, y):  # type: ignore[no-untyped-def]
    total = np.float32(0)
    for p in range(x.size):
        total += (x[p] - y[p]) * (x[p] - y[p])
    return total


@numba.njit(fastmath=FAST, nogil=True, cache=True)
def _row(rows, model, tile, products, gaps):  # type: ignore[no-untyped-def]
    """Returns the sum of the task vector of ``model``."""
    total, last = 0.0, rows.shape[0]
    base, vector, weights, other = tile[0], tile[1], tile[2], tile[3]
    for start in range(0, rows.shape[1], tile.shape[1]):
        width = min(tile.shape[1], rows.shape[1] - start)
        _load(rows[0, start : start + width], base[:width])
        _load(model[start : start + width], weights[:width])
        total += _load_less(model[start : start + width], base[:width], vector[:width])
        products[0] += _dot(vector[:width], base[:width])
        products[last] += _dot(vector[:width], vector[:width])
        for i in range(1, last):
            _load(rows[i, start : start + width], other[:width])
            gaps[i] += _gap(weights[:width], other[:width])
            _load_less(rows[i, start : start + width], base[:width], other[:width])
            products[i] += _dot(vector[:width], other[:width])
    return total
