"""Weighted sums of rows as they are stored, rounded to the dtype they are written in: one pass, compiled for this CPU.

A sum is taken as ``(sum_i c_i) x_0 + sum_i c_i (x_i - x_0)``, in fp32, in the order of the rows: fine-tunes differ
little from their base, so large coefficients that cancel each other cost no digits, and equal rows come back as they
are.
Nothing about floating point is relaxed, so the bits are the same on every CPU.
"""

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.extending import intrinsic
from numpy.typing import NDArray

from kinship.compiled import kernel
from kinship.lanes import widened

TILE = 2048

_EXPONENT, _INT32 = 0x7F800000, ir.IntType(32)


def sum_rows(rows: NDArray[Any], coefficients: NDArray[np.float64], out: NDArray[Any]) -> bool:
    """Write ``sum_i c_i x_i`` to ``out`` (m,); returns whether all of it is finite there.

    rows (R, m) and out (m,) are float32, or bfloat16 as uint16 bit patterns, each on its own. coefficients: (R,)
    float64. A bf16 result is rounded to nearest even. Releases the GIL; needs `TILE` floats beside its arguments.
    """
    with np.errstate(over="ignore"):  # what overflows is told by the answer
        factors = coefficients.astype(np.float32)
        factors[0] = coefficients.sum()
    tiles = np.empty((2, TILE), dtype=np.float32)
    return not _sum(rows, factors, tiles, out)


def to_bf16(numbers: NDArray[np.float32]) -> NDArray[np.uint16]:
    """``numbers`` (any shape) as bfloat16 bit patterns, rounded to nearest even.

    >>> to_bf16(np.array([1.0, 1 + 2**-8], dtype=np.float32)).tolist()
    [16256, 16256]
    """
    out = np.empty(numbers.shape, dtype=np.uint16)
    sum_rows(np.ascontiguousarray(numbers).reshape(1, -1), np.ones(1), out.reshape(-1))
    return out


@intrinsic
def _stored_like(typing_context, out, number):  # type: ignore[no-untyped-def]
    """A float32 as an element of ``out``: itself, or rounded to a bfloat16's bit pattern; NaN stays NaN."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        if out.dtype == numba.float32:
            return arguments[1]
        bits = builder.bitcast(arguments[1], _INT32)
        upper = builder.lshr(bits, _INT32(16))
        to_even = builder.add(builder.and_(upper, _INT32(1)), _INT32(0x7FFF))
        rounded = builder.lshr(builder.add(bits, to_even), _INT32(16))
        is_nan = builder.icmp_unsigned(">", builder.and_(bits, _INT32(0x7FFFFFFF)), _INT32(_EXPONENT))
        return builder.trunc(builder.select(is_nan, builder.or_(upper, _INT32(64)), rounded), ir.IntType(16))

    return out.dtype(out, numba.float32), generate


@intrinsic
def _exponent_is_full(typing_context, number):  # type: ignore[no-untyped-def]
    """1 for NaN and infinity, else 0, as uint32."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        bits = builder.and_(builder.bitcast(arguments[0], _INT32), _INT32(_EXPONENT))
        return builder.zext(builder.icmp_unsigned("==", bits, _INT32(_EXPONENT)), _INT32)

    return numba.uint32(numba.float32), generate


@kernel()
def _sum(rows, factors, tiles, out):  # type: ignore[no-untyped-def]
    """Returns not zero where something in ``out`` is not finite. The first rows, and the last, share a loop."""
    bad = np.uint32(0)
    last = rows.shape[0] - 1
    for start in range(0, out.size, tiles.shape[1]):
        width = min(tiles.shape[1], out.size - start)
        base, total, part = tiles[0, :width], tiles[1, :width], out[start : start + width]
        row, factor = rows[0, start : start + width], factors[0]
        final, last_factor = rows[last, start : start + width], factors[last]
        if last == 0:
            for p in range(width):
                stored = _stored_like(out, factor * widened(row[p]))
                part[p] = stored
                bad |= _exponent_is_full(widened(stored))
            continue
        if last == 1:
            for p in range(width):
                start_value = widened(row[p])
                value = factor * start_value
                value += last_factor * (widened(final[p]) - start_value)
                stored = _stored_like(out, value)
                part[p] = stored
                bad |= _exponent_is_full(widened(stored))
            continue
        second, second_factor = rows[1, start : start + width], factors[1]
        for p in range(width):
            start_value = widened(row[p])
            base[p] = start_value
            value = factor * start_value
            total[p] = value + second_factor * (widened(second[p]) - start_value)
        for i in range(2, last):
            row, factor = rows[i, start : start + width], factors[i]
            for p in range(width):
                total[p] += factor * (widened(row[p]) - base[p])
        for p in range(width):
            stored = _stored_like(out, total[p] + last_factor * (widened(final[p]) - base[p]))
            part[p] = stored
            bad |= _exponent_is_full(widened(stored))
    return bad
