"""The numbers of one tensor of a merge: in chunks where it is a linear combination of its leaves, else whole."""

import threading
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinship.arrays import Float32, Float64
from kinship.checkpoints.dtypes import BFLOAT16, FLOAT32, DType, widen
from kinship.errors import MismatchedModels, NonFiniteWeights, about
from kinship.measures.moments import task_vector_moments
from kinship.measures.passes import chunk_elements, read_rows
from merging.kernels.rounding import narrow, rounds
from merging.kernels.weighted_sum import sum_rows
from merging.offspring.span import child_row
from merging.planning.graph import Leaf, MergeNode, Node, coefficients, label_of
from merging.registry import MeasuredOf

# Elements of a result that are one piece of work: enough that handing pieces on costs little. Elements of all leaves
# that are read before they are summed: few enough to be in cache still, enough that a call to read costs little.
PIECE, IN_CACHE = 1 << 22, 1 << 20

Bytes = NDArray[np.uint8]
Read = Callable[[int, int], Float32]


class TensorMaker:
    """Makes the tensors that nodes stand for; several threads may use one.

    rounding: dtype that leaves are rounded to first. statistics: what was measured for a tensor. device: where kernels
    run that can run on it; UNTESTED on CUDA.
    """

    def __init__(
        self, rounding: DType | None, seed: int, device: str = "cpu", statistics: MeasuredOf | None = None
    ) -> None:
        self._rounding = rounding
        self._seed = seed
        self._device = device
        self._statistics = statistics
        self._own = threading.local()

    def gram(self, leaves: Sequence[Leaf], start: int, count: int) -> Float64:
        """Inner products (R, R), lower triangle, of a chunk of [t0, t1 - t0, ..]."""
        rows = self._read(leaves, start, count)
        gram, sums = np.zeros((len(leaves), len(leaves))), np.zeros(len(leaves))
        task_vector_moments(rows, gram, sums)
        return gram

    def weighted_sum(
        self,
        name: str,
        leaves: Sequence[Leaf],
        factors: Float64,
        start: int,
        count: int,
        dtype: DType,
        out: Bytes | None,
    ) -> Bytes:
        """A chunk of ``sum_i factors[i] * leaves[i]`` as bytes of ``dtype``, put into ``out`` where it is given.

        Raises `NonFiniteWeights` naming the tensor.
        """
        used = [index for index in range(len(leaves)) if factors[index] != 0.0] or [0]
        leaves, factors = [leaves[index] for index in used], factors[used]
        if out is None:
            out = np.empty(count * dtype.itemsize, dtype=np.uint8)
        if dtype.name == "float64" and factors.tolist() == [1.0] and leaves[0].entry.dtype == dtype:
            leaves[0].model.read_into(leaves[0].tensor, start, out.data)  # whose digits fp32 cannot hold
            _require_finite(name, out, dtype)
            return out
        step = max(1, IN_CACHE // len(leaves))
        for first in range(0, count, step):
            size = min(step, count - first)
            part = out[first * dtype.itemsize : (first + size) * dtype.itemsize]
            _sum_into(part, name, self._read(leaves, start + first, size), factors, dtype)
        return out

    def copy(self, name: str, leaves: Sequence[Leaf], start: int, count: int, out: Bytes | None) -> Bytes:
        """A chunk of a buffer of integers; raises `MismatchedModels` where the leaves differ in it."""
        first, *others = (leaf.model.stored(leaf.tensor, start, count) for leaf in leaves)
        if not all(np.array_equal(first, other) for other in others):
            raise MismatchedModels(
                f"The integer buffer {name!r} differs between the models of a merge.",
                hint="Integers are no weights and cannot be merged; leave the odd one out.",
            )
        if out is None:
            return first
        out[:] = first
        return out

    def whole(self, name: str, node: MergeNode, dtype: DType, out: Bytes | None) -> Bytes:
        """All of tensor ``name`` as bytes of ``dtype``; raises `NonFiniteWeights`."""
        if out is None:
            out = np.empty(_count(node) * dtype.itemsize, dtype=np.uint8)
        merged, base = self._merge(name, node)
        for start, count in pieces(node):
            part = merged[start : start + count]
            if base is not None:
                part += base(start, count)
            stored = narrow(part, dtype).view(np.uint8)
            _require_finite(name, stored, dtype, part)
            out[start * dtype.itemsize : (start + count) * dtype.itemsize] = stored
        return out

    def _merge(self, name: str, node: MergeNode) -> tuple[Float32, Read | None]:
        """The numbers of a ``node`` outside the span (flat), and its base where that is still to be added.

        A base that is only subtracted and added is read twice, piece by piece, rather than held.
        """
        method = node.method
        if method.in_span(node.values):
            rows = np.empty((len(node.operands), _count(node)), dtype=np.float32)
            for row, operand in zip(rows, node.operands, strict=True):
                self._fill(name, operand, row)
            with about(label_of(name, node)):
                factors = _factors(node, rows)
            return summed(rows, factors), None
        import torch

        base = None if node.base is None else self._reader(name, node.base)
        vectors = np.empty((len(node.inputs), _count(node)), dtype=np.float32)
        for row, operand in zip(vectors, node.inputs, strict=True):
            self._fill(name, operand, row)
            if base is not None and method.subtracts_base:
                for start, count in pieces(node):
                    row[start : start + count] -= base(start, count)
        device = self._device if method.on_device else "cpu"
        with about(label_of(name, node)):
            merged = method.tensor(
                torch.from_numpy(vectors).view(len(vectors), *node.shape).to(device),
                node.values,
                has_base=base is not None,
                generator=torch.Generator().manual_seed(self._seed_of(name, node)) if method.random else None,
                measured=self._statistics(name) if method.has_statistics and self._statistics else None,
            )
        return merged.reshape(-1).cpu().numpy(), base if method.subtracts_base else None

    def _fill(self, name: str, node: Node, out: Float32) -> None:
        """Put the numbers of ``node`` (flat) into ``out``."""
        read = self._reader(name, node)
        for start, count in pieces(node):
            out[start : start + count] = read(start, count)

    def _reader(self, name: str, node: Node) -> Read:
        """Gives the numbers of ``node``, flat, from ``start`` on; what is not in the span is made whole beforehand."""
        if isinstance(node, MergeNode) and not node.in_span:
            merged, base = self._merge(name, node)
            if base is not None:
                for start, count in pieces(node):
                    merged[start : start + count] += base(start, count)
            return lambda start, count: merged[start : start + count]
        gram = self._whole_gram(node) if isinstance(node, MergeNode) and node.needs_products else None
        with about(label_of(name, node)):
            factors = coefficients(node, node.leaves, gram)

        def read(start: int, count: int) -> Float32:
            out = np.empty(count, dtype=np.float32)
            self.weighted_sum(name, node.leaves, factors, start, count, FLOAT32, out.view(np.uint8))
            return out

        return read

    def _whole_gram(self, node: Node) -> Float64:
        gram = np.zeros((len(node.leaves), len(node.leaves)))
        for chunk in gram_chunks(node):
            gram += self.gram(node.leaves, *chunk)
        return symmetric(gram)

    def _seed_of(self, name: str, node: MergeNode) -> int:
        """Seed of what is random in one tensor: the same whatever else is merged, by whom and in what order."""
        return int.from_bytes(blake2b(f"{self._seed}:{node.place}:{name}".encode(), digest_size=7).digest(), "little")

    def _read(self, leaves: Sequence[Leaf], start: int, count: int) -> NDArray[Any]:
        """A chunk of the leaves (R, count): bf16 bit patterns or fp32, in memory that the thread uses again."""
        if not hasattr(self._own, "buffer") or self._own.buffer.size < len(leaves) * count:
            self._own.buffer = np.empty(len(leaves) * count, dtype=np.float32)
        rounded = [index for index, leaf in enumerate(leaves) if rounds(leaf.entry.dtype, self._rounding)]
        sources = [(leaf.model, leaf.tensor) for leaf in leaves]
        rows = read_rows(sources, start, count, self._own.buffer, as_stored=not rounded)
        for index in rounded:
            assert self._rounding is not None
            rows[index] = widen(narrow(rows[index], self._rounding).view(np.uint8), self._rounding)
        return rows


def summed(rows: NDArray[Any], factors: Float64) -> Float32:
    """The weighted sum of ``rows`` (R, m) in fp32, whatever it holds."""
    out = np.empty(rows.shape[1], dtype=np.float32)
    sum_rows(rows, factors, out)
    return out


def pieces(node: Node) -> Iterator[tuple[int, int]]:
    """(start, count) of the pieces in which a tensor is made."""
    return _cut(node, PIECE)


def gram_chunks(node: Node) -> Iterator[tuple[int, int]]:
    """(start, count) of the chunks whose inner products are added up."""
    return _cut(node, chunk_elements(len(node.leaves)))


def _cut(node: Node, size: int) -> Iterator[tuple[int, int]]:
    total = _count(node)
    return ((start, min(size, total - start)) for start in range(0, total, size))


def _sum_into(out: Bytes, name: str, rows: NDArray[Any], factors: Float64, dtype: DType) -> None:
    """The weighted sum of ``rows`` (R, m) as bytes of ``dtype``; raises `NonFiniteWeights`."""
    direct = {FLOAT32: np.float32, BFLOAT16: np.uint16}.get(dtype)
    if direct is not None:
        if not sum_rows(rows, factors, out.view(direct)):
            raise _non_finite(name, dtype, summed(rows, factors))
        return
    wide = summed(rows, factors)
    out[:] = narrow(wide, dtype).view(np.uint8)
    _require_finite(name, out, dtype, wide)


def _factors(node: MergeNode, rows: Float32) -> Float64:
    """Coefficients of a merge that is a linear combination of its operands, which are not all on disk: ``rows``."""
    everyone = np.eye(len(rows))
    base, parents = (None, everyone) if node.base is None else (everyone[0], everyone[1:])
    gram = np.zeros((len(rows), len(rows)))
    if node.method.needs_products:
        step = chunk_elements(len(rows))
        for start in range(0, rows.shape[1], step):
            task_vector_moments(np.ascontiguousarray(rows[:, start : start + step]), gram, np.zeros(len(rows)))
    return child_row(node.method, node.values, parents, base, symmetric(gram))


def symmetric(gram: Float64) -> Float64:
    """A matrix from its lower triangle."""
    return np.asarray(np.tril(gram) + np.tril(gram, -1).T)


def _count(node: Node) -> int:
    return node.leaves[0].entry.count


def _require_finite(name: str, stored: Bytes, dtype: DType, before: Float32 | None = None) -> None:
    finite = np.isfinite(stored.view(np.float64)) if dtype.name == "float64" else np.isfinite(widen(stored, dtype))
    if not finite.all():
        raise _non_finite(name, dtype, before)


def _non_finite(name: str, dtype: DType, before: Float32 | None) -> NonFiniteWeights:
    if before is not None and np.isfinite(before).all():
        return NonFiniteWeights(
            f"Tensor {name!r} of the merge holds weights beyond the range of {dtype}.",
            hint="Write the merge in bfloat16 or float32 (out_dtype).",
        )
    return NonFiniteWeights(
        f"Tensor {name!r} of the merge holds NaN or infinity.",
        hint="Look for a damaged checkpoint, or for extreme merge parameters.",
    )
