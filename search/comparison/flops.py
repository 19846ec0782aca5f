"""Floating-point operations, counted while torch computes; what is made without torch goes by formula.

A product of matrices counts two operations a multiply-add (torch's own formulas), a decomposition the leading terms of
its textbook algorithm (Golub and Van Loan, Matrix Computations), any other arithmetic one operation for each element of
its largest tensor. Nothing is what only moves, compares, sorts or draws numbers. Kernels that are compiled without
torch (sums of what was selected by size or by lot) count a multiply-add for each model and element.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from merging.execution.values import TensorMaker
from merging.planning.graph import MergeNode
from merging.planning.plan import MergePlan, TensorPlan


@dataclass
class Counted:
    """What was counted so far."""

    flops: int = 0


@contextmanager
def counted() -> Iterator[Counted]:
    """Count what torch computes in this thread until the block ends; computing takes longer meanwhile."""
    mode = _Counting()
    with mode:
        yield mode.found


def merge_flops(plan: MergePlan, seed: int = 0) -> int:
    """Operations of the merge that ``plan`` is, statistics not included.

    Of tensors that are alike in shape and parameters one is made, whole, and counts for all. Raises what kernels raise.
    """
    maker = TensorMaker(plan.rounding, seed, statistics=plan.statistics)
    known: dict[object, int] = {}
    total = 0
    for tensor in plan.tensors:
        node = tensor.node
        if not isinstance(node, MergeNode):
            continue
        alike = (node.method.name, tuple(tensor.spec.shape), tensor.dtype.name, repr(node.values))
        if alike not in known:
            known[alike] = _in_span(node, tensor) if node.in_span else _whole(maker, node, tensor)
        total += known[alike]
    return total


def _in_span(node: MergeNode, tensor: TensorPlan) -> int:
    """A multiply-add for each leaf; where inner products are asked for, one for each pair of them, and the differences
    to the first.
    """
    rows = len(node.leaves)
    products = rows * (rows + 1) + rows - 1 if node.needs_products else 0
    return tensor.spec.size * (2 * rows + products)


def _whole(maker: TensorMaker, node: MergeNode, tensor: TensorPlan) -> int:
    """What the kernel computes, and the base that is subtracted before and added after it."""
    with counted() as found:
        maker.whole(tensor.name, node, tensor.dtype, None)
    models = len(node.inputs)
    moved = models + 1 if node.base is not None and node.method.subtracts_base else 0
    return max(found.flops, 2 * models * tensor.spec.size) + moved * tensor.spec.size


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found = Counted()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        self.found.flops += _flops(func, args, kwargs, out)
        return out


def _flops(func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> int:
    packet = func._overloadpacket
    if packet in flop_registry:
        return int(flop_registry[packet](*args, **kwargs, out_val=out))
    name = packet.__name__
    if name in _ATTENTION:
        return _ATTENTION[name](args)
    if name in _DECOMPOSITIONS:
        shape = next(leaf.shape for leaf in tree_leaves(args) if isinstance(leaf, torch.Tensor))
        return prod(shape[:-2]) * int(_DECOMPOSITIONS[name](max(shape[-2:]), min(shape[-2:])))
    if func.is_view or name in _MOVING:
        return 0
    results = [leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]
    given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    largest = max(leaf.numel() for leaf in [*given, *results]) if results else 0
    return 2 * largest if name in {"dot", "mv", "addmv"} else largest


_ATTENTION: dict[str, Callable[[Sequence[Any]], int]] = {
    "_scaled_dot_product_flash_attention_for_cpu": lambda args: int(
        sdpa_flop_count(args[0].shape, args[1].shape, args[2].shape)  # type: ignore[no-untyped-call]
    ),
    "_scaled_dot_product_flash_attention_for_cpu_backward": lambda args: int(
        sdpa_backward_flop_count(*(tensor.shape for tensor in args[:4]))  # type: ignore[no-untyped-call]
    ),
}

# By the longer side m and the shorter n.
_DECOMPOSITIONS: dict[str, Callable[[int, int], float]] = {
    "_linalg_eigh": lambda m, n: 9 * n**3,
    "_linalg_svd": lambda m, n: 14 * m * n**2 + 8 * n**3,
    "linalg_qr": lambda m, n: 4 * (m * n**2 - n**3 / 3),
    "linalg_cholesky_ex": lambda m, n: n**3 / 3,
    "linalg_inv_ex": lambda m, n: 2 * n**3,
    "linalg_lu_factor_ex": lambda m, n: 2 * n**3 / 3,
    "_linalg_solve_ex": lambda m, n: 2 * n**3 / 3,
}

_MOVING = frozenset([
    "abs", "amax", "amin", "arange", "bernoulli_", "cat", "clamp", "clamp_", "clamp_max", "clamp_min", "clone",
    "constant_pad_nd", "copy_", "detach", "embedding", "empty", "empty_like", "empty_strided", "eye", "fill_", "flip",
    "full", "full_like", "gather", "index", "index_copy", "index_put", "index_put_", "index_select", "kthvalue",
    "lift_fresh", "masked_fill", "masked_fill_", "max", "maximum", "min", "minimum", "neg", "new_empty",
    "new_empty_strided", "new_full", "new_zeros", "normal_", "ones", "ones_like", "rand", "randn", "random_",
    "repeat", "roll", "scalar_tensor", "scatter", "scatter_", "select_backward", "set_", "sign", "slice_backward",
    "sort", "stack", "topk", "tril", "triu", "uniform_", "where", "zero_", "zeros", "zeros_like", "_to_copy",
    "_unsafe_view",
])  # fmt: skip
