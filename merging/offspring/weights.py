"""From a genome to weights, straight from the founders' files."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from kinship.arrays import Float64
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.dtypes import BY_NAME, FLOAT32, DType
from kinship.errors import MismatchedModels, NonFiniteWeights
from merging.execution.streaming import execute
from merging.kernels.rounding import promoted
from merging.offspring.span import Genome
from merging.planning.graph import Leaf, Same, Spec, WeightedSum
from merging.planning.plan import TensorPlan
from merging.registry import MeasuredOf

if TYPE_CHECKING:
    import torch

Tensors = Iterator[tuple[str, "torch.Tensor"]]
Fill = Callable[[Mapping[str, "torch.Tensor"]], None]


class TensorStream(Iterator[tuple[str, "torch.Tensor"]]):
    """Named tensors, made one after another, of which names, dtypes and shapes are known beforehand: ``specs``.

    fill: puts them all into the tensors of these names instead, on the CPU, with no copy in between; None where that
    cannot be done.
    """

    def __init__(
        self,
        specs: Iterable[Spec],
        tensors: Tensors,
        fill: Fill | None = None,
    ) -> None:
        self.specs = list(specs)
        self.fill = fill
        self._tensors = tensors

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[str, "torch.Tensor"]:
        return next(self._tensors)

    def pieces(self) -> Iterator[tuple[str, int, NDArray[np.uint8]]]:
        """What `ShardWriter.write` takes: (name, first byte, bytes)."""
        import torch

        for name, tensor in self:
            yield name, 0, tensor.contiguous().reshape(-1).view(torch.uint8).numpy()


def stream_of(checkpoint: Checkpoint) -> TensorStream:
    """The tensors of ``checkpoint`` as they are stored, one after another."""
    specs = [Spec(name, entry.dtype, entry.shape) for name, entry in checkpoint.tensors.items()]
    return TensorStream(specs, ((name, checkpoint.tensor(name)) for name in checkpoint.tensors))


def held_stream(tensors: Tensors) -> TensorStream:
    """``tensors`` of which nothing was known beforehand: they are all held in memory."""
    held = dict(tensors)
    specs = [
        Spec(name, BY_NAME[str(tensor.dtype).removeprefix("torch.")], tuple(tensor.shape))
        for name, tensor in held.items()
    ]
    return TensorStream(specs, iter(held.items()))


def materialise(
    genome: Genome, names: Sequence[str], models: Sequence[Checkpoint], dtype: "torch.dtype | None" = None
) -> TensorStream:
    """(name, tensor) for every tensor of ``genome``, whose columns are ``models`` and rows ``names``.

    dtype: what weights are rounded to, once; default fp32. Founders that a tensor does not use are not read. All cores
    work; a few tensors are in memory at a time. Integer buffers are no weights: they are copied, and must be equal.
    Raises `NonFiniteWeights` or `MismatchedModels` naming the tensor.
    """
    plans = genome_plan(genome, names, models, BY_NAME[str(dtype).removeprefix("torch.")] if dtype else FLOAT32)
    fill = partial(materialise_into, genome, names, models) if dtype is None else None
    return TensorStream([plan.spec for plan in plans], made_tensors(plans), fill)


def materialise_into(
    genome: Genome, names: Sequence[str], models: Sequence[Checkpoint], places: "Mapping[str, torch.Tensor]"
) -> None:
    """Put the weights of ``genome`` into ``places`` (contiguous, on the CPU, any float dtype), with no copy in between.

    Raises as `materialise`, and `MismatchedModels` for a tensor without a place of its shape.
    """
    import torch

    plans, memory = [], {}
    for plan in genome_plan(genome, names, models, FLOAT32):
        place = places.get(plan.name)
        if place is None or tuple(place.shape) != plan.spec.shape:
            found = "none" if place is None else str(list(place.shape))
            raise MismatchedModels(
                f"Tensor {plan.name!r} has shape {list(plan.spec.shape)}; the place for it: {found}.",
                hint="Is the model of another architecture than the founders?",
            )
        dtype = plan.dtype if isinstance(plan.node, Same) else BY_NAME[str(place.dtype).removeprefix("torch.")]
        plans.append(TensorPlan(plan.name, dtype, plan.node))
        memory[plan.name] = place.detach().view(-1).view(torch.uint8).numpy()
    for _ in execute(plans, into=lambda plan: memory[plan.name]):
        pass


def genome_plan(
    genome: Genome, names: Sequence[str], models: Sequence[Checkpoint], dtype: DType
) -> tuple[TensorPlan, ...]:
    """How `execute` makes ``genome``: founders without a share are no part of it."""
    plans = []
    for name, row in zip(names, genome.coefficients, strict=True):
        node = combination(row, name, models)
        plans.append(TensorPlan(name, node.leaves[0].entry.dtype if isinstance(node, Same) else dtype, node))
    return tuple(plans)


def combination(row: Float64, name: str, models: Sequence[Checkpoint]) -> WeightedSum | Same:
    """Tensor ``name`` as coefficients ``row`` on its ``models``, of which those without a share are left out."""
    used = np.flatnonzero(row).tolist() or [0]
    leaves = tuple(Leaf(models[index], name) for index in used)
    return WeightedSum(leaves, row[used]) if leaves[0].entry.dtype.is_floating_point else Same(leaves)


def made_tensors(
    plans: Sequence[TensorPlan], rounding: DType | None = None, seed: int = 0, statistics: MeasuredOf | None = None
) -> Tensors:
    """(name, tensor) of each of ``plans``, made in memory; see `execute`, which raises what is wrong."""
    import torch

    memory: dict[str, NDArray[np.uint8]] = {}

    def place(plan: TensorPlan) -> NDArray[np.uint8]:
        memory[plan.name] = np.empty(plan.spec.nbytes, dtype=np.uint8)
        return memory[plan.name]

    empty = [plan for plan in plans if not plan.spec.nbytes]
    for piece in execute(plans, into=place, rounding=rounding, seed=seed, statistics=statistics):
        if piece.last:
            dtype = piece.tensor.dtype.torch
            yield (
                piece.tensor.name,
                torch.from_numpy(memory.pop(piece.tensor.name)).view(dtype).view(piece.tensor.spec.shape),
            )
    for plan in empty:
        yield plan.name, torch.empty(plan.spec.shape, dtype=plan.dtype.torch)


def common_dtype(name: str, models: Sequence[Checkpoint]) -> "torch.dtype":
    """The dtype to which the models' stored dtypes of a tensor promote; float8 joins others as bfloat16."""
    dtypes = [model.tensors[name].dtype for model in models]
    return (promoted(dtypes) if all(dtype.is_floating_point for dtype in dtypes) else dtypes[0]).torch


def cast(tensors: Tensors, dtype_of: "Callable[[str], torch.dtype]") -> TensorStream:
    """Each weight in the dtype that ``dtype_of`` gives for its name; one rounding, to nearest even.

    Raises `NonFiniteWeights` for a weight too large for its dtype, `TypeError` where ``tensors`` is no `TensorStream`.
    """
    if not isinstance(tensors, TensorStream):
        raise TypeError("only a TensorStream tells what it holds before it is read")

    def rounded() -> Tensors:
        for name, tensor in tensors:
            dtype = dtype_of(name) if tensor.is_floating_point() else tensor.dtype
            result = tensor.to(dtype)
            if dtype != tensor.dtype and not result.float().isfinite().all():
                raise NonFiniteWeights(
                    f"Tensor {name!r} of the merge holds weights beyond the range of {dtype}.",
                    hint="Write the merge in bfloat16 or float32.",
                )
            yield name, result

    def spec_of(spec: Spec) -> Spec:
        if not spec.dtype.is_floating_point:
            return spec
        return spec._replace(dtype=BY_NAME[str(dtype_of(spec.name)).removeprefix("torch.")])

    return TensorStream(map(spec_of, tensors.specs), rounded())
