"""From a genome to weights, straight from the founders' files."""

from collections.abc import Callable, Iterator, Sequence
from functools import reduce

import torch

from kinship.checkpoint import Checkpoint
from kinship.errors import MismatchedModels, NonFiniteWeights
from merging.span import Genome

Tensors = Iterator[tuple[str, torch.Tensor]]


def blend(tensors: Sequence[torch.Tensor], coefficients: Sequence[float]) -> torch.Tensor:
    """``sum_i c_i x_i`` in fp32, accumulated in the order given; each x_i any float dtype, all of one shape."""
    total = tensors[0].float() * coefficients[0]
    for tensor, coefficient in zip(tensors[1:], coefficients[1:], strict=True):
        total.add_(tensor.float(), alpha=coefficient)
    return total


def materialise(genome: Genome, names: Sequence[str], models: Sequence[Checkpoint]) -> Tensors:
    """Yield (name, fp32 tensor) for every tensor of ``genome``, whose columns are ``models`` and rows ``names``.

    Founders that a tensor does not use are not read. Holds one tensor of each founder at a time. Integer buffers are
    no weights: they are copied, and must be equal.
    Raises `NonFiniteWeights` or `MismatchedModels` naming the tensor.
    """
    for name, row in zip(names, genome.coefficients, strict=True):
        used = [index for index, coefficient in enumerate(row) if coefficient != 0.0] or [0]
        tensors = [models[index].tensor(name) for index in used]
        if not tensors[0].dtype.is_floating_point:
            if not all(torch.equal(tensor, tensors[0]) for tensor in tensors):
                raise MismatchedModels(f"The integer buffer {name!r} differs between the models of a merge.")
            yield name, tensors[0]
            continue
        tensor = blend(tensors, [float(row[index]) for index in used])
        if not tensor.isfinite().all():
            raise NonFiniteWeights(
                f"Tensor {name!r} of the merge holds NaN or infinity.",
                hint="Look for a damaged checkpoint, or for extreme merge parameters.",
            )
        yield name, tensor


def common_dtype(name: str, models: Sequence[Checkpoint]) -> torch.dtype:
    """The dtype to which the models' stored dtypes of a tensor promote; float8 joins others as bfloat16."""
    dtypes = list(dict.fromkeys(model.tensors[name].dtype.torch for model in models))
    if len(dtypes) == 1:
        return dtypes[0]
    # torch refuses to promote float8; bfloat16 holds both of its kinds exactly.
    return reduce(torch.promote_types, (torch.bfloat16 if _is_float8(dtype) else dtype for dtype in dtypes))


def _is_float8(dtype: torch.dtype) -> bool:
    return dtype.is_floating_point and dtype.itemsize == 1


def cast(tensors: Tensors, dtype_of: Callable[[str], torch.dtype]) -> Tensors:
    """Each weight in the dtype that ``dtype_of`` gives for its name; one rounding, to nearest even.

    Raises `NonFiniteWeights` for a weight too large for its dtype.
    """
    for name, tensor in tensors:
        if not tensor.is_floating_point():
            yield name, tensor
            continue
        dtype = dtype_of(name)
        rounded = tensor.to(dtype)
        if dtype != tensor.dtype and not rounded.float().isfinite().all():
            raise NonFiniteWeights(
                f"Tensor {name!r} of the merge holds weights beyond the range of {dtype}.",
                hint="Write the merge in bfloat16 or float32.",
            )
        yield name, rounded
