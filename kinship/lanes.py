"""Sums of products of fp32 rows, in compiled code, by a fixed number of lanes.

Each sum is `LANES` partial sums in fp32, one fused multiply-add a term, which are then added up in pairs in float64. So
how exact a sum is, and its bits, follow from this code and not from how a compiler vectorises a loop for the CPU it
runs on: a CPU with narrower vectors takes several of them for the lanes. CPUs without fused multiply-add (x86 from
before 2013) get the same bits from the C library, slowly.

Rows are contiguous, and their number of elements is a multiple of `LANES`: see `fill`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

# Four products at a time take four times as many partial sums: all that 16 registers of 256 bits have room for.
LANES = 16

_FLOATS, _DOUBLES = ir.VectorType(ir.FloatType(), LANES), ir.VectorType(ir.DoubleType(), LANES)
_INT32 = ir.IntType(32)

Vectors = list[Any]
"""`LANES` elements of each row, as LLVM values."""

# Parts become one with the kernel before it is compiled: compiled apart, they are merged or not depending on whether
# they came from the cache. Nothing about floating point is relaxed.
part = numba.njit(inline="always")


@intrinsic
def widened(typing_context, stored):  # type: ignore[no-untyped-def]
    """In compiled code: a float32, or the uint16 bit pattern of a bfloat16, as float32."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        if stored == numba.float32:
            return arguments[0]
        return builder.bitcast(builder.shl(builder.zext(arguments[0], _INT32), _INT32(16)), ir.FloatType())

    return numba.float32(stored), generate


@part
def fill(source, target):  # type: ignore[no-untyped-def]
    """Widen ``source`` into ``target``, with zeros up to the next multiple of `LANES`; returns that length."""
    for p in range(source.size):
        target[p] = widened(source[p])
    return _padded(source.size, target)


@part
def fill_less(source, base, target):  # type: ignore[no-untyped-def]
    """Widen ``source`` less ``base`` (as filled) into ``target``, with zeros as by `fill`; returns the length."""
    for p in range(source.size):
        target[p] = widened(source[p]) - base[p]
    return _padded(source.size, target)


@part
def _padded(size, target):  # type: ignore[no-untyped-def]
    width = (size + LANES - 1) // LANES * LANES
    for p in range(size, width):
        target[p] = np.float32(0)
    return width


def _lane_sums(
    rows: tuple[types.Array, ...], count: int, terms: Callable[[Any, Vectors], Sequence[tuple[Any, Any]]]
) -> tuple[Any, Any]:
    """An intrinsic over ``rows``: ``count`` sums (float64) of the products of two factors that ``terms`` makes of
    each `LANES` elements of the rows.
    """
    for row in rows:
        if not (isinstance(row, types.Array) and row.ndim == 1 and row.layout == "C" and row.dtype == numba.float32):
            raise TypeError(f"rows are contiguous float32, not {row}")
    result = numba.float64 if count == 1 else types.UniTuple(numba.float64, count)  # type: ignore[attr-defined]

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        arrays = [context.make_array(row)(context, builder, value) for row, value in zip(rows, arguments, strict=True)]
        fma = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_FLOATS, [_FLOATS] * 3), f"llvm.fma.v{LANES}f32"
        )
        sums = [cgutils.alloca_once_value(builder, ir.Constant(_FLOATS, [0.0] * LANES)) for _ in range(count)]
        size = arrays[0].nitems
        start, step = ir.Constant(size.type, 0), ir.Constant(size.type, LANES)
        with cgutils.for_range_slice(builder, start, size, step, inc=True) as (index, _):
            vectors = []
            for array in arrays:
                place = builder.bitcast(builder.gep(array.data, [index]), _FLOATS.as_pointer())
                vectors.append(builder.load(place, align=4))
            for total, (one, other) in zip(sums, terms(builder, vectors), strict=True):
                builder.store(builder.call(fma, [one, other, builder.load(total)]), total)
        found = [_added_up(builder, builder.load(total)) for total in sums]
        return found[0] if count == 1 else context.make_tuple(builder, result, found)

    return result(*rows), generate


def _added_up(builder: Any, lanes: Any) -> Any:
    """The sum of the lanes in float64: the upper half on the lower half, until one is left."""
    total, width = builder.fpext(lanes, _DOUBLES), LANES
    while width > 1:
        width //= 2
        lower, upper = (
            ir.Constant(ir.VectorType(_INT32, width), list(range(first, first + width))) for first in (0, width)
        )
        total = builder.fadd(builder.shuffle_vector(total, total, lower), builder.shuffle_vector(total, total, upper))
    return builder.extract_element(total, _INT32(0))


def _gap(builder: Any, one: Any, other: Any) -> tuple[Any, Any]:
    difference = builder.fsub(one, other)
    return difference, difference


_ONES = ir.Constant(_FLOATS, [1.0] * LANES)


@intrinsic
def total(typing_context, x):  # type: ignore[no-untyped-def]
    """The sum of x."""
    return _lane_sums((x,), 1, lambda builder, rows: [(rows[0], _ONES)])


@intrinsic
def dot(typing_context, x, y):  # type: ignore[no-untyped-def]
    """xy."""
    return _lane_sums((x, y), 1, lambda builder, rows: [(rows[0], rows[1])])


@intrinsic
def moments(typing_context, x):  # type: ignore[no-untyped-def]
    """The sum of x, xx."""
    return _lane_sums((x,), 2, lambda builder, rows: [(rows[0], _ONES), (rows[0], rows[0])])


@intrinsic
def pair_moments(typing_context, x, y):  # type: ignore[no-untyped-def]
    """The sums of x and y, xx, yx, yy."""
    return _lane_sums(
        (x, y),
        5,
        lambda builder, rows: [
            (rows[0], _ONES), (rows[1], _ONES), (rows[0], rows[0]), (rows[1], rows[0]), (rows[1], rows[1]),
        ],
    )  # fmt: skip


@intrinsic
def moments_beside(typing_context, x, y, z):  # type: ignore[no-untyped-def]
    """The sum of x, xx, xy, xz."""
    return _lane_sums(
        (x, y, z),
        4,
        lambda builder, rows: [(rows[0], _ONES), (rows[0], rows[0]), (rows[0], rows[1]), (rows[0], rows[2])],
    )


@intrinsic
def two_dots(typing_context, x, y, z):  # type: ignore[no-untyped-def]
    """xy, xz."""
    return _lane_sums((x, y, z), 2, lambda builder, rows: [(rows[0], rows[1]), (rows[0], rows[2])])


@intrinsic
def four_dots(typing_context, w, x, y, z):  # type: ignore[no-untyped-def]
    """wy, wz, xy, xz: two rows against two, so that each load serves two products."""
    return _lane_sums((w, x, y, z), 4, lambda builder, rows: [(rows[i], rows[j]) for i in (0, 1) for j in (2, 3)])


@intrinsic
def gap(typing_context, x, y):  # type: ignore[no-untyped-def]
    """|x - y|^2."""
    return _lane_sums((x, y), 1, lambda builder, rows: [_gap(builder, *rows)])


@intrinsic
def four_gaps(typing_context, w, x, y, z):  # type: ignore[no-untyped-def]
    """|w - y|^2, |w - z|^2, |x - y|^2, |x - z|^2."""
    return _lane_sums(
        (w, x, y, z), 4, lambda builder, rows: [_gap(builder, rows[i], rows[j]) for i in (0, 1) for j in (2, 3)]
    )
