"""Merges executed tensor by tensor, in order, on all cores, in bounded memory.

Tensors that stay in the span of their leaves are made in chunks: inner products first, where the method asks for them,
then the weighted sum. Other kernels want their tensors whole. Chunks and tensors are worked on side by side and handed
on in order, so that results depend neither on the number of threads nor on their luck.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple, TypeVar

import numpy as np

from kinship.arrays import Float64
from kinship.checkpoints.dtypes import DType
from kinship.device import full_precision
from kinship.errors import NonFiniteWeights, about
from kinship.measures.passes import chunk_elements, damaged
from kinship.threads import worker_count
from merging.execution.values import PIECE, Bytes, TensorMaker, gram_chunks, pieces, symmetric
from merging.planning.graph import MergeNode, Node, Same, coefficients, label_of
from merging.planning.plan import TensorPlan
from merging.registry import MeasuredOf

# What kernels over whole tensors may hold together; a single tensor that needs more is worked on alone.
MEMORY_BUDGET = 1 << 29

# How many jobs a thread may be ahead of what is handed on.
AHEAD = 3


Tag = TypeVar("Tag")
Inspect = Callable[[TensorPlan, int, Bytes], None]


class Piece(NamedTuple):
    """Bytes of ``tensor`` from byte ``start`` of it on; ``last`` of that tensor."""

    tensor: TensorPlan
    start: int
    last: bool
    data: Bytes


class _Job(NamedTuple):
    run: Callable[[], Any]
    cost: int = 0  # bytes of memory, where it is a matter of whole tensors


def execute(
    tensors: Sequence[TensorPlan],
    *,
    rounding: DType | None = None,
    seed: int = 0,
    into: Callable[[TensorPlan], Bytes] | None = None,
    observer: Callable[[TensorPlan, Float64], None] | None = None,
    inspect: Inspect | None = None,
    device: str = "cpu",
    statistics: MeasuredOf | None = None,
) -> Iterator[Piece]:
    """Yield the bytes of ``tensors``, in order and piece by piece; a tensor without elements has no piece.

    rounding: dtype that inputs are rounded to first. ``into`` gives the memory of a tensor for its bytes to be put in.
    ``observer`` is told the coefficients on its leaves of each tensor where inner products decided them; ``inspect``,
    by the thread that made them and in no order, every piece's tensor, first byte and bytes. device: where kernels run
    that can run on it (`MergeMethod.on_device`), in full fp32; what is in the span stays on the CPU, which reads it.
    statistics: what was measured of the models for a tensor, by its name, for methods that look at data.
    Memory: `peak_memory`. Raises `NonFiniteWeights` and `MismatchedModels` naming the tensor, and what kernels raise.
    """
    maker = TensorMaker(rounding, seed, device, statistics)
    with full_precision(device), _workers(with_torch=any(map(_is_whole, tensors))) as pool:
        jobs = _jobs(tensors, maker, _resolved(tensors, maker, pool, observer), into)
        if inspect is not None:
            jobs = ((tag, _Job(partial(_inspected, inspect, tag, job), job.cost)) for tag, job in jobs)
        for tag, data in _in_order(pool, jobs):
            yield Piece(*tag, data)


def _inspected(inspect: Inspect, tag: tuple[TensorPlan, int, bool], job: "_Job") -> Bytes:
    data: Bytes = job.run()
    inspect(tag[0], tag[1], data)
    return data


def peak_memory(tensors: Sequence[TensorPlan]) -> int:
    """Bytes that `execute` takes beyond the program itself, to its own estimate."""
    rows = max((len(tensor.node.leaves) for tensor in tensors), default=1)
    chunks = worker_count() * (AHEAD * 4 * PIECE + 4 * rows * chunk_elements(rows))
    whole = sorted(_cost_of_whole(tensor.node) for tensor in tensors if _is_whole(tensor))
    return chunks + max([*whole[-1:], min(MEMORY_BUDGET, sum(whole))])


def _jobs(
    tensors: Sequence[TensorPlan],
    maker: TensorMaker,
    resolved: Iterator[Float64 | None],
    into: Callable[[TensorPlan], Bytes] | None,
) -> Iterator[tuple[tuple[TensorPlan, int, bool], _Job]]:
    """What is to be done, in order, each with what it is a piece of."""
    for tensor, factors in zip(tensors, resolved, strict=True):
        node, name, dtype = tensor.node, tensor.name, tensor.dtype
        out = into(tensor) if into else None
        total = tensor.spec.nbytes
        if _is_whole(tensor):
            assert isinstance(node, MergeNode)
            if total:
                yield (tensor, 0, True), _Job(partial(maker.whole, name, node, dtype, out), _cost_of_whole(node))
            continue
        for start, count in pieces(node):
            first, end = start * dtype.itemsize, (start + count) * dtype.itemsize
            place = None if out is None else out[first:end]
            if factors is None:
                run = partial(maker.copy, name, node.leaves, start, count, place)
            else:
                run = partial(maker.weighted_sum, name, node.leaves, factors, start, count, dtype, place)
            yield (tensor, first, end == total), _Job(run)


def _resolved(
    tensors: Sequence[TensorPlan],
    maker: TensorMaker,
    pool: ThreadPoolExecutor,
    observer: Callable[[TensorPlan, Float64], None] | None,
) -> Iterator[Float64 | None]:
    """The coefficients of each tensor on its leaves; None where it is no linear combination of them."""
    grams = _grams([tensor for tensor in tensors if _needs_gram(tensor) and tensor.spec.nbytes], maker, pool)
    for tensor in tensors:
        if _is_whole(tensor) or isinstance(tensor.node, Same) or not tensor.spec.nbytes:
            yield None
            continue
        gram = next(grams) if _needs_gram(tensor) else None
        with about(label_of(tensor.name, tensor.node)):
            factors = coefficients(tensor.node, tensor.node.leaves, gram)
        if observer is not None and _needs_gram(tensor):
            observer(tensor, factors)
        yield factors


def _grams(tensors: Sequence[TensorPlan], maker: TensorMaker, pool: ThreadPoolExecutor) -> Iterator[Float64]:
    """Inner products of the leaves of each of ``tensors``; reading goes on ahead of what is asked for."""
    jobs = (
        (tensor, _Job(partial(maker.gram, tensor.node.leaves, *chunk)))
        for tensor in tensors
        for chunk in gram_chunks(tensor.node)
    )
    parts = _in_order(pool, jobs)
    for tensor, group in groupby(parts, key=lambda part: part[0]):
        gram = sum(part for _, part in group)
        if not np.isfinite(gram).all():
            raise _damaged(tensor)
        yield symmetric(gram)


def _in_order(pool: ThreadPoolExecutor, jobs: Iterable[tuple[Tag, _Job]]) -> Iterator[tuple[Tag, Any]]:
    """Run ``jobs`` side by side and yield their results in order; no more is under way than there is room for."""
    pending: deque[tuple[Tag, int, Future[Any]]] = deque()

    def next_result() -> tuple[Tag, Any]:
        tag, _, future = pending.popleft()
        return tag, future.result()

    try:
        for tag, job in jobs:
            while pending and _is_full(len(pending), sum(cost for _, cost, _ in pending), job.cost):
                yield next_result()
            pending.append((tag, job.cost, pool.submit(job.run)))
        while pending:
            yield next_result()
    finally:
        for _, _, future in pending:
            future.cancel()


def _is_full(jobs: int, held: int, cost: int) -> bool:
    return jobs >= AHEAD * worker_count() or (held > 0 and held + cost > MEMORY_BUDGET)


@contextmanager
def _workers(with_torch: bool) -> Iterator[ThreadPoolExecutor]:
    """Threads to work with; torch uses one in each of them, as results would depend on how many it uses."""
    if not with_torch:
        with ThreadPoolExecutor(worker_count()) as pool:
            yield pool
        return
    import torch

    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(worker_count(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)


def _is_whole(tensor: TensorPlan) -> bool:
    return isinstance(tensor.node, MergeNode) and not tensor.node.in_span


def _needs_gram(tensor: TensorPlan) -> bool:
    node = tensor.node
    return isinstance(node, MergeNode) and node.in_span and node.needs_products


def _cost_of_whole(node: Node) -> int:
    """Bytes: the operands in fp32, as much again and a little more for what kernels keep beside them."""
    if not isinstance(node, MergeNode) or node.in_span:
        return 0
    own = 4 * node.leaves[0].entry.count * (2 * len(node.inputs) + 2)
    if node.method.has_statistics:  # in float64, with matrices as wide as the tensor
        own += 8 * (len(node.inputs) + 3) * max(node.leaves[0].entry.count, node.shape[-1] ** 2 if node.shape else 1)
    return own + max(map(_cost_of_whole, node.operands))


def _damaged(tensor: TensorPlan) -> NonFiniteWeights:
    for leaf in tensor.node.leaves:
        model = leaf.model
        if not all(np.isfinite(model.floats(leaf.tensor, *block)).all() for block in model.blocks(leaf.tensor)):
            return damaged(leaf.tensor, model)
    return NonFiniteWeights(
        f"The squared norm of tensor {tensor.name!r} overflows float32.", hint="Weights this large are not usable."
    )
