"""How one tensor of a merge comes about: a tree of merges whose leaves are tensors on disk."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from kinship.arrays import Float64
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.dtypes import DType
from kinship.checkpoints.header import TensorEntry
from merging.offspring.span import child_row
from merging.registry import MergeMethod


@dataclass(frozen=True)
class Leaf:
    """A tensor of a model."""

    model: Checkpoint
    tensor: str

    @property
    def entry(self) -> TensorEntry:
        """Its dtype, shape and size."""
        return self.model.tensors[self.tensor]

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.entry.shape

    @property
    def leaves(self) -> "tuple[Leaf, ...]":
        """Itself."""
        return (self,)


@dataclass(frozen=True, eq=False)
class Same:
    """A buffer of integers, which all models must hold alike: it is copied."""

    leaves: tuple[Leaf, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.leaves[0].shape


@dataclass(frozen=True, eq=False)
class WeightedSum:
    """``sum_i factors[i] * leaves[i]``, known beforehand."""

    leaves: tuple[Leaf, ...]
    factors: Float64

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.leaves[0].shape


@dataclass(frozen=True, eq=False)
class MergeNode:
    """What ``method`` with ``values`` makes of ``inputs`` and, where there is one, the ``base``.

    place: where in a recipe of recipes it stands; with the tensor's name it seeds what is random.
    """

    method: MergeMethod
    values: Mapping[str, Any]
    inputs: "tuple[Node, ...]"
    base: "Node | None"
    place: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.inputs[0].shape

    @cached_property
    def leaves(self) -> tuple[Leaf, ...]:
        """All it is made of, the base first, each once."""
        return tuple(dict.fromkeys(leaf for node in self.operands for leaf in node.leaves))

    @cached_property
    def in_span(self) -> bool:
        """Whether it is a linear combination of its leaves."""
        return self.method.in_span(self.values) and all(
            node.in_span for node in self.operands if isinstance(node, MergeNode)
        )

    @cached_property
    def needs_products(self) -> bool:
        """Whether inner products of the leaves decide its coefficients."""
        return self.method.needs_products or any(node.needs_products for node in self.merges())

    @property
    def operands(self) -> "tuple[Node, ...]":
        """The base, where there is one, and the inputs."""
        return self.inputs if self.base is None else (self.base, *self.inputs)

    def merges(self) -> "Iterator[MergeNode]":
        """The merges directly inside."""
        return (node for node in self.operands if isinstance(node, MergeNode))


Node = Leaf | Same | WeightedSum | MergeNode


def label_of(name: str, node: Node) -> str:
    """Tensor ``name`` that ``node`` makes, and the models it is made from, for errors."""
    return f"Tensor {name!r} of {', '.join(dict.fromkeys(leaf.model.id for leaf in node.leaves))}"


def coefficients(node: Node, leaves: Sequence[Leaf], gram: Float64 | None) -> Float64:
    """``node``, which stays in the span, as coefficients (R,) on its R ``leaves``.

    gram: (R, R) inner products of [t0, t1 - t0, ..] for the leaves t0, t1, ..; None where nothing asks for them. So the
    merges of a lineage become one: nothing is rounded in between.
    """
    if not isinstance(node, MergeNode):
        row = np.zeros(len(leaves))
        row[[leaves.index(leaf) for leaf in node.leaves]] = node.factors if isinstance(node, WeightedSum) else 1.0
        return row
    rows = np.stack([coefficients(part, leaves, gram) for part in node.inputs])
    base = None if node.base is None else coefficients(node.base, leaves, gram)
    return child_row(node.method, node.values, rows, base, gram)


class Spec(NamedTuple):
    """What is known of a tensor before it is made."""

    name: str
    dtype: DType
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of it all."""
        return self.size * self.dtype.itemsize
