"""Sketches: a few numbers of each tensor that tell how near two models are, without their weights.

Element i of a tensor is given a random sign and added to one of `WIDTH` sums: a linear map that keeps inner products
and distances on average (count sketch: Charikar, Chen and Farach-Colton 2002). Signs and places depend on the tensor's
name and on i alone, so sketches made anywhere, at any time, can be compared.

An inner product is off by about 1 / sqrt(WIDTH x tensors) of the norms, a squared distance by sqrt(2 / (WIDTH x
tensors)) of itself: differences of sketches are sketches of differences, and nothing cancels.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b, shake_128
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kinship.arrays import Float64
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.compiled import kernel
from kinship.errors import UnsupportedCheckpoint
from kinship.lanes import dot, fill, total
from kinship.measures.passes import CHUNK_ELEMENTS, damaged, read_rows
from kinship.random_bits import random_bits
from kinship.threads import worker_count

WIDTH = 32
BLOCK = 64  # elements that share a draw of signs, and are laid over the sums from one random place on
SIGNS = 128
VERSION = 1  # of the map: sketches of different versions cannot be compared

# Smaller tensors, norms and biases mostly, resemble each other in all models.
LEAST_ELEMENTS = 1024


class Key(NamedTuple):
    """What must be equal for the sketches of two tensors to be compared: shapes are not, some store matrices flat."""

    name: str
    size: int


@dataclass(frozen=True)
class Sketch:
    """Of one model: for T tensors ``keys``, their ``sums`` (T, WIDTH) float32 and ``squares`` (T,) norms squared."""

    keys: tuple[Key, ...]
    sums: NDArray[np.float32]
    squares: Float64


def sketch(model: Checkpoint, progress: Callable[[int], None] | None = None) -> Sketch:
    """Read all weights of ``model`` once, on all cores, and sketch them; results do not depend on the threads.

    Tensors of fewer than `LEAST_ELEMENTS` and integer buffers are left out, and so are those that are mostly their mean
    (norms). ``progress`` is told the number of bytes done since the last call. Memory: a few MB a thread.
    Raises `NonFiniteWeights` naming the tensor, and `UnsupportedCheckpoint` where nothing is left to sketch.
    """
    names = _sketched_names(model)
    sums, totals, squares = np.zeros((len(names), WIDTH)), np.zeros(len(names)), np.zeros(len(names))
    for index, part in _parts(model, names, progress):
        sums[index] += part.sums
        totals[index] += part.total
        squares[index] += part.square
    for index in np.flatnonzero(~np.isfinite(squares)).tolist():
        raise damaged(names[index], model)
    counts = np.array([model.tensors[name].count for name in names], dtype=np.float64)
    telling = np.flatnonzero(totals**2 / np.maximum(counts, 1.0) < 0.5 * squares)
    if not len(telling):
        raise UnsupportedCheckpoint(
            f"{model.id} has no weights to sketch: no tensor of {LEAST_ELEMENTS} elements or more that varies.",
            hint="Compare so small a model by kinship matrix.",
        )
    keys = tuple(Key(names[index], int(counts[index])) for index in telling.tolist())
    return Sketch(keys, sums[telling].astype(np.float32), squares[telling])


def sketched_bytes(model: Checkpoint) -> int:
    """What `sketch` reads."""
    return sum(model.tensors[name].nbytes for name in _sketched_names(model))


def _sketched_names(model: Checkpoint) -> list[str]:
    return [
        name for name, entry in model.tensors.items() if entry.dtype.is_floating_point and entry.count >= LEAST_ELEMENTS
    ]


class _Part(NamedTuple):
    sums: Float64
    total: float
    square: float


def _parts(model: Checkpoint, names: list[str], progress: Callable[[int], None] | None) -> Iterator[tuple[int, _Part]]:
    """(index of the tensor, what a chunk of it adds), in order."""
    jobs = [(index, *chunk) for index, name in enumerate(names) for chunk in model.blocks(name, CHUNK_ELEMENTS)]

    def fold(job: tuple[int, int, int]) -> _Part:
        index, start, count = job
        name = names[index]
        (row,) = read_rows([(model, name)], start, count, np.empty(count, dtype=np.float32))
        return fold_chunk(row, start, name)

    with ThreadPoolExecutor(worker_count()) as pool:
        try:
            for (index, _, count), part in zip(jobs, pool.map(fold, jobs), strict=True):
                yield index, part
                if progress is not None:
                    progress(count * model.tensors[names[index]].dtype.itemsize)
        finally:
            pool.shutdown(cancel_futures=True)


def fold_chunk(row: NDArray[Any], start: int, name: str) -> _Part:
    """The sketch of elements ``start`` .. of tensor ``name``: ``row`` (m,) fp32, or bf16 as uint16 bit patterns.

    ``start`` is a multiple of `BLOCK`. Releases the GIL.
    """
    sums, moments = np.zeros(WIDTH), np.zeros(2)
    seed = np.uint64(int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little"))
    _fold(row, start // BLOCK, seed, _sign_lines(), sums, moments)
    return _Part(sums, *moments.tolist())


@cache
def _sign_lines() -> NDArray[np.float32]:
    """`SIGNS` lines of `BLOCK` random signs, of which each block takes one, turned over by a draw of its own."""
    bits = np.unpackbits(np.frombuffer(shake_128(b"model-kinship").digest(SIGNS * BLOCK // 8), dtype=np.uint8))
    return (1 - 2 * bits.astype(np.float32)).reshape(SIGNS, BLOCK)


@kernel()
def _fold(row, first, seed, signs, sums, moments):  # type: ignore[no-untyped-def]
    tile, lanes = np.zeros(BLOCK, dtype=np.float32), np.zeros(2 * WIDTH, dtype=np.float32)
    blocks = (row.size + BLOCK - 1) // BLOCK
    for block in range(blocks):
        draw = random_bits(seed, np.uint64(first + block))
        place = np.int64(draw & np.uint64(WIDTH - 1))
        line = signs[np.int64(draw >> np.uint64(8)) & (SIGNS - 1)]
        flip = np.float32(1) if draw >> np.uint64(63) else np.float32(-1)
        part = row[block * BLOCK : (block + 1) * BLOCK]
        if part.size < BLOCK:
            tile[:] = 0
        fill(part, tile)
        moments[0] += total(tile)
        moments[1] += dot(tile, tile)
        for k in range(WIDTH):
            lanes[place + k] += flip * (line[k] * tile[k] + line[WIDTH + k] * tile[WIDTH + k])
        if block % 256 == 255 or block == blocks - 1:
            for k in range(WIDTH):
                sums[k] += np.float64(lanes[k]) + np.float64(lanes[WIDTH + k])
            lanes[:] = 0
